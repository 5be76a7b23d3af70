"""Boxes laid into windows, against loops in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.kernels import fill_windows, ragged_offsets, warm_up_windows

DTYPES = ["u1", "i1", "?", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]


def plain_windows(values, bits, boxes, corners, size):
    out = np.zeros((len(boxes), size, size), values.dtype)
    offsets = ragged_offsets(boxes)
    for i, (y0, x0, y1, x1) in enumerate(boxes.tolist()):
        pixels = values[offsets[i] : offsets[i + 1]].reshape(y1 - y0, x1 - x0)
        if bits is not None:
            there = bits[offsets[i] : offsets[i + 1]].reshape(pixels.shape) != 0
            pixels = np.where(there, pixels, np.zeros((), values.dtype))
        top, left = (boxes[i, :2] - corners[i]).tolist()
        out[i, top : top + y1 - y0, left : left + x1 - x0] = pixels
    return out


def some_bits(rng, count, dtype):
    """Values of a dtype, any bits: NaN of all kinds, and integers that no float holds."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(count) < 0.5
    return rng.integers(0, 256, (count, dtype.itemsize), np.uint8).view(dtype)[:, 0]


def some_boxes(rng, count, size):
    """Boxes inside windows, empty ones too, and the windows' corners."""
    corners = rng.integers(-40, 40, (count, 2))
    edges = np.sort(rng.integers(0, size + 1, (count, 2, 2)), axis=1)
    return (edges + corners[:, None]).reshape(count, 4), corners


def check(values, bits, boxes, corners, size, out=None):
    expected = plain_windows(values, bits, boxes, corners, size)
    if out is None:
        out = some_bits(np.random.default_rng(1), expected.size, values.dtype)
        out = out.reshape(expected.shape).copy()
    fill_windows(values, bits, boxes, ragged_offsets(boxes), corners, size, out)
    assert out.tobytes() == expected.tobytes()


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
    size=st.integers(1, 40),
    count=st.integers(0, 9),
    masked=st.booleans(),
)
def test_equals_plain_windows(seed, dtype, size, count, masked):
    rng = np.random.default_rng(seed)
    boxes, corners = some_boxes(rng, count, size)
    values = some_bits(rng, int(ragged_offsets(boxes)[-1]), dtype)
    bits = rng.integers(0, 2, len(values)).astype(np.uint8) if masked else None
    check(values, bits, boxes, corners, size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [True, False])
def test_all_bits_of_a_value_are_kept(dtype, masked, rng):
    boxes, corners = np.array([[0, 0, 30, 30]]), np.array([[-1, -1]])
    values = some_bits(rng, 900, dtype)
    bits = np.ones(900, np.uint8) if masked else None
    out = np.ones((1, 32, 32), values.dtype)
    fill_windows(values, bits, boxes, ragged_offsets(boxes), corners, 32, out)
    assert out[0, 1:-1, 1:-1].tobytes() == values.tobytes()
    assert np.count_nonzero(out.view(f"u{out.itemsize}")) == np.count_nonzero(
        values.view(f"u{out.itemsize}")
    )


def test_any_number_but_zero_is_a_bit(rng):
    boxes, corners = some_boxes(rng, 5, 20)
    values = some_bits(rng, int(ragged_offsets(boxes)[-1]), "u2")
    check(values, rng.choice([0, 1, 2, 255], len(values)).astype(np.uint8), boxes, corners, 20)


@pytest.mark.parametrize("masked", [True, False])
def test_windows_may_lie_apart(masked, rng):
    """Windows of one channel and plane among others, which stay as they are."""
    boxes, corners = some_boxes(rng, 7, 12)
    values = some_bits(rng, int(ragged_offsets(boxes)[-1]), "u2")
    bits = rng.integers(0, 2, len(values)).astype(np.uint8) if masked else None
    out = np.full((7, 3, 2, 12, 12), 9, np.uint16)
    check(values, bits, boxes, corners, 12, out[:, 1, 0])
    out[:, 1, 0] = 9
    assert (out == 9).all()
    rows = np.full((7, 12, 20), 9, np.uint16)
    check(values, bits, boxes, corners, 12, rows[..., 5:17])
    assert (rows[..., :5] == 9).all()
    assert (rows[..., 17:] == 9).all()


