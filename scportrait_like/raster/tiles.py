"""Tiles: the regions that work is cut into, aligned to chunks so that each is decoded once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

# Tiles grow in whole chunks up to about this edge: below it borders cost, above it memory does.
TILE_EDGE = 2048
_LARGEST_COMMON: Final = 8192


@dataclass(frozen=True)
class Tile:
    """A rectangle of pixels, half open.

    Attributes
    ----------
    index
        Position in its grid, row by row.
    y0, x0, y1, x1
        Its borders.
    """

    index: int
    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(y0, x0, y1, x1)."""
        return self.y0, self.x0, self.y1, self.x1

    @property
    def region(self) -> tuple[slice, slice]:
        """As slices."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


@dataclass(frozen=True)
class TileGrid:
    """A plane cut into tiles of equal edges, the last ones shorter.

    Attributes
    ----------
    shape
        (y, x) of the plane in pixels.
    edges
        (y, x) of a tile in pixels.
    """

    shape: tuple[int, int]
    edges: tuple[int, int]

    @property
    def counts(self) -> tuple[int, int]:
        """Tiles along (y, x)."""
        return (
            -(-self.shape[0] // self.edges[0]),
            -(-self.shape[1] // self.edges[1]),
        )

    def __len__(self) -> int:
        return self.counts[0] * self.counts[1]

    def __getitem__(self, index: int) -> Tile:
        row, column = divmod(index, self.counts[1])
        y0, x0 = row * self.edges[0], column * self.edges[1]
        y1 = min(y0 + self.edges[0], self.shape[0])
        x1 = min(x0 + self.edges[1], self.shape[1])
        return Tile(index, y0, x0, y1, x1)

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(len(self)))


def tile_edge(length: int, chunks: Sequence[int], target: int) -> int:
    """Edge of the tiles along one axis.

    It is a multiple of every array's chunk edge where that stays small, so that no chunk is decoded
    for two tiles; else of the largest chunk edge.

    Parameters
    ----------
    length
        Pixels along the axis.
    chunks
        Chunk edges of the arrays that are read, along this axis.
    target
        Edge to come near to, in pixels.
    """
    if any(edge >= length for edge in chunks):
        # One of them is a single chunk along this axis: any cut would decode it again.
        return length
    common = math.lcm(*chunks)
    if common > max(_LARGEST_COMMON, target, *chunks):
        common = max(chunks)
    return min(length, common * max(1, target // common))


def tile_grid(shape: tuple[int, int], *chunks: tuple[int, int]) -> TileGrid:
    """Grid of tiles for arrays of one shape (y, x) and their chunks (y, x)."""
    edges = [
        tile_edge(length, [chunk[axis] for chunk in chunks], TILE_EDGE)
        for axis, length in enumerate(shape)
    ]
    return TileGrid(shape, (edges[0], edges[1]))
