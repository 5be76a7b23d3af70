"""Windows of instances: cut tile by tile, joined on tile borders, handed on in batches.

A window holds, of the image's pixels around a cell, those of the cell (or all of them). Nothing of
it is kept but what a *head* makes of it: an embedding, some numbers, compressed bytes. A tile's
cells leave their boxes channel by channel in memory (or, where that is too much, in a file), and
windows are made of a batch of them at a time. So every chunk is decoded once, and no copy of the
image is made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import cut_masks, cut_pixels, fill_windows
from scportrait_like.raster.cells import JOIN_ARRAYS, TILE_ARRAYS, Cells, Pieces
from scportrait_like.raster.reading import Check, Reading
from scportrait_like.raster.sources import Source, phase_of
from scportrait_like.raster.tiles import Tile, TileGrid
from scportrait_like.run.plan import Unit, load_arrays
from scportrait_like.run.unitfile import UnitWriter

# Windows that a head gets at once, where nobody chose: about this many bytes.
BATCH_BYTES: Final = 8 << 20

_MASK: Final = "fragment.mask"
_LABELS: Final = "fragment.labels"
_MADE: Final = "made."

Put = Callable[[str, NDArray[Any]], None]


@dataclass(frozen=True)
class Instances:
    """Some cells and the pixels of their boxes: what a head makes something of.

    Attributes
    ----------
    cells
        n of them.
    size
        Edge of the windows, d pixels.
    bits
        (z, pixels) uint8: 1 where a pixel of the boxes is the cell's own.
    values
        (c, z, pixels): the image's, or None.
    labels
        (z, pixels): the mask's, where they were asked for.
    remove_background
        Whether `images` shows the cell's own pixels only.
    """

    cells: Cells
    size: int
    bits: NDArray[np.uint8]
    values: NDArray[Any] | None
    labels: NDArray[Any] | None
    remove_background: bool

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Labels of the cells, (n,)."""
        return self.cells.ids

    def images(self) -> NDArray[Any]:
        """Windows of the image, (n, c, z, d, d), in its dtype; 0 beyond the image."""
        if self.values is None:
            raise ValueError("there is no image")
        n_channels, depth, _ = self.values.shape
        out = np.empty((len(self), n_channels, depth, self.size, self.size), self.values.dtype)
        for channel in range(n_channels):
            for z in range(depth):
                bits = self.bits[z] if self.remove_background else None
                self._fill(self.values[channel, z], bits, out[:, channel, z])
        return out

    def masks(self) -> NDArray[np.bool_]:
        """Where each cell is in its window, (n, 1, z, d, d)."""
        out = np.empty((len(self), 1, len(self.bits), self.size, self.size), np.uint8)
        for z, bits in enumerate(self.bits):
            self._fill(bits, None, out[:, 0, z])
        return out.view(np.bool_)

    def label_windows(self) -> NDArray[Any]:
        """Windows of the mask, (n, 1, z, d, d), in its dtype."""
        if self.labels is None:
            raise ValueError("labels were not asked for")
        depth = len(self.bits)
        out = np.empty((len(self), 1, depth, self.size, self.size), self.labels.dtype)
        for z in range(depth):
            bits = self.bits[z] if self.remove_background else None
            self._fill(self.labels[z], bits, out[:, 0, z])
        return out

    def pixels(self, number: int) -> NDArray[Any]:
        """Own pixels of one cell inside its window, (c, N), plane by plane, row by row."""
        if self.values is None:
            raise ValueError("there is no image")
        here = self.cells.flat(slice(number, number + 1))
        found: NDArray[Any] = self.values[:, :, here][:, self.bits[:, here] != 0]
        return found

    def _fill(self, pixels: NDArray[Any], bits: NDArray[np.uint8] | None, out: Any) -> None:
        cells = self.cells
        fill_windows(pixels, bits, cells.boxes, cells.offsets, cells.corners, self.size, out)


class Head(Protocol):
    """What becomes of windows: a frozen dataclass that pickles.

    It gets a batch of n cells and returns arrays by name, each with a row a cell, or with pieces
    one after the other for as many cells (compressed bytes, say).
    """

    def __call__(self, instances: Instances) -> Mapping[str, NDArray[Any]]:
        """Make something of a batch."""


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


