"""Cutting and pasting against plain slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.kernels import cut_masks, cut_pixels, paste, ragged_offsets

from .conftest import some_boxes, split

REAL = [np.dtype(code) for code in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")]
FAR = 64  # more than any box reaches outside


def padded(plane, box):
    y0, x0, y1, x1 = box + FAR
    return np.pad(plane, FAR)[y0:y1, x0:x1]


@settings(max_examples=100, deadline=None)
@given(
    some_boxes(),
    st.sampled_from(REAL),
    st.integers(0, 25),
    st.integers(0, 25),
    st.integers(0, 2**32 - 1),
)
def test_cut_pixels(boxes, dtype, h, w, seed):
    plane = np.random.default_rng(seed).integers(0, 256, h * w * dtype.itemsize, np.uint8)
    plane = plane.view(dtype).reshape(h, w)
    offsets = ragged_offsets(boxes)
    out = np.full(offsets[-1], 77, dtype)
    cut_pixels(plane, boxes, offsets, out)
    for found, box in zip(split(out, boxes), boxes, strict=True):
        assert found.tobytes() == padded(plane, box).tobytes()


@settings(max_examples=100, deadline=None)
@given(
    some_boxes(),
    st.sampled_from(REAL[:8]),
    st.integers(0, 25),
    st.integers(0, 25),
    st.integers(0, 2**32 - 1),
)
def test_cut_masks(boxes, dtype, h, w, seed):
    rng = np.random.default_rng(seed)
    top = min(np.iinfo(dtype).max, 2**63 - 1)
    names = np.array([0, 1, 2, top], dtype)
    labels = names[rng.integers(0, 4, (h, w))]
    ids = np.array([1, 2, top, 3])[rng.integers(0, 4, len(boxes))]
    offsets = ragged_offsets(boxes)
    out = np.full(offsets[-1], 77, np.uint8)
    cut_masks(labels, ids, boxes, offsets, out)
    for found, box, i in zip(split(out, boxes), boxes, ids, strict=True):
        np.testing.assert_array_equal(found, padded(labels, box) == i)


def test_id_beyond_the_dtype_is_nowhere():
    labels = np.array([[255, 0, 1]], np.uint8)
    boxes = np.array([[0, 0, 1, 3]] * 5)
    out = np.empty(15, np.uint8)
    cut_masks(labels, [255, 257, 256, 2**40 + 1, 1], boxes, ragged_offsets(boxes), out)
    assert out.reshape(5, 3).tolist() == [[1, 0, 0], [0] * 3, [0] * 3, [0] * 3, [0, 0, 1]]
    cut_masks(labels.view(np.int8), [255, -1, 127, 0, 1], boxes, ragged_offsets(boxes), out)
    assert out.reshape(5, 3).tolist() == [[0] * 3, [0] * 3, [0] * 3, [0] * 3, [0, 0, 1]]


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[3:17, 5:21],
        lambda a: a[::2, ::3],
        lambda a: a[::-1],
        lambda a: a.T,
        lambda a: a.astype(a.dtype.newbyteorder()),
    ],
)
def test_layouts(view, rng):
    plane = view(rng.integers(0, 5, (40, 50)).astype(np.uint16))
    plane.flags.writeable = False
    boxes = np.array([[0, 0, 9, 9], [-2, 3, 30, 40]])
    boxes.flags.writeable = False
    offsets = ragged_offsets(boxes)
    out = np.empty(offsets[-1], np.uint16)
    cut_pixels(plane, boxes, offsets, out)
    bits = np.empty(offsets[-1], np.uint8)
    cut_masks(plane, [3, 4], boxes, offsets, bits)
    for i in range(2):
        np.testing.assert_array_equal(split(out, boxes)[i], padded(plane, boxes[i]))
        np.testing.assert_array_equal(split(bits, boxes)[i], padded(plane, boxes[i]) == 3 + i)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_pieces_make_the_whole(dtype, rng):
    plane = rng.integers(0, 200, (100, 120)).astype(dtype)
    corner = rng.integers(0, 70, (30, 2))
    boxes = np.hstack([corner, corner + rng.integers(1, 30, (30, 2))])
    offsets = ragged_offsets(boxes)
    whole = np.empty(offsets[-1], dtype)
    cut_pixels(plane, boxes, offsets, whole)
    parts, targets = [], []
    for y in range(0, 100, 33):
        for x in range(0, 120, 41):
            tile = np.array([y, x, y + 33, x + 41])
            clipped = np.hstack(
                [np.maximum(boxes[:, :2], tile[:2]), np.minimum(boxes[:, 2:], tile[2:])]
            )
            keep = (clipped[:, :2] < clipped[:, 2:]).all(1)
            parts.append(clipped[keep])
            targets.append(np.flatnonzero(keep))
    parts, targets = np.vstack(parts), np.concatenate(targets)
    shuffled = rng.permutation(len(parts))
    parts, targets = parts[shuffled], targets[shuffled]
    part_offsets = ragged_offsets(parts)
    values = np.empty(part_offsets[-1], dtype)
    cut_pixels(plane, parts, part_offsets, values)
    out = np.full(offsets[-1], 201).astype(dtype)
    paste(values, parts, part_offsets, targets, boxes, offsets, out)
    np.testing.assert_array_equal(out, whole)


def test_wrong_arguments_are_refused():
    plane = np.zeros((5, 5), np.uint16)
    boxes = np.array([[0, 0, 2, 2]])
    offsets = ragged_offsets(boxes)
    out = np.zeros(4, np.uint16)
    with pytest.raises(ValueError, match="offsets"):
        cut_pixels(plane, boxes, offsets + 1, out)
    with pytest.raises(ValueError, match="offsets"):
        cut_pixels(plane, boxes, np.zeros(3), out)
    with pytest.raises(ValueError, match="boxes"):
        cut_pixels(plane, boxes[:, :3], offsets, out)
    with pytest.raises(ValueError, match="buffer"):
        cut_pixels(plane, boxes, offsets, out[:3])
    with pytest.raises(TypeError, match="uint16"):
        cut_pixels(plane, boxes, offsets, out.astype(np.uint8))
    with pytest.raises(ValueError, match="writable"):
        cut_pixels(plane, boxes, offsets, np.zeros(8, np.uint16)[::2])
    with pytest.raises(TypeError, match="integers"):
        cut_masks(plane.astype(float), [1], boxes, offsets, out.astype(np.uint8))
    with pytest.raises(ValueError, match="ids"):
        cut_masks(plane, [1, 2], boxes, offsets, out.astype(np.uint8))
    with pytest.raises(ValueError, match="axes"):
        cut_masks(plane[0], [1], boxes, offsets, out.astype(np.uint8))
    with pytest.raises(ValueError, match="axes"):
        cut_pixels(plane[0], boxes, offsets, out)
    with pytest.raises(TypeError, match="bytes"):
        cut_pixels(plane.astype(complex), boxes, offsets, np.zeros(4, complex))
    with pytest.raises(ValueError, match="outside"):
        paste(out, boxes, offsets, [0], boxes + 1, offsets, out.copy())
    with pytest.raises(ValueError, match="no box"):
        paste(out, boxes, offsets, [1], boxes, offsets, out.copy())
    with pytest.raises(ValueError, match="targets"):
        paste(out, boxes, offsets, [0, 0], boxes, offsets, out.copy())
