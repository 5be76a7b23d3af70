"""Statistics of many vectors at once, held ragged: vector i is ``values[offsets[i]:offsets[i+1]]``.

The vectors are the pixels of one label each, in one channel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, as_unsigned, frozen
from ._jit import jit, jit_any_order

Float64 = npt.NDArray[np.float64]


@jit
def _sum(values: Array) -> tuple[float, float]:
    """Sum, and what rounding took from it (Knuth's TwoSum)."""
    total = rest = np.float64(0)
    for i in range(values.size):
        value = np.float64(values[i])
        new = total + value
        part = new - total
        rest += (total - (new - part)) + (value - part)
        total = new
    if not np.isfinite(total):  # an infinite sum has no rest
        return total, 0.0
    new = total + rest
    return new, rest - (new - total)


@jit_any_order
def _plain_sum(values: Array) -> float:
    """Sum in any order; exact for whole numbers that stay below 2^53."""
    total = 0.0
    for i in range(values.size):
        total += np.float64(values[i])
    return total


@jit
def _sums(values: Array, offsets: Int64, exact: bool, out: Float64) -> None:
    for i in range(offsets.size - 1):
        vector = values[offsets[i] : offsets[i + 1]]
        if exact:
            out[i, 0] = _plain_sum(vector)
            out[i, 1] = 0.0
        else:
            out[i, 0], out[i, 1] = _sum(vector)


def ragged_sums(values: Array, offsets: npt.ArrayLike, *, exact: bool = False) -> Float64:
    """Sum of each vector, with what rounding left of it.

    Parameters
    ----------
    values : (offsets[-1],), any real dtype
        Summed as float64.
    offsets : (k + 1,) int64
    exact
        All are whole numbers and no vector's sum of magnitudes reaches 2^53: plain addition does.

    Returns
    -------
    (k, 2) float64: the sum, and a small rest that belongs to it. NaN and infinity go through.
    """
    offset = frozen(offsets, np.int64)
    out = np.empty((len(offset) - 1, 2), np.float64)
    _sums(frozen(values, values.dtype), offset, exact, out)
    return out


@jit_any_order
def _powers(values: Array, mean: float) -> tuple[float, float, float, float]:
    """Sums of the first four powers of the distances to ``mean``."""
    s1 = s2 = s3 = s4 = 0.0
    for i in range(values.size):
        distance = np.float64(values[i]) - mean
        square = distance * distance
        s1 += distance
        s2 += square
        s3 += square * distance
        s4 += square * square
    return s1, s2, s3, s4


@jit
def _pivot(values: Array) -> float:
    """Mean of every 16th run of 16 values: at most 4 standard deviations from the mean of all.

    By Cauchy and Schwarz the mean of k of n values lies within sqrt(n / k) of them.
    """
    total, count = 0.0, 0
    for begin in range(0, values.size, 256):
        part = values[begin : begin + 16]
        total += _plain_sum(part)
        count += part.size
    return total / count


@jit
def _moments(values: Array, offsets: Int64, out: Float64) -> None:
    for i in range(offsets.size - 1):
        vector = values[offsets[i] : offsets[i + 1]]
        n = vector.size
        # Near enough to the mean that moving the powers there afterwards costs two or three digits
        # of sixteen at most. Few values are looked at twice at little cost.
        pivot = _plain_sum(vector) / n if n < 1024 else _pivot(vector)
        s1, s2, s3, s4 = _powers(vector, pivot)
        e = s1 / n
        out[i, 0] = pivot + e
        out[i, 1] = s2 - e * s1
        out[i, 2] = s3 - 3 * e * s2 + 2 * e * e * s1
        out[i, 3] = s4 - 4 * e * s3 + 6 * e * e * s2 - 3 * e * e * e * s1


def ragged_moments(values: Array, offsets: npt.ArrayLike) -> Float64:
    """Mean and central moments of each vector, about a pivot near the mean.

    Parameters
    ----------
    values : (offsets[-1],), any real dtype
    offsets : (k + 1,) int64
        No vector is empty.

    Returns
    -------
    (k, 4) float64: the mean, and the sums of the second, third and fourth powers of the distances
    to it.
    """
    offset = frozen(offsets, np.int64)
    out = np.empty((len(offset) - 1, 4), np.float64)
    _moments(frozen(values, values.dtype), offset, out)
    return out


@jit
def _extremes(values: Array, offsets: Int64, out: Float64) -> None:
    for i in range(offsets.size - 1):
        vector = values[offsets[i] : offsets[i + 1]]
        low = high = vector[0]
        wrong = 0
        for j in range(vector.size):
            value = vector[j]
            low = min(low, value)
            high = max(high, value)
            wrong += value != value
        out[i, 0] = low if wrong == 0 else np.nan
        out[i, 1] = high if wrong == 0 else np.nan


def ragged_extremes(values: Array, offsets: npt.ArrayLike) -> Float64:
    """Smallest and largest value of each vector.

    Parameters
    ----------
    values : (offsets[-1],), any real dtype
    offsets : (k + 1,) int64
        No vector is empty.

    Returns
    -------
    (k, 2) float64; NaN where the vector holds one.
    """
    offset = frozen(offsets, np.int64)
    out = np.empty((len(offset) - 1, 2), np.float64)
    _extremes(frozen(values, values.dtype), offset, out)
    return out


@jit
def _pad(values: Array, offsets: Int64, fill: int, out: Array) -> None:
    for i in range(out.shape[0]):
        vector = values[offsets[i] : offsets[i + 1]]
        row = out[i]
        for x in range(vector.size):
            row[x] = vector[x]
        for x in range(vector.size, row.size):
            row[x] = fill


def ragged_rows(values: Array, offsets: npt.ArrayLike, fill: npt.ArrayLike) -> Array:
    """Lay vectors under each other, filled up to the longest.

    Parameters
    ----------
    values : (offsets[-1],), any dtype of 1, 2, 4 or 8 bytes
    offsets : (k + 1,) int64
    fill
        What stands behind a vector's end.

    Returns
    -------
    (k, longest), dtype of ``values``.
    """
    offset = frozen(offsets, np.int64)
    longest = int(np.diff(offset).max(initial=0))
    out = np.empty((len(offset) - 1, longest), values.dtype)
    filled = as_unsigned(np.asarray(fill, values.dtype).reshape(1))
    _pad(frozen(as_unsigned(values), f"u{values.itemsize}"), offset, filled[0], as_unsigned(out))
    return out


@jit
def _value_counts(values: Array, counts: Int64) -> None:
    for value in values:
        counts[value] += 1


def value_counts(values: Array) -> Int64:
    """How often each value occurs.

    Parameters
    ----------
    values : (n,), whole numbers of 1 or 2 bytes

    Returns
    -------
    (256,) or (65536,) int64, by the value's bits as an unsigned number.
    """
    counts = np.zeros(1 << (8 * values.itemsize), np.int64)
    _value_counts(frozen(as_unsigned(values), f"u{values.itemsize}"), counts)
    return counts
