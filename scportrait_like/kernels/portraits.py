"""Portraits: pixels times blurred mask, normalised over the window, as float16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, checked_boxes, flattened, frozen
from ._portrait_loops import (
    MASK,
    PLAIN,
    QUANTILES,
    SCALE,
    Float64,
    UInt16,
    portrait_windows,
    windows_fit,
)
from .normalisation import Normalisation, Plain, Quantiles, Rank, Scale, rank


def _checked_windows(
    boxes: Int64, corners: npt.ArrayLike, size: int, out: UInt16
) -> tuple[Int64, UInt16, int]:
    """Check that each box lies in its window; view ``out`` as flat, with the step of a window."""
    corner = frozen(corners, np.int64)
    if corner.shape != (len(boxes), 2):
        raise ValueError(f"corners must have the shape ({len(boxes)}, 2), not {corner.shape}")
    if not windows_fit(boxes, corner, size):
        raise ValueError("a box reaches outside of its window")
    if out.shape != (len(boxes), size, size) or out.dtype != np.uint16:
        raise ValueError(
            f"out must be ({len(boxes)}, {size}, {size}) uint16, not {out.shape} {out.dtype}"
        )
    if size > 1 and out.strides[1:] != (2 * size, 2):
        raise ValueError("each window of out must be contiguous")
    flat, steps = flattened(out, writeable=True)
    return corner, flat, steps[0]


def portraits(
    values: Array,
    blurred: Float64,
    boxes: npt.ArrayLike,
    offsets: npt.ArrayLike,
    corners: npt.ArrayLike,
    size: int,
    normalisation: Normalisation,
    out: UInt16,
) -> None:
    """Multiply pixels by blurred masks and normalise each window, as scPortrait does.

    The product is exactly 0 where the blurred mask is, whatever the pixel. Pixels of the window
    outside of its box are 0 and normalised like the others. Quantiles have the bits of
    ``numpy.quantile(window, q, method="linear")`` in float64; a NaN inside makes the whole window
    NaN. Then (x - lo) / (hi - lo), not divided where hi = lo, clipped to [0, 1].

    Parameters
    ----------
    values : (offsets[-1],), any real dtype
        Pixels of one channel. Each dtype is compiled of its own; ``warm_up`` takes care of the
        image's and of float64. Given in the image's dtype they need no copy.
    blurred : (offsets[-1],) float64
    boxes : (n, 4) int64
    offsets : (n + 1,) int64
    corners : (n, 2) int64
        y, x of the first pixel of each window, in the coordinates of ``boxes``; each box lies in
        its window.
    size : int
        Edge of the windows.
    normalisation : Quantiles, Scale or Plain
    out : (n, size, size) uint16
        Overwritten with the bits of float16. Windows may lie apart, as those of
        ``images[:, channel]`` do.
    """
    if values.dtype == np.float16:  # numba has none
        values = values.astype(np.float32)
    box, offset = checked_boxes(boxes, offsets, values, blurred)
    corner, flat, step = _checked_windows(box, corners, size, out)
    lower: Rank = (0, 0, 0.0)
    upper, maximum = lower, 1.0
    match normalisation:
        case Quantiles():
            mode = QUANTILES
            lower = rank(normalisation.lower, size * size)
            upper = rank(normalisation.upper, size * size)
        case Scale():
            mode = SCALE
            maximum = float(normalisation.maximum)
        case Plain():
            mode = PLAIN
    portrait_windows(
        frozen(values, values.dtype),
        frozen(blurred, np.float64),
        box,
        offset,
        corner,
        size,
        mode,
        lower,
        upper,
        maximum,
        flat,
        step,
    )


def mask_planes(
    blurred: Float64,
    boxes: npt.ArrayLike,
    offsets: npt.ArrayLike,
    corners: npt.ArrayLike,
    size: int,
    out: UInt16,
) -> None:
    """Write the blurred masks themselves into their windows, as float16.

    Parameters
    ----------
    blurred : (offsets[-1],) float64
    boxes : (n, 4) int64
    offsets : (n + 1,) int64
    corners : (n, 2) int64
    size : int
    out : (n, size, size) uint16
        Overwritten with the bits of float16; 0 outside of the boxes. Windows may lie apart.
    """
    box, offset = checked_boxes(boxes, offsets, blurred)
    corner, flat, step = _checked_windows(box, corners, size, out)
    soft = frozen(blurred, np.float64)
    no: Rank = (0, 0, 0.0)
    portrait_windows(soft, soft, box, offset, corner, size, MASK, no, no, 1.0, flat, step)