@pytest.mark.parametrize("masked", [True, False])
def test_inputs_of_other_layouts(masked, rng):
    boxes, corners = some_boxes(rng, 7, 12)
    values = some_bits(rng, 2 * int(ragged_offsets(boxes)[-1]), "u4")[::2]
    bits = rng.integers(0, 2, 2 * len(values)).astype(np.uint8)[::2] if masked else None
    for array in (values, bits):
        if array is not None:
            array.flags.writeable = False
    check(values, bits, np.asfortranarray(boxes), corners[:, ::-1].copy()[:, ::-1], 12)


def test_values_of_another_byte_order(rng):
    boxes, corners = np.array([[2, 3, 7, 9]]), np.array([[0, 1]])
    values = np.arange(30, dtype=">u2")
    out = np.ones((1, 12, 12), "u2")
    with pytest.raises(TypeError, match=r"windows of >u2 cannot be uint16"):
        fill_windows(values, None, boxes, ragged_offsets(boxes), corners, 12, out)
    with pytest.raises(TypeError, match="cannot be"):
        fill_windows(
            *(values, None, boxes, ragged_offsets(boxes), corners, 12),
            np.ones((1, 12, 12), ">u2"),
        )


def test_no_boxes():
    nothing = np.zeros((0, 4), np.int64), [0], np.zeros((0, 2), np.int64), 5
    fill_windows(np.zeros(0, "u2"), None, *nothing, np.zeros((0, 5, 5), "u2"))
    with pytest.raises(ValueError, match="need as many corners"):
        fill_windows(np.zeros(0, "u2"), None, *nothing, np.zeros((1, 5, 5), "u2"))


# (the box's top, left, bottom, right) beyond a window of 10
@pytest.mark.parametrize("by", [(-1, 0, 0, 0), (0, -1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
def test_boxes_outside_of_their_windows(by):
    boxes = np.array([[5, 5, 9, 9], [0, 0, 10, 10]])
    boxes[1] += by
    offsets = ragged_offsets(boxes)
    values, out = np.zeros(offsets[-1], "u1"), np.zeros((2, 10, 10), "u1")
    with pytest.raises(ValueError, match="reaches outside of its window"):
        fill_windows(values, None, boxes, offsets, np.zeros((2, 2), int), 10, out)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("corners", np.zeros((1, 2), int)),
        ("corners", np.zeros((2, 3), int)),
        ("size", 9),
        ("out", np.zeros((2, 10, 9), "u1")),
        ("values", np.zeros(99, "u1")),
        ("bits", np.zeros(99, "u1")),
        ("offsets", np.array([0, 100, 199])),
        ("offsets", np.array([0, 200])),
        ("boxes", np.array([[0, 0, 10, 10]])),
        ("out", np.zeros((2, 10, 20), "u1")[..., ::2]),
        ("out", np.zeros((4, 10, 10), "u1")[::-2]),
    ],
)
def test_what_does_not_fit(name, wrong):
    given = {
        "values": np.zeros(200, "u1"),
        "bits": np.zeros(200, "u1"),
        "boxes": np.array([[0, 0, 10, 10]] * 2),
        "offsets": np.array([0, 100, 200]),
        "corners": np.zeros((2, 2), int),
        "size": 10,
        "out": np.zeros((2, 10, 10), "u1"),
    }
    fill_windows(**given)
    with pytest.raises(ValueError, match=r"\w"):
        fill_windows(**{**given, name: wrong})


def test_read_only_windows():
    out = np.zeros((1, 2, 2), "u1")
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        fill_windows(np.ones(4, "u1"), None, [[0, 0, 2, 2]], [0, 4], [[0, 0]], 2, out)


@pytest.mark.parametrize("dtype", [*DTYPES, ">u2"])
def test_warm_up(dtype):
    warm_up_windows(np.uint32, dtype)
    warm_up_windows(np.int64)