@dataclass
class Boxes:
    """The pixels of some cells' boxes, in memory or in a file; filled plane by plane.

    Attributes
    ----------
    cells
        Whose they are.
    bits, values, labels
        As in `Instances`; `values` is None where there is no image, or where they are in `file`.
    file
        Holds the values, if not in memory.
    put
        Takes the values, if they are not kept.
    shape, dtype
        Of the values (c, z, pixels).
    """

    cells: Cells
    bits: NDArray[np.uint8]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    labels: NDArray[Any] | None = None
    values: NDArray[Any] | None = None
    file: Any = field(default=None, repr=False)
    put: Put | None = field(default=None, repr=False)

    @classmethod
    def empty(
        cls, task: InstanceTask, cells: Cells, file: Any = None, put: Put | None = None
    ) -> Boxes:
        """Room for the boxes of some cells; in the file if it is more than the task may hold.

        With `put` none of the values is kept: each plane is handed on as it comes.
        """
        depth, pixels = task.labels.shape[0], cells.pixels
        dtype = task.labels.dtype if task.image is None else task.image.dtype
        dtype = dtype.newbyteorder("=")
        shape = len(task.channels), depth, pixels
        boxes = cls(cells, np.zeros((depth, pixels), np.uint8), shape, dtype)
        if task.keep_labels:
            boxes.labels = np.zeros((depth, pixels), task.labels.dtype.newbyteorder("="))
        if task.image is None:
            return boxes
        if put is not None:
            boxes.put = put
        elif file is not None and prod(shape) * dtype.itemsize > task.held:
            boxes.file = file
        else:
            boxes.values = np.zeros(shape, dtype)
        return boxes

    def cut_labels(self, z: int, plane: NDArray[Any]) -> None:
        """Take the masks from a plane of labels."""
        cells = self.cells
        cut_masks(plane, cells.ids, cells.boxes, cells.offsets, self.bits[z])
        if self.labels is not None:
            cut_pixels(plane, cells.boxes, cells.offsets, self.labels[z])

    def cut(self, channel: int, z: int, plane: NDArray[Any]) -> None:
        """Take the pixels of a plane of a channel."""
        if not len(self.cells) and self.put is None:
            return
        if self.values is not None:
            cut_pixels(plane, self.cells.boxes, self.cells.offsets, self.values[channel, z])
            return
        cut = np.empty(self.shape[2], self.dtype)
        cut_pixels(plane, self.cells.boxes, self.cells.offsets, cut)
        if self.put is not None:
            self.put(_fragment(channel, z), cut)
            return
        self.file.seek(self._place(channel, z, 0))
        self.file.write(cut.data)

    def take(self, task: InstanceTask, rows: slice) -> Instances:
        """Return some of the cells, their pixels in memory."""
        here = self.cells.flat(rows)
        values = self.values[:, :, here] if self.values is not None else None
        if self.file is not None:
            values = np.empty((*self.shape[:2], here.stop - here.start), self.dtype)
            for channel, z in np.ndindex(*self.shape[:2]):
                self.file.seek(self._place(channel, z, here.start))
                self.file.readinto(values[channel, z].data)
        labels = None if self.labels is None else self.labels[:, here]
        cells, bits = self.cells.take(rows), self.bits[:, here]
        return Instances(cells, task.size, bits, values, labels, task.remove_background)

    def _place(self, channel: int, z: int, pixel: int) -> int:
        _, depth, pixels = self.shape
        return ((channel * depth + z) * pixels + pixel) * self.dtype.itemsize


def cut_tile(task: InstanceTask, tile: Tile, parts: list[Boxes], reading: Reading) -> None:
    """Read a tile once, plane by plane, and cut the boxes of several groups of cells."""
    depth = task.labels.shape[0]
    for low, high in _slabs(depth, task.labels.chunks[0], phase_of(task.labels)[0]):
        labels = reading.read(task.labels, (slice(low, high), *tile.region))
        for z in range(low, high):
            for boxes in parts:
                boxes.cut_labels(z, labels[z - low])
        reading.lap("cut")
        del labels
    if task.image is None:
        return
    # Neighbours first: channels may share chunks.
    order = sorted(range(len(task.channels)), key=task.channels.__getitem__)
    channels = [task.channels[place] for place in order]
    for low, high in _slabs(depth, task.image.chunks[1], phase_of(task.image)[1]):
        slab = Tile(tile.index, (low, *tile.start), (high, *tile.stop))
        for number, volume in reading.planes(task.image, channels, slab):
            for z in range(low, high):
                for boxes in parts:
                    boxes.cut(order[number], z, volume[z - low])
            reading.lap("cut")
            del volume  # or it stays while the next one is read


