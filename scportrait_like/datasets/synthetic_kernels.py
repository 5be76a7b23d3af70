"""The numba loops behind :func:`scportrait_like.datasets.tissue`.

Everything is a function of the seed and of global pixel coordinates: a cell's properties are hashes
of its place in an unbounded lattice, a pixel's noise is a hash of its own coordinates. So any block
can be computed alone, and gives the same values whatever the limits of the block.

The integer hash is ``lowbias32`` by Chris Wellons (public domain).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Cells = npt.NDArray[np.float64]
"""(n, N_PARAMETERS): the cells near a block, one row each, in lattice order."""

# Columns of a cell's parameters.
CY: Final = 0
CX: Final = 1
RADIUS: Final = 2
HARMONICS: Final = 3  # cosine and sine parts of the outline's 2nd, 3rd and 4th harmonic
NUCLEUS_Y: Final = 9
NUCLEUS_X: Final = 10
NUCLEUS_RADIUS: Final = 11
NUCLEUS_COS: Final = 12
NUCLEUS_SIN: Final = 13
TYPE: Final = 14
LEVEL: Final = 15
N_PARAMETERS: Final = 16

# A cell shines a little beyond its outline, as a microscope blurs it.
GLOW: Final = 1.3
# The outline stays within these multiples of the nominal radius (see `_cell`).
SMALLEST: Final = 0.8 * 0.7
LARGEST: Final = 1.2 * 1.3
LUT_SIZE: Final = 256
LUT_STEP: Final = 1.0 / 96  # of a distance measured in radii
ZONE: Final = 384.0  # pixels: extent of regions rich in one type of cell

_FINE_BITS: Final = 3  # texture inside a cell: 8 pixels
_COARSE_BITS: Final = 7  # haze between the cells: 128 pixels

_F = TypeVar("_F", bound=Callable[..., Any])


def _njit(function: _F) -> _F:
    """Compile, and keep both the compiled code on disk and the type for the type checker."""
    return cast(_F, numba.njit(nogil=True, cache=True)(function))


@_njit
def mix(value: int | np.uint32) -> np.uint32:
    """Hash 32 bits to 32 bits, one to one."""
    h = np.uint32(value)
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x7FEB352D))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    h = np.uint32(h * np.uint32(0x846CA68B))
    return np.uint32(h ^ (h >> np.uint32(16)))


@_njit
def mix3(a: int | np.uint32, b: int, c: int) -> np.uint32:
    """Hash three integers to 32 bits."""
    h = mix(np.uint32(a) + np.uint32(0x9E3779B9))
    h = mix(np.uint32(h ^ np.uint32(b)) + np.uint32(0x85EBCA6B))
    return mix(np.uint32(h ^ np.uint32(c)) + np.uint32(0xC2B2AE35))


@_njit
def uniform(key: int | np.uint32, draw: int) -> float:
    """Return the ``draw``-th number in [0, 1) that belongs to ``key``."""
    return mix(np.uint32(key) + np.uint32(draw) * np.uint32(0x9E3779B1)) / 4294967296.0


@_njit
def _zone(seed: int, y: float, x: float) -> float:
    """Smooth noise in [0, 1): neighbouring cells see similar values."""
    gy, gx = np.floor(y / ZONE), np.floor(x / ZONE)
    fy, fx = y / ZONE - gy, x / ZONE - gx
    fy, fx = fy * fy * (3 - 2 * fy), fx * fx * (3 - 2 * fx)
    iy, ix = int(gy), int(gx)
    top = uniform(mix3(seed, iy, ix), 0) * (1 - fx) + uniform(mix3(seed, iy, ix + 1), 0) * fx
    low = (
        uniform(mix3(seed, iy + 1, ix), 0) * (1 - fx) + uniform(mix3(seed, iy + 1, ix + 1), 0) * fx
    )
    return top * (1 - fy) + low * fy  # type: ignore[no-any-return]


@_njit
def _cell(
    cell: npt.NDArray[np.float64],
    key: np.uint32,
    seed: int,
    radius: float,
    n_types: int,
) -> None:
    """Draw one cell; its centre stands in ``cell`` already."""
    cell[RADIUS] = radius * (0.8 + 0.4 * uniform(key, 2))
    # Amplitudes add up to at most 0.3, which SMALLEST and LARGEST rely on.
    for n, amplitude in enumerate((0.16, 0.09, 0.05)):
        size = amplitude * (0.3 + 0.7 * uniform(key, 3 + 2 * n))
        phase = 2 * np.pi * uniform(key, 4 + 2 * n)
        cell[HARMONICS + 2 * n] = size * np.cos(phase)
        cell[HARMONICS + 2 * n + 1] = size * np.sin(phase)
    angle = 2 * np.pi * uniform(key, 9)
    offset = 0.12 * cell[RADIUS] * uniform(key, 10)
    cell[NUCLEUS_Y] = cell[CY] + offset * np.sin(angle)
    cell[NUCLEUS_X] = cell[CX] + offset * np.cos(angle)
    cell[NUCLEUS_RADIUS] = cell[RADIUS] * (0.5 + 0.15 * uniform(key, 11))
    phase = 2 * np.pi * uniform(key, 12)
    cell[NUCLEUS_COS] = 0.18 * np.cos(phase)
    cell[NUCLEUS_SIN] = 0.18 * np.sin(phase)
    # Six in ten cells belong to the type of their region, the others are mixed in. Smooth noise
    # seldom comes near 0 and 1, so it is stretched.
    zone = min(max(1.8 * (_zone(seed, cell[CY], cell[CX]) - 0.5) + 0.5, 0.0), 0.999)
    kind = zone if uniform(key, 13) < 0.6 else uniform(key, 14)
    cell[TYPE] = np.floor(kind * n_types)
    cell[LEVEL] = 0.5 + uniform(key, 15) + 0.5 * uniform(key, 16) ** 4


@_njit
def place(
    seed: int,
    lattice: tuple[int, int, int, int],
    spacing: float,
    jitter: float,
    radius: float,
    n_types: int,
    shape: tuple[int, int],
) -> tuple[Cells, npt.NDArray[np.int64]]:
    """Draw the cells of the lattice rows and columns ``[i0, i1) x [j0, j1)``.

    Parameters
    ----------
    seed
        32 bits.
    lattice
        i0, i1, j0, j1; may reach beyond the image, where there are no cells.
    spacing, jitter, radius
        Lattice constant in pixels, largest shift in lattice constants, nominal radius in pixels.
    n_types
        Number of types of cells.
    shape
        (y, x) of the whole image. A cell exists if its centre's pixel lies inside.

    Returns
    -------
    cells, places
        The cells in lattice order, and each one's place: row * (row length) + column.
    """
    i0, i1, j0, j1 = lattice
    height, width = shape
    per_row = int(np.ceil(width / spacing))
    cells = np.empty(((i1 - i0) * (j1 - j0), N_PARAMETERS))
    places = np.empty((i1 - i0) * (j1 - j0), np.int64)
    n = 0
    for i in range(i0, i1):
        for j in range(j0, j1):
            key = mix3(seed, i, j)
            y = (i + 0.5 + jitter * (2 * uniform(key, 0) - 1)) * spacing
            x = (j + 0.5 + jitter * (2 * uniform(key, 1) - 1)) * spacing
            if not (0 <= np.rint(y) < height and 0 <= np.rint(x) < width):
                continue
            cells[n, CY] = y
            cells[n, CX] = x
            _cell(cells[n], key, seed, radius, n_types)
            places[n] = i * per_row + j
            n += 1
    return cells[:n], places[:n]


@_njit
def count(
    seed: int, rows: int, columns: int, spacing: float, jitter: float, shape: tuple[int, int]
) -> int:
    """Count the cells of the whole image without drawing them."""
    height, width = shape
    n = 0
    for i in range(rows):
        for j in range(columns):
            key = mix3(seed, i, j)
            y = (i + 0.5 + jitter * (2 * uniform(key, 0) - 1)) * spacing
            x = (j + 0.5 + jitter * (2 * uniform(key, 1) - 1)) * spacing
            n += 0 <= np.rint(y) < height and 0 <= np.rint(x) < width
    return n


@_njit
def _outline(cell: npt.NDArray[np.float64], dy: float, dx: float, distance: float) -> float:
    """Return the outline's distance from the centre in the direction (dy, dx), in pixels."""
    if distance == 0.0:
        return cell[RADIUS]  # type: ignore[no-any-return]
    c, s = dx / distance, dy / distance
    c2, s2 = c * c - s * s, 2 * c * s
    c3, s3 = c2 * c - s2 * s, s2 * c + c2 * s
    c4, s4 = c2 * c2 - s2 * s2, 2 * c2 * s2
    h = HARMONICS
    wave = cell[h] * c2 + cell[h + 1] * s2 + cell[h + 2] * c3 + cell[h + 3] * s3
    return cell[RADIUS] * (1 + wave + cell[h + 4] * c4 + cell[h + 5] * s4)  # type: ignore[no-any-return]


