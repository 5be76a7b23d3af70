"""Tiles: the regions that work is cut into, aligned to chunks so that each is decoded once."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Tiles grow in whole chunks up to about this edge: below it borders cost, above it memory does.
TILE_EDGE = 2048
_LARGEST_COMMON: Final = 8192


@dataclass(frozen=True)
class Tile:
    """A box of pixels, half open.

    Attributes
    ----------
    index
        Position in its grid, the last axis fastest.
    start, stop
        Its corners, ([z,] y, x).
    """

    index: int
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def region(self) -> tuple[slice, ...]:
        """As slices."""
        return tuple(map(slice, self.start, self.stop))


@dataclass(frozen=True)
class TileGrid:
    """A plane or volume cut into tiles of equal edges, the last ones shorter.

    Attributes
    ----------
    shape
        ([z,] y, x) in pixels.
    edges
        ([z,] y, x) of a tile in pixels.
    phase
        ([z,] y, x): so many pixels of the first tile lie before the begin, and are not there.
    """

    shape: tuple[int, ...]
    edges: tuple[int, ...]
    phase: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "phase", self.phase or (0,) * len(self.shape))

    @classmethod
    def of(cls, array: NDArray[np.int64]) -> TileGrid:
        """Make the grid that `array` was stored of."""
        return cls(*map(tuple, array.tolist()))

    @property
    def array(self) -> NDArray[np.int64]:
        """Shape, edges and phase as (3, axes), to be stored."""
        return np.array([self.shape, self.edges, self.phase])

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles along each axis."""
        axes = zip(self.shape, self.phase, self.edges, strict=True)
        return tuple(-(-(n + before) // edge) for n, before, edge in axes)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __getitem__(self, index: int) -> Tile:
        places = np.unravel_index(index, self.counts)
        first = [
            int(place) * edge - before
            for place, edge, before in zip(places, self.edges, self.phase, strict=True)
        ]
        stop = map(min, self.shape, map(operator.add, first, self.edges))
        return Tile(index, tuple(max(0, begin) for begin in first), tuple(stop))

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(len(self)))


def tile_edge(length: int, chunks: Sequence[int], target: int) -> int:
    """Edge of the tiles along one axis.

    It is a multiple of every array's chunk edge where that stays small, so that no chunk is decoded
    for two tiles; else of the first array's.

    Parameters
    ----------
    length
        Pixels along the axis.
    chunks
        Chunk edges of the arrays that are read, along this axis, the one with most to decode first.
    target
        Edge to come near to, in pixels.
    """
    if any(edge >= length for edge in chunks):
        # One of them is a single chunk along this axis: any cut would decode it again.
        return length
    common = math.lcm(*chunks)
    if common > max(_LARGEST_COMMON, target, *chunks):
        common = chunks[0]
    return min(length, common * max(1, target // common))


def tile_grid(
    shape: tuple[int, ...], *chunks: tuple[int, ...], phase: tuple[int, ...] = (), depth: int = 1
) -> TileGrid:
    """Grid of tiles for arrays of one shape ([z,] y, x) and their chunks ([z,] y, x).

    The array with most to decode comes first: an image before its mask. Tiles are as thin along z
    as the chunks allow, and narrower where those are thick. `phase`: how many pixels of its first
    chunk lie before the begin of the first array. `depth`: so many planes are worked on together.
    """
    by_axis = list(zip(*chunks, strict=True))
    edges = [tile_edge(n, edge, 1) for n, edge in zip(shape[:-2], by_axis[:-2], strict=True)]
    target = max(1, math.isqrt(TILE_EDGE**2 // (math.prod(edges) * depth)))
    edges += [tile_edge(n, edge, target) for n, edge in zip(shape[-2:], by_axis[-2:], strict=True)]
    # A single tile begins where the array does.
    kept = zip(shape, edges, phase or (0,) * len(edges), strict=True)
    return TileGrid(tuple(shape), tuple(edges), tuple(p if edge < n else 0 for n, edge, p in kept))
