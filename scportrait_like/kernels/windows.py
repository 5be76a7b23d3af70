"""Windows of cells: ragged boxes laid into arrays of one size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, as_unsigned, checked_boxes, flattened, frozen
from ._jit import jit


@jit
def _fill_windows(
    values: Array,
    bits: npt.NDArray[np.uint8],
    masked: bool,
    boxes: Int64,
    offsets: Int64,
    corners: Int64,
    size: int,
    out: Array,
    step: int,
    row_step: int,
) -> None:
    nothing = out.dtype.type(0)  # a plain 0 would make floats of 64 bits
    for i in range(boxes.shape[0]):
        # The box in its window.
        y0, y1 = boxes[i, 0] - corners[i, 0], boxes[i, 2] - corners[i, 0]
        x0, x1 = boxes[i, 1] - corners[i, 1], boxes[i, 3] - corners[i, 1]
        w = x1 - x0
        mine = values[offsets[i] : offsets[i + 1]]
        there = bits[offsets[i] : offsets[i + 1]] if masked else bits[0:0]
        for y in range(size):
            begin = i * step + y * row_step
            to = out[begin : begin + size]
            if y < y0 or y >= y1:
                for x in range(size):
                    to[x] = 0
                continue
            for x in range(x0):
                to[x] = 0
            for x in range(x1, size):
                to[x] = 0
            inner = to[x0:x1]
            source = mine[(y - y0) * w : (y - y0 + 1) * w]
            if masked:
                here = there[(y - y0) * w : (y - y0 + 1) * w]
                for x in range(w):
                    inner[x] = source[x] if here[x] else nothing
            else:
                for x in range(w):
                    inner[x] = source[x]


def fill_windows(
    values: Array,
    bits: npt.NDArray[np.uint8] | None,
    boxes: npt.ArrayLike,
    offsets: npt.ArrayLike,
    corners: npt.ArrayLike,
    size: int,
    out: Array,
) -> None:
    """Lay the pixels of each box into its window; elsewhere the window is 0.

    Parameters
    ----------
    values : (offsets[-1],), any dtype of 1, 2, 4 or 8 bytes
    bits : (offsets[-1],) uint8, or None
        Only pixels where it is not 0 are laid there.
    boxes : (n, 4) int64
        Each inside its window.
    offsets : (n + 1,) int64
    corners : (n, 2) int64
        The first pixel (y, x) of each window, in the coordinates of ``boxes``.
    size : int
        Edge of the windows.
    out : (n, size, size), dtype of ``values``
        Overwritten. Rows are contiguous; windows may lie apart.
    """
    box, offset = checked_boxes(boxes, offsets, values, *(() if bits is None else (bits,)))
    corner = frozen(corners, np.int64)
    if corner.shape != (len(box), 2) or out.shape != (len(box), size, size):
        raise ValueError(f"{len(box)} boxes need as many corners and windows, not {out.shape}")
    if out.dtype != values.dtype or not out.dtype.isnative:
        raise TypeError(f"windows of {values.dtype} cannot be {out.dtype}")
    lies_in = (box[:, :2] >= corner).all() and (box[:, 2:] <= corner + size).all()
    if not lies_in:
        raise ValueError("a box reaches outside of its window")
    if not len(box):
        return
    flat, (step, row_step) = flattened(as_unsigned(out), writeable=True)
    pixels = frozen(as_unsigned(values), f"u{values.itemsize}")
    there = frozen(np.empty(0, np.uint8) if bits is None else bits, np.uint8)
    _fill_windows(pixels, there, bits is not None, box, offset, corner, size, flat, step, row_step)