@_njit
def _nucleus_distance(cell: npt.NDArray[np.float64], y: int, x: int) -> float:
    """Return a pixel's distance from the nucleus' centre, in radii of the nucleus."""
    dy, dx = y - cell[NUCLEUS_Y], x - cell[NUCLEUS_X]
    d2 = dy * dy + dx * dx
    if d2 == 0.0:
        return 0.0
    wave = (cell[NUCLEUS_COS] * (dx * dx - dy * dy) + cell[NUCLEUS_SIN] * 2 * dx * dy) / d2
    return np.sqrt(d2) / (cell[NUCLEUS_RADIUS] * (1 + wave))  # type: ignore[no-any-return]


@_njit
def paint(
    cells: Cells,
    y0: int,
    x0: int,
    owner: npt.NDArray[np.int32],
    distance: npt.NDArray[np.float32],
) -> None:
    """Give each pixel to the cell that is nearest in units of that cell's radius.

    ``owner`` (y, x) becomes the row of ``cells``, -1 where there is none; ``distance`` the distance
    in radii: below 1 inside the cell, up to ``GLOW`` in its glow. Cells come in lattice order, and
    the first of two equally near ones wins, so the result does not depend on the block.
    """
    height, width = owner.shape
    owner[:] = -1
    distance[:] = np.float32(GLOW)
    for k in range(len(cells)):
        cell = cells[k]
        cy, cx = cell[CY], cell[CX]
        reach = cell[RADIUS] * 1.3 * GLOW
        top, bottom = max(int(np.ceil(cy - reach)), y0), min(int(cy + reach) + 1, y0 + height)
        left, right = max(int(np.ceil(cx - reach)), x0), min(int(cx + reach) + 1, x0 + width)
        for y in range(top, bottom):
            dy = y - cy
            for x in range(left, right):
                dx = x - cx
                d2 = dy * dy + dx * dx
                if d2 > reach * reach:
                    continue
                d = np.sqrt(d2)
                radii = np.float32(d / _outline(cell, dy, dx, d))
                if radii < distance[y - y0, x - x0]:
                    distance[y - y0, x - x0] = radii
                    owner[y - y0, x - x0] = k


