"""How many pixels a sample has, and which: arithmetic on counts and hashes."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

_HIGHEST: Final = (1 << 64) - 1

Int64 = NDArray[np.int64]


def shares(counts: Int64, n: int) -> Int64:
    """Divide `n` equally among strata of so many pixels; those with fewer give all.

    Parameters
    ----------
    counts
        (s,) int64.
    n
        At most their sum.
    """
    quota = np.zeros_like(counts)
    left = n
    for done, stratum in enumerate(np.argsort(counts, kind="stable").tolist()):
        quota[stratum] = min(int(counts[stratum]), left // (len(counts) - done))
        left -= int(quota[stratum])
    return quota


def smallest(hashes: NDArray[np.uint64], among: Int64, n: int) -> Int64:
    """Return places of the `n` smallest hashes.

    Of equal ones, which only two images can have, those that come first.
    """
    if n >= len(among):
        return among
    if n == 0:
        return among[:0]
    mine = hashes[among]
    last = np.partition(mine, n - 1)[n - 1]
    taken = mine < last
    equal = np.flatnonzero(mine == last)
    taken[equal[: n - int(taken.sum())]] = True
    found: Int64 = among[taken]
    return found


def threshold(n: int, of: int) -> int:
    """Threshold that `n` of so many hashes do not exceed, but in one of 10^10 cases."""
    if not of:
        return 0
    share = (n + 8 * math.sqrt(n) + 24) / of
    return _HIGHEST if share >= 1 else int(share * _HIGHEST)
