"""The work of an extraction: a unit's region is read, and its cells' pictures are cut.

Pictures leave as compressed HDF5 chunks, one a cell and plane, so that the writer only places
bytes. Planes are the masks (blurred), then the channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.kernels import (
    Normalisation,
    Plain,
    blur,
    cut_masks,
    cut_pixels,
    fill_holes,
    mask_planes,
    portraits,
)
from scportrait_like.raster.cells import JOIN_ARRAYS, TILE_ARRAYS, Cells, Pieces
from scportrait_like.raster.chunkcodecs import CODECS
from scportrait_like.raster.reading import Check, Reading
from scportrait_like.raster.sources import Source
from scportrait_like.raster.tiles import Tile, TileGrid
from scportrait_like.run.plan import Unit, load_arrays
from scportrait_like.run.unitfile import UnitWriter

# Pictures that are made and compressed together stay in a core's cache: about this many bytes.
_CACHE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class PortraitTask:
    """The task of an extraction: everything that a worker needs, small and picklable.

    Attributes
    ----------
    image
        (c, y, x).
    masks
        (y, x) each: nucleus first, then cytosol; the last one masks the channels.
    channels
        Positions of the channels that are cut, and their names for messages.
    size
        Edge of the window in pixels.
    normalisation
        What becomes of the values.
    codec
        Name in `CODECS`.
    plan_path, units_path
        Where the plan's arrays and the finished units lie.
    """

    image: Source
    masks: tuple[Source, ...]
    channels: tuple[tuple[int, str], ...]
    size: int
    normalisation: Normalisation
    codec: str
    plan_path: Path
    units_path: Path

    def __call__(
        self, unit: Unit, out: UnitWriter, batch_size: int, check: Check
    ) -> Mapping[str, float]:
        """Work on one unit and stream its pictures out."""
        work = _Work(self, out, batch_size, check)
        if "tile" in unit.what:
            work.tile(unit)
        else:
            work.join(unit)
        return work.reading.parts


class _Work:
    """One unit under way."""

    def __init__(self, task: PortraitTask, out: UnitWriter, batch_size: int, check: Check) -> None:
        self.task, self.out, self.batch_size = task, out, batch_size
        self.reading = Reading(check)
        self.codec = CODECS[task.codec]
        self.pictures = np.empty((self._together, task.size, task.size), np.uint16)

    @property
    def _together(self) -> int:
        """Pictures that are made and compressed together."""
        return max(1, min(self.batch_size, _CACHE_BYTES // (2 * self.task.size**2)))

    def tile(self, unit: Unit) -> None:
        arrays = load_arrays(self.task.plan_path, TILE_ARRAYS)
        grid = TileGrid.of(arrays["grid"])
        tile = grid[unit.what["tile"]]
        cells = Cells.of(arrays, "cell", slice(*unit.what["cells"]), self.task.size, tile)
        fragments = Cells.fragments(arrays, slice(*unit.what["parts"]), tile)
        blurred = [
            self._tile_mask(number, tile, cells, fragments)
            for number in range(len(self.task.masks))
        ]
        self._write_masks(cells, blurred)
        channels = [channel for channel, _ in self.task.channels]
        for number, plane in self.reading.planes(self.task.image, channels, tile):
            cut = np.empty(fragments.pixels, plane.dtype)
            cut_pixels(plane, fragments.boxes, fragments.offsets, cut)
            self.out.put(f"fragment.channel.{number}", cut)
            self._write_channel(number, cells, blurred[-1], partial(_cut_from, plane))

    def join(self, unit: Unit) -> None:
        arrays = load_arrays(self.task.plan_path, JOIN_ARRAYS)
        rows = slice(*unit.what["cells"])
        cells = Cells.of(arrays, "border", rows, self.task.size)
        pieces = Pieces.of(arrays, rows)
        held = pieces.held(self.task.units_path)
        blurred = []
        for number in range(len(self.task.masks)):
            bits = pieces.join(held, f"fragment.mask.{number}", cells, np.dtype(np.uint8))
            blurred.append(self._blur(bits, cells))
        self.reading.lap("masks")
        self._write_masks(cells, blurred)
        for number in range(len(self.task.channels)):
            values = pieces.join(held, f"fragment.channel.{number}", cells, self.task.image.dtype)
            pixels = partial(_part_of, values)
            self._write_channel(number, cells, blurred[-1], pixels)

    def _tile_mask(
        self, number: int, tile: Tile, cells: Cells, fragments: Cells
    ) -> NDArray[np.float64]:
        labels = self.reading.read(self.task.masks[number], tile.region)
        cut = np.zeros(fragments.pixels, np.uint8)
        cut_masks(labels, fragments.ids, fragments.boxes, fragments.offsets, cut)
        self.out.put(f"fragment.mask.{number}", cut)
        bits = np.zeros(cells.pixels, np.uint8)
        cut_masks(labels, cells.ids, cells.boxes, cells.offsets, bits)
        blurred = self._blur(bits, cells)
        self.reading.lap("masks")
        return blurred

    @staticmethod
    def _blur(bits: NDArray[np.uint8], cells: Cells) -> NDArray[np.float64]:
        fill_holes(bits, cells.boxes, cells.offsets)
        blurred = np.empty(cells.pixels, np.float64)
        blur(bits, cells.boxes, cells.offsets, blurred)
        return blurred

    def _write_masks(self, cells: Cells, blurred: list[NDArray[np.float64]]) -> None:
        for number, mask in enumerate(blurred):

            def picture(
                part: Cells, flat: slice, out: NDArray[Any], mask: NDArray[Any] = mask
            ) -> None:
                mask_planes(mask[flat], part.boxes, part.offsets, part.corners, self.task.size, out)

            self._write_plane(number, cells, picture)

    def _write_channel(
        self,
        number: int,
        cells: Cells,
        blurred: NDArray[np.float64],
        pixels: Callable[[Cells, slice], NDArray[Any]],
    ) -> None:
        name = self.task.channels[number][1]

        def picture(part: Cells, flat: slice, out: NDArray[Any]) -> None:
            values = pixels(part, flat)
            mask = blurred[flat]
            if isinstance(self.task.normalisation, Plain):
                _check_range(values, mask, name)
            portraits(
                values,
                mask,
                part.boxes,
                part.offsets,
                part.corners,
                self.task.size,
                self.task.normalisation,
                out,
            )

        self._write_plane(len(self.task.masks) + number, cells, picture)

    def _write_plane(
        self,
        plane: int,
        cells: Cells,
        picture: Callable[[Cells, slice, NDArray[Any]], None],
    ) -> None:
        """Make one plane's pictures and stream their chunks out, batch by batch."""
        for number, batch in enumerate(cells.batches(self.batch_size)):
            self.reading.check()
            streams, sizes = [], []
            for inner in cells.take(batch).batches(self._together):
                rows = slice(batch.start + inner.start, batch.start + inner.stop)
                pictures = self.pictures[: rows.stop - rows.start]
                picture(cells.take(rows), cells.flat(rows), pictures)
                self.reading.lap("portraits")
                stream, counts = self.codec.encode(pictures)
                streams.append(stream)
                sizes.append(counts)
                self.reading.lap("encode")
            self.out.put_pieces(f"chunks.{plane}.{number}", streams)
            self.out.put_pieces(f"sizes.{plane}.{number}", sizes)
            self.reading.lap("stream")


def _cut_from(plane: NDArray[Any], part: Cells, _: slice) -> NDArray[Any]:
    """Pixels of some cells from a tile's plane."""
    values = np.empty(part.pixels, plane.dtype)
    cut_pixels(plane, part.boxes, part.offsets, values)
    return values


def _part_of(values: NDArray[Any], _: Cells, flat: slice) -> NDArray[Any]:
    """Pixels of some cells from all pixels of the unit's cells."""
    return values[flat]


def _check_range(values: NDArray[Any], mask: NDArray[np.float64], channel: str) -> None:
    seen = values[mask > 0]
    wrong = seen[~((seen >= 0) & (seen <= 1))]  # NaN is wrong too
    if wrong.size:
        raise InputError(
            f"channel {channel} holds {wrong[0]} inside a cell, but without normalisation an image "
            f"of {values.dtype} must lie in [0, 1]. Set normalize_output: true, or scale the image"
        )
