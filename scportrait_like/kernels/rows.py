"""Rows of pixels (channels, n): scaled, added up, divided by their sums."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, checked_output, frozen
from ._jit import jit

Float64 = npt.NDArray[np.float64]

# Pixels at a time: their sums stay in a core's cache.
_BLOCK = 2048


@jit
def _add_scaled(pixels: Array, scale: float, like: Array, sums: Float64) -> None:
    for i in range(sums.size):
        sums[i] += like.dtype.type(pixels[i] * scale)


def add_scaled(pixels: Array, scale: float, dtype: npt.DTypeLike, sums: Float64) -> None:
    """Add pixels, multiplied by a number and rounded, to sums.

    So sums are those that `relate_to_sums` finds in rows, to the last bit.

    Parameters
    ----------
    pixels : any shape, any real dtype
    scale
        The number.
    dtype
        ``float32`` or ``float64``: what products are rounded to.
    sums : (n,) float64
        Changed in place.
    """
    checked_output(sums, np.float64)
    flat = frozen(pixels.reshape(-1), pixels.dtype)
    if flat.shape != sums.shape:
        raise ValueError(f"{flat.size} pixels do not fit {sums.shape} sums")
    _add_scaled(flat, float(scale), np.empty(0, dtype), sums)


@jit
def _scale(values: Array, scale: float, cap: float) -> None:
    for i in range(values.size):
        value = values[i] * scale
        if value > cap:
            value = cap
        values[i] = value


def scale_values(values: Array, scale: float, cap: float = np.inf) -> None:
    """Multiply values by a number and cap them, in place; NaN stays.

    Parameters
    ----------
    values : any shape, float32 or float64, contiguous
        Multiplied in float64, and rounded.
    scale, cap
        The numbers.
    """
    checked_output(values, values.dtype)
    _scale(values.reshape(-1), float(scale), float(cap))


@jit
def _relate(rows: Array, threshold: float, divide: bool) -> None:
    sums = np.empty(_BLOCK)
    for start in range(0, rows.shape[1], _BLOCK):
        n = min(_BLOCK, rows.shape[1] - start)
        sums[:n] = 0
        for c in range(rows.shape[0]):
            row = rows[c]
            for i in range(n):
                sums[i] += row[start + i]
        for i in range(n):
            total = rows.dtype.type(sums[i])
            kept = (total > threshold) & (np.abs(total) < np.inf) & ((total != 0) | (not divide))
            factor = 1 / sums[i] if divide else 1.0
            sums[i] = factor if kept else np.nan
        for c in range(rows.shape[0]):
            row = rows[c]
            for i in range(n):
                row[start + i] = row[start + i] * sums[i]


def relate_to_sums(rows: Array, threshold: float | None, *, divide: bool) -> None:
    """Relate pixels to the sum over their channels, in place.

    Parameters
    ----------
    rows : (c, n) float32 or float64, contiguous
        Pixels.
    threshold
        All channels of a pixel become NaN unless its sum, rounded, is above this; None: any sum
        is.
    divide
        Whether to divide by the sum.

    A sum that is not finite, or zero where it divides, makes NaN as well.
    """
    checked_output(rows, rows.dtype)
    if threshold is None and not divide:
        return
    _relate(rows, -np.inf if threshold is None else float(threshold), divide)
