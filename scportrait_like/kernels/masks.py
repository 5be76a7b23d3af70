"""Masks of cells, in place on ragged boxes: holes filled, edges blurred."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Int64, checked_boxes, checked_output, frozen
from ._jit import jit

Bits = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]

RADIUS = 4  # of the blur: four standard deviations


@jit
def _find_gaps(box: Bits, h: int, w: int, firsts: Int64, lasts: Int64) -> int:
    """First and last mask pixel of each row; return how many background pixels lie between."""
    gaps = 0
    for y in range(h):
        row = box[y * w : (y + 1) * w]
        total = 0
        for x in range(w):
            total += row[x]
        first = w
        last = -1
        if total:
            first = 0
            while row[first] == 0:
                first += 1
            last = w - 1
            while row[last] == 0:
                last -= 1
            gaps += last - first + 1 - total
        firsts[y] = first
        lasts[y] = last
    return gaps


@jit
def _open_gap(box: Bits, w: int, y: int, a: int, b: int, first: int, last: int) -> bool:
    """Whether one of the pixels a..b of row y is background that reaches the border.

    That is known of the pixels before the first and behind the last mask pixel of the row, and of
    those marked 2.
    """
    if a < first or b > last:
        return True
    for x in range(y * w + a, y * w + b + 1):  # noqa: SIM110 (numba has no any of a generator)
        if box[x] == 2:
            return True
    return False


@jit
def _set(box: Bits, begin: int, end: int, value: int) -> None:
    for i in range(begin, end):
        box[i] = value


@jit
def _fill(box: Bits, h: int, w: int, firsts: Int64, lasts: Int64, gaps: Int64) -> None:
    """Mark with 2 the gaps that are open to the outside, sweeping down and up until none is new."""
    count = 0
    for y in range(h):
        x = firsts[y] + 1
        while x < lasts[y]:
            if box[y * w + x] != 0:
                x += 1
                continue
            a = x
            while box[y * w + x] == 0:
                x += 1
            if y == 0 or y == h - 1:  # on the border itself
                _set(box, y * w + a, y * w + x, 2)
            else:
                gaps[count, 0] = y
                gaps[count, 1] = a
                gaps[count, 2] = x - 1
                count += 1
    downwards = True
    while True:
        kept = 0
        for i in range(count):
            at = i if downwards else count - 1 - i
            y, a, b = gaps[at, 0], gaps[at, 1], gaps[at, 2]
            if box[y * w + a] == 2:
                continue
            if _open_gap(box, w, y - 1, a, b, firsts[y - 1], lasts[y - 1]) or _open_gap(
                box, w, y + 1, a, b, firsts[y + 1], lasts[y + 1]
            ):
                _set(box, y * w + a, y * w + b + 1, 2)
                kept += 1
        if kept == 0:
            break
        downwards = not downwards
    for i in range(count):
        y, a, b = gaps[i, 0], gaps[i, 1], gaps[i, 2]
        value = 0 if box[y * w + a] == 2 else 1
        _set(box, y * w + a, y * w + b + 1, value)
    for y in (0, h - 1):
        for x in range(w):
            if box[y * w + x] == 2:
                box[y * w + x] = 0


@jit
def _fill_holes(bits: Bits, boxes: Int64, offsets: Int64) -> None:
    rows = 0
    area = 0
    for i in range(boxes.shape[0]):
        rows = max(rows, boxes[i, 2] - boxes[i, 0])
        area = max(area, offsets[i + 1] - offsets[i])
    firsts = np.empty(rows, np.int64)
    lasts = np.empty(rows, np.int64)
    gaps = np.empty((area // 2 + 1, 3), np.int64)
    for i in range(boxes.shape[0]):
        h = boxes[i, 2] - boxes[i, 0]
        w = boxes[i, 3] - boxes[i, 1]
        box = bits[offsets[i] : offsets[i + 1]]
        if box.size and _find_gaps(box, h, w, firsts, lasts):
            _fill(box, h, w, firsts, lasts, gaps)


def fill_holes(bits: Bits, boxes: npt.ArrayLike, offsets: npt.ArrayLike) -> None:
    """Fill the holes of each mask, in place.

    A hole is background that is not 4-connected to the border of the box; the result is that of
    ``scipy.ndimage.binary_fill_holes``. A hole needs a row with a gap: the others are skipped.

    Parameters
    ----------
    bits : (offsets[-1],) uint8
        0 or 1.
    boxes : (n, 4) int64
    offsets : (n + 1,) int64
    """
    box, offset = checked_boxes(boxes, offsets, bits)
    _fill_holes(checked_output(bits, np.uint8), box, offset)


def _weights() -> Float64:
    """The taps of scipy's Gaussian of sigma 1: from the centre (0) to the far end (RADIUS)."""
    x = np.arange(-RADIUS, RADIUS + 1)
    taps: Float64 = np.exp(-0.5 * x**2)
    taps = taps / taps.sum()
    return taps[RADIUS:].copy()