@_njit
def nuclear(
    cells: Cells,
    y0: int,
    x0: int,
    owner: npt.NDArray[np.int32],
    out: npt.NDArray[np.float32],
) -> None:
    """Fill ``out`` with each owned pixel's distance from its nucleus, in radii of the nucleus."""
    height, width = owner.shape
    for y in range(height):
        for x in range(width):
            k = owner[y, x]
            if k >= 0:
                out[y, x] = np.float32(_nucleus_distance(cells[k], y0 + y, x0 + x))


@_njit
def label(
    owner: npt.NDArray[np.int32],
    distance: npt.NDArray[np.float32],
    inner: npt.NDArray[np.float32],
    ids: npt.NDArray[Any],
    out: npt.NDArray[Any],
) -> None:
    """Write the id of the cell (``ids[k]``) to the pixels with both distances below 1, else 0."""
    height, width = owner.shape
    for y in range(height):
        for x in range(width):
            inside = distance[y, x] < 1 and inner[y, x] < 1
            out[y, x] = ids[owner[y, x]] if inside else 0


@_njit
def _lattice_noise(
    key: int | np.uint32, bits: int, y: int, x0: int, width: int, out: npt.NDArray[np.float32]
) -> None:
    """Write one row of smooth noise in [-1, 1): hashes every ``2**bits`` pixels, interpolated."""
    step = 1 << bits
    fy = np.float32((y & (step - 1)) / step)
    fy = fy * fy * (np.float32(3) - np.float32(2) * fy)
    iy = y >> bits
    right = np.float32(0)
    left = np.float32(0)
    last = -1
    for x in range(width):
        ix = (x0 + x) >> bits
        if ix != last:
            # One step to the right along the row: the two hashes of the left edge are known.
            a = uniform(mix3(key, iy, ix), 0) * (1 - fy) + uniform(mix3(key, iy + 1, ix), 0) * fy
            b = (
                uniform(mix3(key, iy, ix + 1), 0) * (1 - fy)
                + uniform(mix3(key, iy + 1, ix + 1), 0) * fy
            )
            left, right, last = np.float32(2 * a - 1), np.float32(2 * b - 1), ix
        f = np.float32(((x0 + x) & (step - 1)) / step)
        f = f * f * (np.float32(3) - np.float32(2) * f)
        out[x] = left + (right - left) * f


