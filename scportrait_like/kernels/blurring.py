"""Gaussian blur of planes that bring their surroundings along.

Each pixel is summed in one order and in float64, so it is the same to the last bit however an
image is cut into planes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, checked_output, frozen
from ._jit import jit

Float64 = npt.NDArray[np.float64]

# Where a Gaussian is cut, in sigmas: as scipy does.
_TRUNCATE = 4.0


def blur_radius(sigma: float) -> int:
    """How many pixels a blur reaches, on each side."""
    return int(_TRUNCATE * sigma + 0.5)


def gaussian_weights(sigma: float) -> Float64:
    """Weights of a pixel and of those 1, 2, ... pixels away, as scipy has them; one side."""
    radius = blur_radius(sigma)
    if radius == 0:
        return np.ones(1)
    side = np.exp(-0.5 / sigma**2 * np.arange(radius + 1) ** 2)
    weights: Float64 = side / (side[0] + 2 * side[1:].sum())
    return weights


@jit
def _weigh(pixels: Float64, weight: float, to: Float64) -> None:
    for x in range(to.size):
        to[x] = weight * pixels[x]


@jit
def _add_pair(a: Float64, b: Float64, weight: float, to: Float64) -> None:
    for x in range(to.size):
        to[x] += weight * (a[x] + b[x])


@jit
def _add_pairs(
    a1: Float64,
    b1: Float64,
    a2: Float64,
    b2: Float64,
    a3: Float64,
    b3: Float64,
    a4: Float64,
    b4: Float64,
    weights: Float64,
    to: Float64,
) -> None:
    """Four pairs at once: the sums are loaded and stored a quarter as often."""
    w1, w2, w3, w4 = weights[0], weights[1], weights[2], weights[3]
    for x in range(to.size):
        to[x] += (
            w1 * (a1[x] + b1[x])
            + w2 * (a2[x] + b2[x])
            + w3 * (a3[x] + b3[x])
            + w4 * (a4[x] + b4[x])
        )


@jit
def _along_x(line: Float64, weights: Float64, to: Float64) -> None:
    """Blur one row: ``line`` is longer than ``to`` by the radius on both sides."""
    r, n = weights.size - 1, to.size
    _weigh(line[r : r + n], weights[0], to)
    k = 1
    while k + 3 <= r:
        a, b = r - k, r + k
        _add_pairs(
            line[a : a + n],
            line[b : b + n],
            line[a - 1 : a - 1 + n],
            line[b + 1 : b + 1 + n],
            line[a - 2 : a - 2 + n],
            line[b + 2 : b + 2 + n],
            line[a - 3 : a - 3 + n],
            line[b + 3 : b + 3 + n],
            weights[k : k + 4],
            to,
        )
        k += 4
    while k <= r:
        _add_pair(line[r - k : r - k + n], line[r + k : r + k + n], weights[k], to)
        k += 1


@jit
def _along_y(ring: Float64, centre: int, weights: Float64, to: Float64) -> None:
    """Blur across rows, of which the ring holds as many as are needed."""
    r, n = weights.size - 1, ring.shape[0]
    _weigh(ring[centre % n], weights[0], to)
    k = 1
    while k + 3 <= r:
        a, b = centre - k, centre + k
        _add_pairs(
            ring[a % n],
            ring[b % n],
            ring[(a - 1) % n],
            ring[(b + 1) % n],
            ring[(a - 2) % n],
            ring[(b + 2) % n],
            ring[(a - 3) % n],
            ring[(b + 3) % n],
            weights[k : k + 4],
            to,
        )
        k += 4
    while k <= r:
        _add_pair(ring[(centre - k) % n], ring[(centre + k) % n], weights[k], to)
        k += 1


@jit
def _blur(padded: Array, y0: int, x0: int, weights: Float64, scale: float, out: Array) -> None:
    h, w = out.shape
    r = weights.size - 1
    scaled = weights * scale
    line, ring, to = np.empty(w + 2 * r), np.empty((2 * r + 1, w)), np.empty(w)
    for y in range(h + 2 * r):
        row = padded[y0 + y]
        for x in range(line.size):
            line[x] = row[x0 + x]
        _along_x(line, scaled, ring[y % (2 * r + 1)])
        if y >= 2 * r:
            _along_y(ring, y - r, weights, to)
            done = out[y - 2 * r]
            for x in range(w):
                done[x] = to[x]


@jit
def _blur_runs(
    padded: Array, ys: Int64, xs: Int64, weights: Float64, scale: float, out: Array
) -> None:
    for i in range(ys.size):
        _blur(padded, ys[i], xs[i], weights, scale, out[i : i + 1])


def blur_plane(
    padded: Array, margin: int, weights: npt.ArrayLike, scale: float, out: Array
) -> None:
    """Blur a plane, and multiply it by a number.

    Parameters
    ----------
    padded : (h + 2 * margin, w + 2 * margin) float32 or float64
        The plane and what surrounds it. NaN spreads as far as the blur reaches.
    margin
        At least the radius of the blur.
    weights : (radius + 1,)
        Of `gaussian_weights`.
    scale
        The number.
    out : (h, w), dtype of ``padded``
        Rounded to that in the end; sums are of float64.
    """
    pixels, taps = _checked(padded, weights, margin)
    checked_output(out, pixels.dtype)
    if pixels.shape != tuple(edge + 2 * margin for edge in out.shape):
        raise ValueError(f"a plane of {out.shape} with {margin} around it is not {pixels.shape}")
    inset = margin - taps.size + 1
    _blur(pixels, inset, inset, taps, float(scale), out)


def blur_runs(
    padded: Array,
    margin: int,
    weights: npt.ArrayLike,
    scale: float,
    corners: npt.ArrayLike,
    out: Array,
) -> None:
    """Blur short runs of a plane's pixels, as `blur_plane` does, to the last bit.

    Parameters
    ----------
    padded, margin, weights, scale
        See `blur_plane`.
    corners : (n, 2)
        (y, x) of each run's first pixel in the plane.
    out : (n, length), dtype of ``padded``
    """
    pixels, taps = _checked(padded, weights, margin)
    checked_output(out, pixels.dtype)
    starts = frozen(corners, np.int64)
    if starts.shape != (len(out), 2):
        raise ValueError(f"{len(out)} runs need as many corners, not {starts.shape}")
    stop = np.array(pixels.shape) - 2 * margin - (1, out.shape[1])
    if starts.size and (starts.min() < 0 or (starts > stop).any()):
        raise ValueError("runs must lie in the plane")
    inset = margin - taps.size + 1
    ys, xs = (np.ascontiguousarray(starts[:, axis] + inset) for axis in (0, 1))
    _blur_runs(pixels, ys, xs, taps, float(scale), out)


def _checked(padded: Array, weights: npt.ArrayLike, margin: int) -> tuple[Array, Float64]:
    pixels, taps = frozen(padded, padded.dtype), frozen(weights, np.float64)
    if pixels.dtype not in (np.float32, np.float64):
        raise TypeError(f"pixels to blur are float32 or float64, not {pixels.dtype}")
    if taps.ndim != 1 or not 1 <= taps.size <= margin + 1:
        raise ValueError(f"{taps.shape} weights do not fit {margin} pixels around")
    return pixels, taps