_TAPS = frozen(_weights(), np.float64)


@jit
def _blur(bits: Bits, boxes: Int64, offsets: Int64, taps: Float64, out: Float64) -> None:
    """Correlate along y, then x; the sum runs from the centre's tap over the far ones inwards."""
    r = RADIUS
    area = 0
    for i in range(boxes.shape[0]):
        h = boxes[i, 2] - boxes[i, 0]
        w = boxes[i, 3] - boxes[i, 1]
        area = max(area, (h + 2 * r) * (w + 2 * r))
    padded_buffer = np.empty(area, np.float64)
    tall_buffer = np.empty(area, np.float64)
    for i in range(boxes.shape[0]):
        h = boxes[i, 2] - boxes[i, 0]
        w = boxes[i, 3] - boxes[i, 1]
        box = bits[offsets[i] : offsets[i + 1]]
        if box.size == 0:
            continue
        target = out[offsets[i] : offsets[i + 1]]
        wide = w + 2 * r
        # The box with its edge pixels repeated on all sides.
        for y in range(h):
            row = box[y * w : (y + 1) * w]
            to = padded_buffer[(y + r) * wide : (y + r + 1) * wide]
            for x in range(r):
                to[x] = row[0]
                to[w + r + x] = row[w - 1]
            middle = to[r : r + w]
            for x in range(w):
                middle[x] = row[x]
        top = padded_buffer[r * wide : (r + 1) * wide]
        bottom = padded_buffer[(h + r - 1) * wide : (h + r) * wide]
        for y in range(r):
            upper = padded_buffer[y * wide : (y + 1) * wide]
            lower = padded_buffer[(h + r + y) * wide : (h + r + y + 1) * wide]
            for x in range(wide):
                upper[x] = top[x]
                lower[x] = bottom[x]
        # Along y: rows lie ``wide`` pixels apart, so the whole box is one long row.
        n = h * wide
        tall = tall_buffer[:n]
        centre = padded_buffer[r * wide : r * wide + n]
        for k in range(n):
            tall[k] = centre[k] * taps[0]
        for j in range(r, 0, -1):
            before = padded_buffer[(r - j) * wide : (r - j) * wide + n]
            after = padded_buffer[(r + j) * wide : (r + j) * wide + n]
            tap = taps[j]
            for k in range(n):
                tall[k] += (before[k] + after[k]) * tap
        # Along x.
        t0, t1, t2, t3, t4 = taps[0], taps[1], taps[2], taps[3], taps[4]
        for y in range(h):
            row_ = tall_buffer[y * wide : (y + 1) * wide]
            to_ = target[y * w : (y + 1) * w]
            for x in range(w):
                total = row_[x + 4] * t0
                total += (row_[x] + row_[x + 8]) * t4
                total += (row_[x + 1] + row_[x + 7]) * t3
                total += (row_[x + 2] + row_[x + 6]) * t2
                total += (row_[x + 3] + row_[x + 5]) * t1
                to_[x] = total


def blur(bits: Bits, boxes: npt.ArrayLike, offsets: npt.ArrayLike, out: Float64) -> None:
    """Blur each mask with a Gaussian of sigma 1, to the last bit as scipy does.

    The result is that of ``scipy.ndimage.gaussian_filter(mask.astype(float), sigma=1, truncate=4,
    mode="nearest")`` on each box: scipy's ``correlate1d`` for symmetric weights, along y and then
    x, in its order of addition.

    Parameters
    ----------
    bits : (offsets[-1],) uint8
        0 or 1.
    boxes : (n, 4) int64
    offsets : (n + 1,) int64
    out : (offsets[-1],) float64
        Overwritten.
    """
    box, offset = checked_boxes(boxes, offsets, bits, out)
    _blur(frozen(bits, np.uint8), box, offset, _TAPS, checked_output(out, np.float64))