@_njit
def shade(
    key: int,
    y0: int,
    x0: int,
    owner: npt.NDArray[np.int32],
    distance: npt.NDArray[np.float32],
    gain: npt.NDArray[np.float32],
    profile: npt.NDArray[np.float32],
    background: float,
    out: npt.NDArray[np.uint16],
) -> None:
    """Write one channel of a block: background, haze, cells, and the camera's noise.

    Parameters
    ----------
    key
        The channel's 32 bits.
    y0, x0
        Where the block begins.
    owner, distance
        (y, x), from :func:`paint`; the distance may be that of :func:`nuclear`.
    gain
        (n cells,) brightness of each cell in this channel, in counts.
    profile
        (LUT_SIZE,) brightness by distance, in steps of ``LUT_STEP`` radii.
    background
        Counts where there is no cell.
    out
        (y, x) the counts.
    """
    height, width = owner.shape
    fine = np.empty(width, np.float32)
    coarse = np.empty(width, np.float32)
    signal = np.empty(width, np.float32)
    steps = np.float32(1.0 / LUT_STEP)
    base = np.float32(background)
    for y in range(height):
        _lattice_noise(key, _FINE_BITS, y0 + y, x0, width, fine)
        _lattice_noise(mix(key), _COARSE_BITS, y0 + y, x0, width, coarse)
        for x in range(width):
            signal[x] = base * (np.float32(1) + np.float32(0.3) * coarse[x])
            k = owner[y, x]
            if k >= 0:
                entry = min(int(distance[y, x] * steps), LUT_SIZE - 1)
                texture = np.float32(1) + np.float32(0.4) * fine[x]
                signal[x] += gain[k] * profile[entry] * texture
        row = np.uint32(mix3(key, y0 + y, 77))
        for x in range(width):
            h = mix(row + np.uint32(x0 + x) * np.uint32(0x9E3779B1))
            # The sum of four bytes is nearly normal: mean 510, standard deviation 147.8.
            total = (h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24)
            normal = (np.float32(total) - np.float32(510)) * np.float32(1 / 147.8)
            # Shot noise of a camera with 1.5 counts a photon, and 8 counts of read noise.
            noisy = signal[x] + normal * np.sqrt(np.float32(1.5) * signal[x] + np.float32(64))
            out[y, x] = np.uint16(min(max(noisy, np.float32(0)), np.float32(65535)))
