"""How often values occur: all of them where they are small integers, else those between bounds.

Zeros and NaN are left out everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._arrays import Array, Int64, as_unsigned, frozen
from ._jit import jit

# Values looked at together: most such blocks hold none between the bounds.
_BLOCK = 128


@jit
def _count(values: Array, counts: Int64) -> None:
    # Two tables: neighbours are often equal, and one waits for the other.
    even = values.size // 2 * 2
    for i in range(0, even, 2):
        counts[0, values[i]] += 1
        counts[1, values[i + 1]] += 1
    if even < values.size:
        counts[0, values[even]] += 1


def count_small(pixels: Array) -> Int64:
    """Count every value of integers of 8 or 16 bits; zeros are not counted.

    Parameters
    ----------
    pixels : any shape, integers of 8 or 16 bits

    Returns
    -------
    (256,) or (65536,) int64, from the dtype's smallest value up.
    """
    flat = frozen(as_unsigned(np.ascontiguousarray(pixels)).reshape(-1), f"u{pixels.itemsize}")
    size = 1 << 8 * pixels.itemsize
    both = np.zeros((2, size), np.int64)
    _count(flat, both)
    counts: Int64 = both.sum(axis=0)
    counts[0] = 0
    return np.roll(counts, size // 2) if pixels.dtype.kind == "i" else counts


class Selected(NamedTuple):
    """What `select_between` found.

    Attributes
    ----------
    counts : (4,) int64
        Values that are there, those below the bounds, and those equal to the lower and (where it
        is another) to the upper one.
    inside : (n,)
        The values between the bounds, in their order.
    """

    counts: Int64
    inside: Array


@jit
def _select(values: Array, bounds: Array, out: Array, counts: Int64) -> int:
    low, high = bounds[0], bounds[1]
    found = 0
    for start in range(0, values.size, _BLOCK):
        stop = min(start + _BLOCK, values.size)
        block = values[start:stop]
        # Narrow counters: as many at once as there are values.
        there = below = at_low = at_high = inside = np.int32(0)
        for i in range(block.size):
            value = block[i]
            some = value != 0
            there = np.int32(there + np.int32(some & (value == value)))
            below = np.int32(below + np.int32(some & (value < low)))
            at_low = np.int32(at_low + np.int32(some & (value == low)))
            at_high = np.int32(at_high + np.int32(some & (value == high)))
            inside = np.int32(inside + np.int32(some & (value > low) & (value < high)))
        counts[0] += there
        counts[1] += below
        counts[2] += at_low
        counts[3] += at_high
        if inside:
            for i in range(block.size):
                value = block[i]
                out[found] = value  # overwritten by the next one, unless it lies inside
                found += (value != 0) & (value > low) & (value < high)
    if low == high:
        counts[3] = 0
    return found


def select_between(values: Array, low: float, high: float) -> Selected:
    """Take the values between bounds and count the others; zeros and NaN are not there.

    Parameters
    ----------
    values : any shape, float32 or float64
    low, high
        Numbers of that dtype; infinite ones too.
    """
    flat = frozen(values.reshape(-1), values.dtype)
    if flat.dtype not in (np.float32, np.float64):
        raise TypeError(f"values to select are float32 or float64, not {flat.dtype}")
    bounds = frozen([low, high], flat.dtype)
    out, counts = np.empty(flat.size + 1, flat.dtype), np.zeros(4, np.int64)
    found = _select(flat, bounds, out, counts)
    return Selected(counts, out[:found].copy())
