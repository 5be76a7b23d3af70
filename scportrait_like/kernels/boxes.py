"""Boxes of many cells, held ragged: cut out of planes, and joined from pieces.

A box is (y0, x0, y1, x1), half open. The pixels of box i are ``buffer[offsets[i]:offsets[i + 1]]``,
row by row. Pixels are only moved, so kernels see them as unsigned integers of their size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, as_unsigned, checked_boxes, checked_output, flattened, frozen
from ._jit import jit


def ragged_offsets(boxes: npt.ArrayLike) -> Int64:
    """Where each box begins in the flat buffer.

    Parameters
    ----------
    boxes : (n, 4) int64

    Returns
    -------
    (n + 1,) int64; the last one is the size of the buffer.
    """
    box = np.asarray(boxes, dtype=np.int64).reshape(-1, 4)
    offsets = np.zeros(len(box) + 1, np.int64)
    np.cumsum((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]), out=offsets[1:])
    return offsets


@jit
def _cut_masks(
    flat: Array,
    step: int,
    height: int,
    width: int,
    ids: Array,
    boxes: Int64,
    offsets: Int64,
    out: npt.NDArray[np.uint8],
) -> None:
    for i in range(boxes.shape[0]):
        y0, x0, y1, x1 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        key = ids[i]
        mine = out[offsets[i] : offsets[i + 1]]
        w = x1 - x0
        left = min(max(0, -x0), w)
        right = max(left, min(w, width - x0))
        for y in range(y0, y1):
            to = mine[(y - y0) * w : (y - y0 + 1) * w]
            if key == 0 or y < 0 or y >= height or left == right:
                for x in range(w):
                    to[x] = 0
                continue
            for x in range(left):
                to[x] = 0
            for x in range(right, w):
                to[x] = 0
            begin = y * step + x0 + left
            source = flat[begin : begin + right - left]
            inner = to[left:right]
            for x in range(right - left):
                inner[x] = source[x] == key


def cut_masks(
    labels: Array,
    ids: npt.ArrayLike,
    boxes: npt.ArrayLike,
    offsets: npt.ArrayLike,
    out: npt.NDArray[np.uint8],
) -> None:
    """Cut the mask of each cell: 1 where the label is its id.

    Parameters
    ----------
    labels : (y, x), any integer dtype
    ids : (n,) int64
        Above 0. An id that the dtype of ``labels`` cannot hold gives an empty mask.
    boxes : (n, 4) int64
        In coordinates of ``labels``; may reach outside, where the mask is 0.
    offsets : (n + 1,) int64
    out : (offsets[-1],) uint8
        Overwritten.
    """
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, not {labels.dtype}")
    if labels.ndim != 2:
        raise ValueError(f"labels must have the axes (y, x), not the shape {labels.shape}")
    box, offset = checked_boxes(boxes, offsets, out)
    key = np.asarray(ids, dtype=np.int64)
    if key.shape != (len(box),):
        raise ValueError(f"{len(box)} boxes need as many ids, not {key.shape}")
    flat, (step,) = flattened(as_unsigned(labels))
    fits = (key > 0) & (key.astype(np.uint64) <= np.uint64(np.iinfo(labels.dtype).max))
    unsigned = np.where(fits, key, 0).astype(flat.dtype)  # 0 stands for no pixel at all
    _cut_masks(
        flat,
        step,
        labels.shape[0],
        labels.shape[1],
        frozen(unsigned, flat.dtype),
        box,
        offset,
        checked_output(out, np.uint8),
    )


@jit
def _cut_pixels(
    flat: Array, step: int, height: int, width: int, boxes: Int64, offsets: Int64, out: Array
) -> None:
    for i in range(boxes.shape[0]):
        y0, x0, y1, x1 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        mine = out[offsets[i] : offsets[i + 1]]
        w = x1 - x0
        left = min(max(0, -x0), w)
        right = max(left, min(w, width - x0))
        for y in range(y0, y1):
            to = mine[(y - y0) * w : (y - y0 + 1) * w]
            if y < 0 or y >= height or left == right:
                for x in range(w):
                    to[x] = 0
                continue
            for x in range(left):
                to[x] = 0
            for x in range(right, w):
                to[x] = 0
            begin = y * step + x0 + left
            source = flat[begin : begin + right - left]
            inner = to[left:right]
            for x in range(right - left):
                inner[x] = source[x]


def cut_pixels(plane: Array, boxes: npt.ArrayLike, offsets: npt.ArrayLike, out: Array) -> None:
    """Cut the pixels of each box out of an image plane.

    Parameters
    ----------
    plane : (y, x), any dtype of 1, 2, 4 or 8 bytes
    boxes : (n, 4) int64
        In coordinates of ``plane``; may reach outside, where the pixels are 0.
    offsets : (n + 1,) int64
    out : (offsets[-1],), dtype of ``plane``
        Overwritten.
    """
    if plane.ndim != 2:
        raise ValueError(f"the plane must have the axes (y, x), not the shape {plane.shape}")
    box, offset = checked_boxes(boxes, offsets, out)
    target = as_unsigned(checked_output(out, plane.dtype.newbyteorder("=")))
    flat, (step,) = flattened(as_unsigned(plane))
    _cut_pixels(flat, step, plane.shape[0], plane.shape[1], box, offset, target)


@jit
def _paste(
    values: Array,
    part_boxes: Int64,
    part_offsets: Int64,
    targets: Int64,
    boxes: Int64,
    offsets: Int64,
    out: Array,
) -> None:
    for i in range(part_boxes.shape[0]):
        target = targets[i]
        w = boxes[target, 3] - boxes[target, 1]
        n = part_boxes[i, 3] - part_boxes[i, 1]
        to = offsets[target] + part_boxes[i, 1] - boxes[target, 1]
        to += (part_boxes[i, 0] - boxes[target, 0]) * w
        begin = part_offsets[i]
        for _ in range(part_boxes[i, 2] - part_boxes[i, 0]):
            source = values[begin : begin + n]
            row = out[to : to + n]
            for x in range(n):
                row[x] = source[x]
            begin += n
            to += w


def paste(
    values: Array,
    part_boxes: npt.ArrayLike,
    part_offsets: npt.ArrayLike,
    targets: npt.ArrayLike,
    boxes: npt.ArrayLike,
    offsets: npt.ArrayLike,
    out: Array,
) -> None:
    """Paste pieces of boxes, cut in different tiles, where they belong.

    Parameters
    ----------
    values : (part_offsets[-1],), any dtype of 1, 2, 4 or 8 bytes
    part_boxes : (m, 4) int64
        Pieces, in the same coordinates as ``boxes``, each inside its target's box. Pieces of a
        target do not overlap.
    part_offsets : (m + 1,) int64
    targets : (m,) int64
        The box that each piece belongs to.
    boxes : (n, 4) int64
    offsets : (n + 1,) int64
    out : (offsets[-1],), dtype of ``values``
        Pixels that no piece covers are left as they are.
    """
    part, part_offset = checked_boxes(part_boxes, part_offsets, values)
    box, offset = checked_boxes(boxes, offsets, out)
    target = frozen(targets, np.int64)
    if target.shape != (len(part),):
        raise ValueError(f"{len(part)} pieces need as many targets, not {target.shape}")
    if len(target) and (target.min() < 0 or target.max() >= len(box)):
        raise ValueError("a target is no box")
    whole = box[target]
    if (part[:, :2] < whole[:, :2]).any() or (part[:, 2:] > whole[:, 2:]).any():
        raise ValueError("a piece reaches outside of its target's box")
    _paste(
        frozen(as_unsigned(values), f"u{values.itemsize}"),
        part,
        part_offset,
        target,
        box,
        offset,
        as_unsigned(checked_output(out, values.dtype.newbyteorder("="))),
    )
