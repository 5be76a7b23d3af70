"""Numbers that tell pixels apart: by place, which samples are drawn by, or by value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, frozen
from ._jit import jit

Uint64 = npt.NDArray[np.uint64]

# The steps and the finaliser of SplitMix64 (Steele, Lea and Flood 2014, mix13 of Stafford).
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


@jit
def _mixed(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> _30)) * _FIRST
    value = (value ^ (value >> _27)) * _SECOND
    return value ^ (value >> _31)


@jit
def _draw(
    strata: npt.NDArray[np.int16],
    start: Int64,
    extent: Int64,
    shape: Int64,
    key: np.uint64,
    keep: bool,
    most: Uint64,
    counts: Int64,
    drawn: Int64,
    positions: Int64,
    hashes: Uint64,
) -> int:
    found = 0
    pixel = 0
    for z in range(extent[0]):
        for y in range(extent[1]):
            row = ((start[0] + z) * shape[1] + start[1] + y) * shape[2] + start[2]
            for x in range(extent[2]):
                stratum = strata[pixel]
                if stratum >= 0:
                    counts[stratum] += 1
                    hashed = _mixed(key + np.uint64(row + x) * _STEP)
                    if keep and hashed <= most[stratum]:
                        drawn[found] = pixel
                        positions[found] = row + x
                        hashes[found] = hashed
                        found += 1
                pixel += 1
    return found


def hash_key(seed: int, image: int) -> np.uint64:
    """Key of the pixels of one image of several; any seed from 0 to 2^64 - 1."""
    value = _python_mixed(seed + 1)
    return np.uint64(_python_mixed(value + image * int(_STEP)))


def _python_mixed(value: int) -> int:
    """`_mixed` after one step, on a Python int."""
    wrapped = (1 << 64) - 1
    value = (value + int(_STEP)) & wrapped
    value = ((value ^ (value >> 30)) * int(_FIRST)) & wrapped
    value = ((value ^ (value >> 27)) * int(_SECOND)) & wrapped
    return value ^ (value >> 31)


def draw_pixels(
    strata: Array,
    start: tuple[int, ...],
    extent: tuple[int, ...],
    shape: tuple[int, ...],
    key: np.uint64,
    most: npt.ArrayLike,
    keep: bool = True,
) -> tuple[Int64, Int64, Int64, Uint64]:
    """Draw the pixels of a box whose hash is not above a threshold.

    No two pixels of an image have the same hash.

    Parameters
    ----------
    strata
        (n,) int16: the stratum of each pixel, row-major; below 0: it is never drawn.
    start, extent
        The box, (z, y, x).
    shape
        Of the whole volume, (z, y, x).
    key
        Of the image; see `hash_key`.
    most
        (s,) uint64: the highest hash that is drawn of each stratum.
    keep
        Whether any is drawn; else they are only counted.

    Returns
    -------
    counts
        (s,) int64: pixels of each stratum, drawn or not.
    drawn
        (m,) int64: places in `strata`, ascending.
    positions
        (m,) int64: places in the whole volume, row-major.
    hashes
        (m,) uint64.
    """
    strata, thresholds = frozen(strata, np.int16), frozen(most, np.uint64)
    if len(strata) != np.prod(extent, dtype=np.int64):
        raise ValueError(f"{len(strata)} pixels do not fill a box of {extent}")
    counts = np.zeros(len(thresholds), np.int64)
    # As long as they might be; what is not written takes no memory.
    drawn, positions = (np.empty(len(strata), np.int64) for _ in range(2))
    hashes = np.empty(len(strata), np.uint64)
    begin, size, whole = (frozen(part, np.int64) for part in (start, extent, shape))
    out = (counts, drawn, positions, hashes)
    n = _draw(strata, begin, size, whole, key, keep, thresholds, *out)
    return counts, drawn[:n].copy(), positions[:n].copy(), hashes[:n].copy()


@jit
def _mix_in(values: Uint64, hashes: Uint64) -> None:
    for i in range(hashes.size):
        hashes[i] = _mixed((hashes[i] + values[i]) * _STEP + _STEP)


def row_hashes(pixels: Array, which: npt.ArrayLike) -> Uint64:
    """Hash of the values of some pixels in all channels, as float64.

    Parameters
    ----------
    pixels : (c, n), any real dtype
    which : (t,) int64

    Returns
    -------
    (t,) uint64, the same for equal rows; other rows have it in one of 10^19 cases.
    """
    places = np.asarray(which, np.int64)
    hashes = np.zeros(len(places), np.uint64)
    for channel in pixels:
        _mix_in(frozen(channel[places], np.float64).view(np.uint64), hashes)
    return hashes
