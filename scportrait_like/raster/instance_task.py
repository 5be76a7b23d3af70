"""The task of a run over windows: a tile is read once, its cells go to the head in batches."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from scportrait_like.raster.cells import JOIN_ARRAYS, TILE_ARRAYS, Cells, Pieces
from scportrait_like.raster.instances import Head, put_made
from scportrait_like.raster.reading import Check, Reading
from scportrait_like.raster.sources import Source
from scportrait_like.raster.tile_pixels import (
    Boxes,
    TilePixels,
    cut_tile,
    join_boxes,
    leave,
    tile_pixels,
)
from scportrait_like.raster.tiles import TileGrid
from scportrait_like.run.batches import Batches, in_batches
from scportrait_like.run.plan import Unit, load_arrays
from scportrait_like.run.unitfile import UnitWriter


@dataclass(frozen=True)
class InstanceTask:
    """The task of a run over windows: everything that a worker needs, small and picklable.

    Attributes
    ----------
    labels
        (z, y, x).
    image
        (c, z, y, x), or None.
    channels
        Positions of the channels, in the order wanted.
    size
        Edge of the windows in pixels.
    remove_background
        Whether pixels of others are 0.
    keep_labels
        Whether the head looks at the mask's own values.
    head
        What is made of the windows.
    batch
        Most cells that the head gets at once.
    held
        Bytes of a tile's boxes that may stay in memory; more go through a file.
    plan_path, units_path
        Where the plan's arrays and the finished units lie.
    batches_path
        Where batches are kept until their unit is finished; None: nowhere.
    """

    labels: Source
    image: Source | None
    channels: tuple[int, ...]
    size: int
    remove_background: bool
    keep_labels: bool
    head: Head
    batch: int
    held: int
    plan_path: Path
    units_path: Path
    batches_path: Path | None = None

    def __call__(
        self, unit: Unit, out: UnitWriter, batch_size: int, check: Check
    ) -> Mapping[str, float]:
        """Work on one unit: its cells' windows, batch by batch."""
        reading = Reading(check)
        batch = min(self.batch, batch_size)
        if "tile" in unit.what:
            with tempfile.TemporaryFile(dir=self.units_path, prefix=".boxes-") as file:
                _tile(self, unit, out, batch, reading, file)
        else:
            _join(self, unit, out, batch, reading)
        return reading.parts


def _tile(
    task: InstanceTask, unit: Unit, out: UnitWriter, batch: int, reading: Reading, file: Any
) -> None:
    arrays = load_arrays(task.plan_path, TILE_ARRAYS)
    tile = TileGrid.of(arrays["grid"])[unit.what["tile"]]
    cells = Cells.of(arrays, "cell", slice(*unit.what["cells"]), task.size, tile)
    fragments = Cells.fragments(arrays, slice(*unit.what["parts"]), tile)
    kept, left = tile_pixels(task, cells, tile, file), Boxes.empty(task, fragments, put=out.put)
    cut_tile(task, tile, [kept, left], reading)
    leave(left, out.put)
    del left
    reading.lap("stream")
    _hand_on(task, unit, cells, kept, out, batch, reading)


def _join(task: InstanceTask, unit: Unit, out: UnitWriter, batch: int, reading: Reading) -> None:
    arrays = load_arrays(task.plan_path, JOIN_ARRAYS)
    rows = slice(*unit.what["cells"])
    cells = Cells.of(arrays, "border", rows, task.size)
    pieces = Pieces.of(arrays, rows)
    boxes = join_boxes(task, cells, pieces, pieces.held(task.units_path), reading.check)
    reading.lap("join")
    _hand_on(task, unit, cells, boxes, out, batch, reading)


def _hand_on(
    task: InstanceTask,
    unit: Unit,
    cells: Cells,
    pixels: TilePixels,
    out: UnitWriter,
    batch: int,
    reading: Reading,
) -> None:
    """Give the cells to the head, batch by batch, and keep what it makes of them."""

    def make(rows: slice) -> Mapping[str, NDArray[Any]]:
        reading.check()
        return task.head(pixels.take(task, rows))

    kept = Batches(task.batches_path, unit.name)
    for number, found in in_batches(len(cells), batch, kept, make):
        put_made(out, number, found)
        reading.lap("head")
