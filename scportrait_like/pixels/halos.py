"""What surrounds a tile, put together from the borders that its neighbours have left.

A blur looks beyond its tile. So that no neighbour is decoded again, the first stage leaves the
borders of each tile, and later stages find there what lies around. Beyond the image's border its
pixels are mirrored (d c b a | a b c d | d c b a), as scipy's ``reflect`` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like.pixels.stages import PixelTask
from scportrait_like.raster.tiles import TileGrid
from scportrait_like.run.plan import Unit
from scportrait_like.run.unitfile import UnitReader, UnitWriter

Array = NDArray[Any]
Int64 = NDArray[np.int64]
_SIDES = ("top", "bottom", "left", "right")


class Borders:
    """The borders of a tile in all channels, gathered plane by plane.

    Parameters
    ----------
    reach
        How far a blur looks.
    """

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._sides: dict[str, Array] = {}

    def take(self, column: int, n_columns: int, plane: Array) -> None:
        """Keep the borders of one channel's tile ([z,] h, w)."""
        for name, part in self._parts(plane):
            if name not in self._sides:
                self._sides[name] = np.empty((n_columns, *part.shape), part.dtype)
            self._sides[name][column] = part

    def put(self, out: UnitWriter) -> None:
        """Leave them: ``top``, ``bottom``, ``left``, ``right`` (c, [z,] h, w)."""
        for name, side in self._sides.items():
            out.put(name, side)

    def _parts(self, plane: Array) -> Iterator[tuple[str, Array]]:
        h, w = plane.shape[-2:]
        reach = self._reach
        first, last = slice(0, reach), slice(max(0, h - reach), h)
        left, right = slice(0, reach), slice(max(0, w - reach), w)
        yield "top", plane[..., first, :]
        yield "bottom", plane[..., last, :]
        yield "left", plane[..., left]
        yield "right", plane[..., right]


class Surroundings:
    """A tile's surroundings in all channels.

    Parameters
    ----------
    task
        Of the run.
    stage
        That left the borders.
    unit
        Of the tile.
    reach
        How far a blur looks; as far as the borders do, at most.
    """

    def __init__(self, task: PixelTask, stage: str, unit: Unit, reach: int) -> None:
        self._task, self._stage, self._image = task, stage, unit.what["image"]
        image, tile = task.place(unit)
        self.reach = reach
        self._grid = image.grid
        self._depth = np.unravel_index(tile.index, self._grid.counts)[:-2]
        (y0, x0), (y1, x1) = tile.start[-2:], tile.stop[-2:]
        ys = mirrored(np.arange(y0 - reach, y1 + reach), self._grid.shape[-2])
        xs = mirrored(np.arange(x0 - reach, x1 + reach), self._grid.shape[-1])
        middle = slice(reach, len(ys) - reach)
        self._left: dict[int, UnitReader] = {}
        self._padded: Array | None = None
        self._top = self._gather(ys[:reach], xs)
        self._bottom = self._gather(ys[len(ys) - reach :], xs)
        self._beside = (
            self._gather(ys[middle], xs[:reach]),
            self._gather(ys[middle], xs[len(xs) - reach :]),
        )
        self._left.clear()

    def around(self, column: int, plane: Array, dtype: np.dtype[Any]) -> Array:
        """A channel's tile ([z,] h, w) with all around it ([z,] h + 2 reach, w + 2 reach).

        It is overwritten by the next one.
        """
        reach = self.reach
        *others, h, w = plane.shape
        if self._padded is None:
            self._padded = np.empty((*others, h + 2 * reach, w + 2 * reach), dtype)
        padded = self._padded
        inner_y, inner_x = slice(reach, reach + h), slice(reach, reach + w)
        padded[..., inner_y, inner_x] = plane
        padded[..., :reach, :] = self._top[column]
        padded[..., reach + h :, :] = self._bottom[column]
        padded[..., inner_y, :reach] = self._beside[0][column]
        padded[..., inner_y, reach + w :] = self._beside[1][column]
        return padded

    def _gather(self, ys: Int64, xs: Int64) -> Array:
        """Pixels (c, [z,] ys, xs) of all channels."""
        found: Array | None = None
        for rows, tile_y, local_y in _by_tile(ys, self._grid, -2):
            for columns, tile_x, local_x in _by_tile(xs, self._grid, -1):
                index = int(np.ravel_multi_index((*self._depth, tile_y, tile_x), self._grid.counts))
                part = self._of(index, local_y, local_x)
                if found is None:
                    found = np.empty((*part.shape[:-2], len(ys), len(xs)), part.dtype)
                found[..., rows[:, None], columns] = part
        if found is None:
            raise ValueError("a tile without pixels has no surroundings")
        return found

    def _of(self, index: int, ys: Int64, xs: Int64) -> Array:
        """Pixels of a tile, counted from its corner: they lie in one of its borders."""
        reader = self._left.get(index)
        if reader is None:
            reader = self._task.left_in_tile(self._stage, self._image, index)
            self._left[index] = reader
        tile = self._grid[index]
        h, w = (b - a for a, b in zip(tile.start[-2:], tile.stop[-2:], strict=True))
        for name, axis in zip(_SIDES, (0, 0, 1, 1), strict=True):
            places, edge = ((ys, h), (xs, w))[axis]
            from_end = name in ("bottom", "right")
            shift = max(0, edge - self.reach) if from_end else 0
            if places.min() < shift or places.max() - shift >= self.reach:
                continue
            side = reader[name]
            wanted_y, wanted_x = (ys - shift, xs) if axis == 0 else (ys, xs - shift)
            # Two steps: a list of rows, then of columns, is far quicker than both at once.
            part: Array = side[..., wanted_y, :][..., wanted_x]
            return part
        raise ValueError(f"tile {index} has left no pixels at {ys}, {xs}")


def mirrored(places: Int64, length: int) -> Int64:
    """Positions within an axis: those beyond its ends are mirrored, the ends being doubled."""
    inside = places % (2 * length)
    found: Int64 = np.minimum(inside, 2 * length - 1 - inside)
    return found


def _by_tile(places: Int64, grid: TileGrid, axis: int) -> Iterator[tuple[Int64, int, Int64]]:
    """Positions along an axis by the tile that they lie in, counted from that tile's begin."""
    tiles = (places + grid.phase[axis]) // grid.edges[axis]
    for tile in np.unique(tiles).tolist():
        which = np.flatnonzero(tiles == tile)
        begin = max(0, tile * grid.edges[axis] - grid.phase[axis])
        yield which, tile, places[which] - begin
