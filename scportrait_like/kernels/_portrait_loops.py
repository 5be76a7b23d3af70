"""The loops behind `portraits`: they call each other, so they stand in one file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64
from ._jit import jit
from .normalisation import Rank

Float64 = npt.NDArray[np.float64]
UInt16 = npt.NDArray[np.uint16]
Int32 = npt.NDArray[np.int32]

QUANTILES, SCALE, PLAIN, MASK = range(4)
_BUCKETS = 512


@jit
def half_bits(value: float) -> np.int64:
    """Bits of ``value`` as float16, rounded to nearest even, straight from float64.

    Without branches, so that loops over it become vector code. A subnormal result is what float64
    itself rounds to when 2**28 is added: its last bit is then worth 2**-24.
    """
    bits = np.float64(value).view(np.int64)
    sign = (bits >> 48) & 0x8000
    size = bits & 0x7FFFFFFFFFFFFFFF
    normal = ((size + 0x1FFFFFFFFFF + ((size >> 42) & 1)) >> 42) - (1008 << 10)
    tiny = np.float64(abs(value) + 268435456.0).view(np.int64) - 0x41B0000000000000
    half = normal if size >= 0x3F10000000000000 else tiny  # 2**-14
    half = half if size < 0x40EFFE0000000000 else np.int64(0x7C00)  # 65520 and above: infinite
    return half | sign if size <= 0x7FF0000000000000 else np.int64(0x7E00)


@jit
def _lerp(a: float, b: float, weight: float) -> float:
    """Interpolate as numpy does."""
    step = b - a
    return b - step * (1 - weight) if weight >= 0.5 else a + step * weight


@jit
def _top(values: Float64, n: int, place: int, tops: Float64, best: Float64) -> tuple[float, float]:
    """The ``place``-th and the next smaller value from the top (place 0 is the largest).

    Values lie in 8 stripes; column maxima are cheap vector code. The k-th largest of them bounds
    the k-th largest value from below, so only columns that reach it need be looked at.
    """
    k = place + 2
    columns = (n + 7) // 8
    top = tops[:columns]
    for x in range(columns):
        top[x] = values[x]
    for s in range(1, 8):
        stripe = values[s * columns : (s + 1) * columns]
        for x in range(columns):
            top[x] = stripe[x] if stripe[x] > top[x] else top[x]
    for j in range(k):
        best[j] = -np.inf
    for x in range(columns):
        if top[x] > best[k - 1]:
            _insert(best, k, top[x])
    bound = best[k - 1]
    for j in range(k):
        best[j] = -np.inf
    for x in range(columns):
        if top[x] >= bound:
            for s in range(8):
                value = values[s * columns + x]
                if value > best[k - 1]:
                    _insert(best, k, value)
    return best[k - 2], best[k - 1]


@jit
def _insert(best: Float64, k: int, value: float) -> None:
    j = k - 1
    while j > 0 and best[j - 1] < value:
        best[j] = best[j - 1]
        j -= 1
    best[j] = value


@jit
def _select(values: Float64, low: int, high: int, scratch: Float64) -> tuple[float, float]:
    """Order statistics ``low`` and ``high`` (low or low + 1) of ``values``, no NaN among them.

    One pass into monotone buckets, then a sort of the bucket that is hit.
    """
    n = values.size
    least = values[0]
    most = values[0]
    for i in range(n):
        least = values[i] if values[i] < least else least
        most = values[i] if values[i] > most else most
    if least == most:
        return least, most
    scale = (_BUCKETS - 1) / (most - least)
    if not (0.0 < scale < np.inf):  # infinite or subnormal range
        for i in range(n):
            scratch[i] = values[i]
        scratch[:n].sort()
        return scratch[low], scratch[high]
    counts = np.zeros(_BUCKETS + 1, np.int64)
    for i in range(n):
        counts[np.int64((values[i] - least) * scale)] += 1
    bucket = 0
    before = 0
    while before + counts[bucket] <= low:
        before += counts[bucket]
        bucket += 1
    found = 0
    beyond = np.inf  # the least of the buckets above
    for i in range(n):
        b = np.int64((values[i] - least) * scale)
        if b == bucket:
            scratch[found] = values[i]
            found += 1
        elif b > bucket:
            beyond = values[i] if values[i] < beyond else beyond
    chosen = scratch[:found]
    chosen.sort()
    first = chosen[low - before]
    return first, chosen[high - before] if high - before < found else beyond


@jit
def _upper(
    values: Float64, n: int, most: float, place: int, counts: Int32, chosen: Float64
) -> tuple[float, float]:
    """The ``place``-th and the next smaller value from the top; no value is negative.

    One pass counts buckets, a second collects the one or two that are hit: near the top they are
    few, and all below is looked at once. ``most`` is the largest value; infinite ones and those
    whose range no bucket divides are left to `_select` by NaN.
    """
    scale = (_BUCKETS - 1) / most
    if not (0.0 < scale < np.inf):
        return np.nan, np.nan
    counts[:] = 0
    for i in range(n):
        counts[np.int64(values[i] * scale)] += 1
    bucket, above = _BUCKETS - 1, 0
    while above + counts[bucket] <= place:
        above += counts[bucket]
        bucket -= 1
    floor = np.float64(bucket) / scale * (1 - 1e-12)
    found = 0
    for i in range(n):
        value = values[i]
        if value >= floor and np.int64(value * scale) == bucket:
            chosen[found] = value
            found += 1
    _sort(chosen, found)
    first = chosen[found - 1 - (place - above)]
    if place + 1 - above < found:
        return first, chosen[found - 2 - (place - above)]
    below = 0.0  # the largest of the buckets below
    for i in range(n):
        value = values[i]
        if value > below and np.int64(value * scale) < bucket:
            below = value
    return first, below


@jit
def _sort(values: Float64, n: int) -> None:
    """Sort the first ``n`` in place; few, as a rule."""
    if n > 32:
        values[:n].sort()
        return
    for i in range(1, n):
        value = values[i]
        j = i
        while j > 0 and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value


@jit
def _gather(values: Float64, n: int, sign: float, to: Float64) -> int:
    """Collect the positive (sign 1) or the negative (-1) ones of ``values[:n]``; their number."""
    count = 0
    for i in range(n):
        if values[i] * sign > 0:
            to[count] = values[i]
            count += 1
    return count


@jit
def _quantile(
    values: Float64,
    n: int,
    negatives: int,
    zeros: int,
    most: float,
    at: Rank,
    pixels: int,
    buffers: Float64,
    counts: Int32,
) -> float:
    """A quantile of a window of ``pixels``: ``values[:n]``, padded with zeros, and zeros else.

    Sorted, a window is its negatives, its zeros, which are only counted, and its positives.
    """
    low, high = at[0], at[1]
    below = negatives + zeros
    a = b = 0.0
    scratch, compact = buffers[0], buffers[1]
    if low < negatives:
        count = _gather(values, n, -1.0, compact)
        a, b = _select(compact[:count], low, min(high, negatives - 1), scratch)
        b = b if high < negatives else 0.0
    if high >= below:
        from_top = pixels - 1 - high
        if low >= below and 4 * (from_top + 2) <= n // 8:
            b, a = _top(values, n, from_top, scratch, compact)
            a = a if low < high else b
            return _lerp(a, b, at[2])
        if low >= below and negatives == 0:
            b, a = _upper(values, n, most, from_top, counts, compact)
            a = a if low < high else b
        if not (low >= below and negatives == 0 and b == b):
            count = _gather(values, n, 1.0, compact)
            first, b = _select(compact[:count], max(low - below, 0), high - below, scratch)
            a = first if low >= below else a
    return _lerp(a, b, at[2])


@jit
def _multiply(values: Array, blurred: Float64, product: Float64) -> tuple[int, int, int, float]:
    """Set product = values * blurred; count its negatives, zeros and NaN, and find its largest."""
    negatives = 0
    zeros = 0
    nans = 0
    most = 0.0
    for i in range(values.size):
        p = np.float64(values[i]) * blurred[i]
        p = p if blurred[i] != 0 else 0.0
        product[i] = p
        negatives += p < 0
        zeros += p == 0
        nans += p != p
        most = p if p > most else most
    return negatives, zeros, nans, most


@jit
def _stretch(product: Float64, lower: float, upper: float, halves: UInt16) -> None:
    width = upper - lower
    if width == 0:
        width = 1.0
    for i in range(product.size):
        x = (product[i] - lower) / width
        x = x if not x < 0.0 else 0.0
        x = x if not x > 1.0 else 1.0
        halves[i] = half_bits(x)


@jit
def _scale(product: Float64, maximum: float, halves: UInt16) -> None:
    for i in range(product.size):
        x = product[i] / maximum
        x = x if not x < 0.0 else 0.0
        halves[i] = half_bits(x)


@jit
def _plain(product: Float64, halves: UInt16) -> None:
    for i in range(product.size):
        halves[i] = half_bits(product[i])


@jit
def _place(
    halves: UInt16, ground: int, y: int, x: int, h: int, w: int, size: int, window: UInt16
) -> None:
    """Write a box into its window, ``ground`` around it."""
    for i in range(window.size):
        window[i] = ground
    for row in range(h):
        source = halves[row * w : (row + 1) * w]
        to = window[(y + row) * size + x : (y + row) * size + x + w]
        for i in range(w):
            to[i] = source[i]


@jit
def portrait_windows(
    values: Array,
    blurred: Float64,
    boxes: Int64,
    offsets: Int64,
    corners: Int64,
    size: int,
    mode: int,
    lower_rank: Rank,
    upper_rank: Rank,
    maximum: float,
    out: UInt16,
    step: int,
) -> None:
    pixels = size * size
    area = 0
    for i in range(boxes.shape[0]):
        area = max(area, offsets[i + 1] - offsets[i])
    padded = np.empty(area + 8, np.float64)
    buffers = np.empty((2, area + 8), np.float64)
    halves = np.empty(area + 1, np.uint16)
    counts = np.empty(_BUCKETS, np.int32)
    for i in range(boxes.shape[0]):
        begin, end = offsets[i], offsets[i + 1]
        n = end - begin
        soft = blurred[begin:end]
        padded[n : n + 8] = 0.0
        product = padded[: n + 1]  # the last one: what the ground becomes
        if mode == MASK:
            padded[:n] = soft
            _plain(product, halves)
        else:
            negatives, zeros, nans, most = _multiply(values[begin:end], soft, padded)
            if mode == QUANTILES:
                lower = upper = np.nan
                if nans == 0:
                    zeros += pixels - n
                    known = (padded, n, negatives, zeros, most)
                    lower = _quantile(*known, lower_rank, pixels, buffers, counts)
                    upper = _quantile(*known, upper_rank, pixels, buffers, counts)
                _stretch(product, lower, upper, halves)
            elif mode == SCALE:
                _scale(product, maximum, halves)
            else:
                _plain(product, halves)
        y, x = boxes[i, 0] - corners[i, 0], boxes[i, 1] - corners[i, 1]
        h, w = boxes[i, 2] - boxes[i, 0], boxes[i, 3] - boxes[i, 1]
        _place(halves, halves[n], y, x, h, w, size, out[i * step : i * step + pixels])


@jit
def windows_fit(boxes: Int64, corners: Int64, size: int) -> bool:
    fit = True
    for i in range(boxes.shape[0]):
        y, x = corners[i, 0], corners[i, 1]
        fit &= boxes[i, 0] >= y and boxes[i, 2] <= y + size
        fit &= boxes[i, 1] >= x and boxes[i, 3] <= x + size
    return fit
