"""Cells of a unit: their boxes as they lie in flat buffers, and the pieces of those on borders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import paste, ragged_offsets
from scportrait_like.raster.tiles import Tile
from scportrait_like.run.unitfile import UnitReader

_CELL_ARRAYS: Final = ("id", "centre", "box")
# Arrays of a plan (`scportrait_like.raster.cell_plan.plan_cells`) that a tile's unit looks at.
TILE_ARRAYS: Final = [
    "grid",
    *(f"cell_{name}" for name in _CELL_ARRAYS),
    "border_id",
    "part_cell",
    "part_box",
]
# And those of a unit of the second stage.
JOIN_ARRAYS: Final = [
    *(f"border_{name}" for name in _CELL_ARRAYS),
    "border_parts",
    "border_part_starts",
    "part_tile",
    "part_box",
    "part_start",
]


@dataclass(frozen=True)
class Cells:
    """Cells of a unit: their boxes, flat buffers' offsets, and windows' corners.

    Attributes
    ----------
    ids
        (n,) int64.
    boxes
        (n, 4) int64 = (y0, x0, y1, x1), half open, counted from the unit's first pixel.
    corners
        (n, 2) int64: the first pixel (y, x) of each window, counted likewise.
    offsets
        (n + 1,) int64: pixels of box i are ``buffer[offsets[i]:offsets[i + 1]]``.
    """

    ids: NDArray[np.int64]
    boxes: NDArray[np.int64]
    corners: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        name: str,
        rows: slice,
        size: int,
        tile: Tile | None = None,
    ) -> Cells:
        """Cells of a plan: ``name`` is "cell" or "border"; counted from the tile, if there is."""
        origin = np.array(tile.start[-2:]) if tile else np.zeros(2, np.int64)
        boxes = arrays[f"{name}_box"][rows] - np.tile(origin, 2)
        corners = arrays[f"{name}_centre"][rows] - size // 2 - origin
        ids = np.array(arrays[f"{name}_id"][rows])
        return cls(ids, boxes, corners, ragged_offsets(boxes))

    @classmethod
    def fragments(cls, arrays: Mapping[str, NDArray[Any]], parts: slice, tile: Tile) -> Cells:
        """What a tile holds of cells on its borders."""
        ids = arrays["border_id"][arrays["part_cell"][parts]]
        corner = np.tile(tile.start[-2:], 2)
        boxes = np.ascontiguousarray(arrays["part_box"][parts] - corner)
        return cls(np.ascontiguousarray(ids), boxes, boxes[:, :2], ragged_offsets(boxes))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def pixels(self) -> int:
        """Of all boxes."""
        return int(self.offsets[-1])

    def batches(self, count: int) -> Iterator[slice]:
        """Yield rows of at most `count` cells."""
        for start in range(0, len(self.ids), count):
            yield slice(start, min(start + count, len(self.ids)))

    def take(self, rows: slice) -> Cells:
        """Return some of them, with offsets from 0."""
        offsets = self.offsets[rows.start : rows.stop + 1]
        return Cells(
            self.ids[rows], self.boxes[rows], self.corners[rows], offsets - self.offsets[rows.start]
        )

    def flat(self, rows: slice) -> slice:
        """Where the pixels of some of them lie in a buffer of all."""
        return slice(int(self.offsets[rows.start]), int(self.offsets[rows.stop]))


class Held(Protocol):
    """What one tile left: arrays by name."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Flat buffer of the tile's fragments."""


@dataclass(frozen=True)
class Pieces:
    """Fragments of some border cells, and the tiles that hold them.

    Attributes
    ----------
    targets
        (m,) the cell that each belongs to.
    boxes
        (m, 4) in the image.
    starts
        (m,) first pixel in the tile's buffer.
    offsets
        (m + 1,) of the fragments laid one after the other.
    tiles
        (m,) index of the tile.
    """

    targets: NDArray[np.int64]
    boxes: NDArray[np.int64]
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    tiles: NDArray[np.int64]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], rows: slice) -> Pieces:
        """Fragments of some border cells of a plan."""
        bounds = arrays["border_part_starts"][rows.start : rows.stop + 1]
        which = np.array(arrays["border_parts"][bounds[0] : bounds[-1]])
        targets = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        boxes = np.array(arrays["part_box"][which])
        tiles = np.array(arrays["part_tile"][which])
        starts = np.array(arrays["part_start"][which])
        return cls(targets, boxes, starts, ragged_offsets(boxes), tiles)

    def held(self, units_path: Path) -> dict[int, UnitReader]:
        """Open the units of the tiles that hold them."""
        return {
            int(tile): UnitReader(units_path / f"tile-{tile:06d}") for tile in np.unique(self.tiles)
        }

    def join(
        self,
        held: Mapping[int, Held],
        name: str,
        cells: Cells,
        dtype: np.dtype[Any],
        z: int | None = None,
    ) -> NDArray[Any]:
        """Flat buffer of the cells' whole boxes; what no tile holds lies outside the image: 0.

        The tiles left one such buffer under the name, or one a plane `z`.
        """
        values = np.empty(int(self.offsets[-1]), dtype)
        buffers = {tile: each[name] if z is None else each[name][z] for tile, each in held.items()}
        for number, (tile, start) in enumerate(zip(self.tiles, self.starts, strict=True)):
            here = slice(int(self.offsets[number]), int(self.offsets[number + 1]))
            values[here] = buffers[int(tile)][start : start + here.stop - here.start]
        out = np.zeros(cells.pixels, dtype)
        paste(values, self.boxes, self.offsets, self.targets, cells.boxes, cells.offsets, out)
        return out
