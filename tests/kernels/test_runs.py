"""Label runs against a run-length encoding in plain numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scportrait_like.kernels import LabelRuns, gather_runs, label_runs, run_partials

INTEGERS = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)]
LARGEST = 2**63 - 1


def plain_runs(labels, background):
    """Runs by label: {id: [(start, length), ...]}, row by row."""
    found = {}
    nx = labels.shape[-1]
    for line, row in enumerate(labels.reshape(-1, nx) if labels.size else ()):
        cuts = np.flatnonzero(row[1:] != row[:-1]) + 1
        begins = np.concatenate([[0], cuts])
        ends = np.concatenate([cuts, [nx]])
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            key = int(row[begin])
            if 0 < key <= LARGEST or (key == 0 and background):
                found.setdefault(key, []).append((line * nx + begin, end - begin))
    return dict(sorted(found.items()))


def as_dict(runs):
    pairs = list(zip(runs.starts.tolist(), runs.lengths.tolist(), strict=True))
    bounds = zip(runs.offsets[:-1], runs.offsets[1:], strict=True)
    return {
        id_: pairs[first:stop] for id_, (first, stop) in zip(runs.ids.tolist(), bounds, strict=True)
    }


def check(runs, labels, background=False):
    expected = plain_runs(labels, background)
    assert as_dict(runs) == expected
    assert list(as_dict(runs)) == list(expected), "ids are ascending"
    assert runs.area.tolist() == [sum(n for _, n in pieces) for pieces in expected.values()]
    for part in (runs.ids, runs.area, runs.offsets, runs.starts, runs.lengths):
        assert part.dtype == np.int64
    assert len(runs.offsets) == len(runs.ids) + 1
    signed = labels.dtype.kind == "i"
    assert runs.negative == bool(signed and (labels < 0).any())
    assert runs.too_large == bool(not signed and (labels > LARGEST).any())


def some_labels(dtype):
    info = np.iinfo(dtype)
    few = st.integers(max(info.min, -2), 4)
    return hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=9),
        elements=st.one_of(few, few, st.integers(int(info.min), int(info.max))),
    )


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(INTEGERS).flatmap(some_labels), st.booleans())
def test_equals_plain_runs(labels, background):
    check(label_runs(labels, background=background), labels, background)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("shape", [(1, 40, 50), (5, 12, 31), (3, 1, 200), (2, 70, 1)])
def test_pieces_in_planes_and_volumes(dtype, background, shape, rng):
    # Pieces of one to five pixels; the largest id of the dtype is one of the labels.
    ids = np.array([0, 1, 2, 3, 77, min(np.iinfo(dtype).max, LARGEST)], dtype)
    labels = ids[rng.integers(0, len(ids), (*shape[:2], shape[2] + 5))]
    labels = labels.repeat(rng.integers(1, 6, labels.shape[2]), axis=2)[:, :, : shape[2]]
    check(label_runs(labels, background=background), labels, background)


@pytest.mark.parametrize("dtype", [np.uint32, np.int64])
@pytest.mark.parametrize("step", [1, 1024, 2**20 + 7])
def test_many_labels_let_the_table_grow(dtype, step, rng):
    """More labels than the table first holds; ids whose low bits are alike."""
    small = rng.permutation(3000)[:, None].repeat(3, 1).reshape(1, 100, 90)
    labels = small.astype(dtype) * dtype(step)
    runs = label_runs(labels, background=True)
    assert len(runs.ids) == 3000
    check(runs, labels, background=True)


def test_labels_of_any_size(rng):
    ids = np.unique(rng.integers(1, 2**63 - 1, 40_000))
    labels = rng.permutation(ids[: len(ids) // 100 * 100]).reshape(1, -1, 100)
    runs = label_runs(labels)
    np.testing.assert_array_equal(runs.ids, np.sort(labels.reshape(-1)))
    np.testing.assert_array_equal(runs.starts, np.argsort(labels.reshape(-1)))
    np.testing.assert_array_equal(runs.offsets, np.arange(labels.size + 1))
    assert (runs.lengths == 1).all()
    assert (runs.area == 1).all()


VIEWS = {
    "part": lambda a: a[:, 3:17, 5:21],
    "steps": lambda a: a[:, ::2, ::3],
    "steps of rows": lambda a: a[::2, ::3],
    "reversed": lambda a: a[::-1, ::-1, ::-1],
    "transposed": lambda a: a.transpose(2, 0, 1),
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "broadcast along x": lambda a: np.broadcast_to(a[:, :, :1], a.shape),
    "fortran": np.asfortranarray,
    "unaligned": lambda a: (
        np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    ),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_layouts(view, rng):
    labels = view(rng.integers(0, 5, (3, 20, 30)).repeat(2, 2).astype(np.uint32))
    labels.flags.writeable = False
    before = labels.copy()
    check(label_runs(labels), before)
    np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize("shape", [(0, 5, 5), (1, 0, 5), (1, 5, 0), (0, 0, 0)])
@pytest.mark.parametrize("background", [False, True])
def test_no_pixels(shape, background):
    labels = np.zeros(shape, np.uint32)
    check(label_runs(labels, background=background), labels, background)


def test_background_alone():
    labels = np.zeros((2, 3, 4), np.uint8)
    assert label_runs(labels).ids.shape == (0,)
    assert label_runs(labels).offsets.tolist() == [0]
    assert as_dict(label_runs(labels, background=True)) == {0: [(4 * i, 4) for i in range(6)]}


def test_a_run_ends_with_its_row():
    labels = np.full((2, 2, 3), 7, np.int64)
    assert as_dict(label_runs(labels)) == {7: [(0, 3), (3, 3), (6, 3), (9, 3)]}


def test_rows_longer_than_a_block():
    labels = np.zeros((1, 2, 70_001), np.uint16)
    labels[0, 1, 3:70_000] = 9
    assert as_dict(label_runs(labels)) == {9: [(70_004, 69_997)]}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_negative_is_told(dtype, background):
    info = np.iinfo(dtype)
    labels = np.array([[[1, -1, -1, info.min, 1, 0, info.max]]], dtype)
    check(label_runs(labels, background=background), labels, background)
    assert label_runs(labels).negative
    assert not label_runs(np.abs(labels[..., :2])).negative


def test_too_large_is_told():
    labels = np.array([[[2**63, 2**64 - 1, LARGEST, 5]]], np.uint64)
    check(label_runs(labels), labels)
    assert label_runs(labels).too_large
    assert not label_runs(labels[..., 2:]).too_large


@pytest.mark.parametrize("labels", [np.zeros((1, 2, 2)), np.zeros((1, 2, 2), bool)])
def test_wrong_dtype(labels):
    with pytest.raises(TypeError, match="integers"):
        label_runs(labels)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (1, 1, 2, 2)])
def test_wrong_axes(shape):
    with pytest.raises(ValueError, match="z, y, x"):
        label_runs(np.zeros(shape, int))


# Taking some


@pytest.fixture
def pieces(rng):
    labels = rng.integers(0, 40, (2, 30, 50)).repeat(2, 2).astype(np.uint32) * 3
    return labels, label_runs(labels, background=True)


@pytest.mark.parametrize("order", ["ascending", "shuffled", "by area", "some", "one", "none"])
def test_take(pieces, order, rng):
    labels, runs = pieces
    everything = plain_runs(labels, background=True)
    rows = {
        "ascending": np.arange(len(runs.ids)),
        "shuffled": rng.permutation(len(runs.ids)),
        "by area": np.argsort(runs.area),
        "some": np.array([7, 3, 30]),
        "one": np.array([11]),
        "none": np.zeros(0, np.int64),
    }[order]
    taken = runs.take(rows)
    assert list(as_dict(taken).items()) == [(i, everything[i]) for i in runs.ids[rows].tolist()]
    np.testing.assert_array_equal(taken.area, runs.area[rows])
    assert taken.offsets.dtype == np.int64


def test_take_keeps_what_was_met():
    runs = label_runs(np.array([[[1, -1, 2]]]))
    assert runs.take(np.array([1])).negative
    assert label_runs(np.array([[[2**63, 2]]], np.uint64)).take(np.array([0])).too_large


# Geometry


def plain_partials(labels, origin, background):
    for id_ in np.unique(labels).tolist():
        if id_ > 0 or (background and id_ == 0):
            at = np.argwhere(labels == id_) + np.asarray(origin)
            yield id_, len(at), at.sum(0).tolist(), [*at.min(0).tolist(), *(at.max(0) + 1).tolist()]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("shape", [(1, 30, 40), (4, 17, 23), (6, 1, 5), (3, 9, 1)])
def test_partials(shape, background, rng):
    labels = rng.integers(0, 12, shape).astype(np.uint16)
    labels[labels == 5] = 6
    origin = (3, 2**31, 2**33)
    runs = label_runs(labels, background=background)
    found = run_partials(runs, labels.shape, origin)
    rows = zip(
        *(part.tolist() for part in (found.ids, found.area, found.sums, found.box)), strict=True
    )
    assert list(rows) == list(plain_partials(labels, origin, background))


def test_partials_of_some_labels(pieces, rng):
    labels, runs = pieces
    rows = rng.permutation(len(runs.ids))[:9]
    found = run_partials(runs.take(rows), labels.shape)
    expected = {row[0]: list(row[1:]) for row in plain_partials(labels, (0, 0, 0), True)}
    for number, id_ in enumerate(runs.ids[rows].tolist()):
        figures = [found.area[number], found.sums[number].tolist(), found.box[number].tolist()]
        assert figures == expected[id_]


def test_partials_tell_what_was_met():
    labels = np.array([[[1, -1, 2]]])
    assert run_partials(label_runs(labels), labels.shape).negative


# Pixels


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "u4", "f4", "i8", "f8", "?"])
def test_gathered_pixels(dtype, rng):
    labels = rng.integers(0, 9, (2, 21, 30)).repeat(rng.integers(1, 50, 30), axis=2)
    pixels = rng.integers(0, 255, labels.shape).astype(dtype)
    runs = label_runs(labels, background=True)
    out = np.empty(labels.size, pixels.dtype)
    gather_runs(pixels, runs.starts, runs.lengths, out)
    expected = [pixels[labels == i] for i in runs.ids]
    np.testing.assert_array_equal(out, np.concatenate(expected))


def test_nan_keep_their_bits():
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0x80000000], np.uint32)
    out = np.empty(3, np.float32)
    gather_runs(bits.view(np.float32).reshape(2, 2), [2, 0], [2, 1], out)
    assert out.view(np.uint32).tolist() == [0x7F800000, 0x80000000, 0x7FC00001]


@pytest.mark.parametrize("lengths", [[], [0], [1], [15, 16, 17], [16] * 5, [33, 1, 0, 64, 48]])
def test_runs_about_the_length_of_a_block(lengths, rng):
    pixels = rng.integers(0, 2**16, (1, 3, 200)).astype(np.uint16)
    starts = rng.integers(0, 500, len(lengths))
    out = np.full(sum(lengths) + 40, 7, np.uint16)
    gather_runs(pixels, starts, lengths, out[: sum(lengths)])
    expected = [pixels.reshape(-1)[a : a + n] for a, n in zip(starts, lengths, strict=True)]
    np.testing.assert_array_equal(out[: sum(lengths)], np.concatenate([[], *expected]))
    assert (out[sum(lengths) :] == 7).all(), "nothing is written behind the end"


def test_pixels_in_another_order():
    pixels = np.arange(12, dtype=">u2").reshape(3, 4)
    out = np.empty(4, np.uint16)
    gather_runs(pixels, [8, 1], [2, 2], out)
    assert out.tolist() == [8, 9, 1, 2]
    gather_runs(pixels.T, [0, 6], [3, 1], out)
    assert out.tolist() == [0, 4, 8, 2]


def test_a_wrong_output_is_refused():
    pixels = np.arange(12, dtype=np.uint16)
    with pytest.raises(TypeError, match="must be uint16, not float64"):
        gather_runs(pixels, [0], [2], np.empty(2))
    with pytest.raises(ValueError, match="contiguous and writable"):
        gather_runs(pixels, [0], [2], np.empty(4, np.uint16)[::2])


def test_runs_are_a_plain_tuple():
    """They travel between processes as their arrays."""
    runs = label_runs(np.array([[[1, 1, 2]]]))
    assert LabelRuns(*runs) is not runs
    assert as_dict(LabelRuns(*runs)) == {1: [(0, 2)], 2: [(2, 1)]}