def _slabs(depth: int, step: int, before: int) -> Iterator[tuple[int, int]]:
    """Planes that share chunks, of which the first has lost some."""
    for low in range(-before, depth, step):
        yield max(low, 0), min(low + step, depth)


def _tile(
    task: InstanceTask, unit: Unit, out: UnitWriter, batch: int, reading: Reading, file: Any
) -> None:
    arrays = load_arrays(task.plan_path, TILE_ARRAYS)
    tile = TileGrid.of(arrays["grid"])[unit.what["tile"]]
    cells = Cells.of(arrays, "cell", slice(*unit.what["cells"]), task.size, tile)
    fragments = Cells.fragments(arrays, slice(*unit.what["parts"]), tile)
    boxes, left = Boxes.empty(task, cells, file), Boxes.empty(task, fragments, put=out.put)
    cut_tile(task, tile, [boxes, left], reading)
    leave(left, out.put)
    del left
    reading.lap("stream")
    _hand_on(task, boxes, out, batch, reading)


def leave(boxes: Boxes, put: Put) -> None:
    """Hand on what is kept of a tile's fragments, by the names that `join_boxes` looks for."""
    put(_MASK, boxes.bits)
    if boxes.labels is not None:
        put(_LABELS, boxes.labels)
    if boxes.values is not None:
        for channel, z in np.ndindex(*boxes.shape[:2]):
            put(_fragment(channel, z), boxes.values[channel, z])


def _fragment(channel: int, z: int) -> str:
    return f"fragment.{channel}.{z}"


def join_boxes(
    task: InstanceTask, cells: Cells, pieces: Pieces, held: Mapping[int, Any], check: Check
) -> Boxes:
    """Join the boxes of cells from what their tiles left."""
    boxes = Boxes.empty(task, cells)
    of_mask = [(_MASK, boxes.bits), *([] if boxes.labels is None else [(_LABELS, boxes.labels)])]
    for name, planes in of_mask:
        for z, plane in enumerate(planes):
            plane[:] = pieces.join(held, name, cells, plane.dtype, z)
    if boxes.values is not None:
        for channel, z in np.ndindex(*boxes.shape[:2]):
            check()
            name = _fragment(channel, z)
            boxes.values[channel, z] = pieces.join(held, name, cells, boxes.dtype)
    return boxes


def _join(task: InstanceTask, unit: Unit, out: UnitWriter, batch: int, reading: Reading) -> None:
    arrays = load_arrays(task.plan_path, JOIN_ARRAYS)
    rows = slice(*unit.what["cells"])
    cells = Cells.of(arrays, "border", rows, task.size)
    pieces = Pieces.of(arrays, rows)
    boxes = join_boxes(task, cells, pieces, pieces.held(task.units_path), reading.check)
    reading.lap("join")
    _hand_on(task, boxes, out, batch, reading)


def _hand_on(
    task: InstanceTask, boxes: Boxes, out: UnitWriter, batch: int, reading: Reading
) -> None:
    """Give the cells to the head, batch by batch, and keep what it makes of them."""
    for number, rows in enumerate(boxes.cells.batches(batch)):
        reading.check()
        for name, found in task.head(boxes.take(task, rows)).items():
            out.put(f"{_MADE}{name}.{number}", found)
        reading.lap("head")


def results(held: Any, name: str) -> Iterator[NDArray[Any]]:
    """Yield what a head made of each batch of a unit, in order."""
    number = 0
    while f"{_MADE}{name}.{number}" in held:
        yield held[f"{_MADE}{name}.{number}"]
        number += 1


def made(held: Iterable[str]) -> list[str]:
    """Names of what a head made in a unit."""
    firsts = (name for name in held if name.startswith(_MADE) and name.endswith(".0"))
    return [name.removeprefix(_MADE).removesuffix(".0") for name in firsts]
