"""What a tile keeps of its cells while it is read, plane by plane, until windows are made of it.

`Boxes` keeps each cell's box. Where windows overlap so much that these are more than the tile
itself, `Planes` keeps the tile. Values that are too many for memory go through a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import cut_masks, cut_pixels
from scportrait_like.raster.cells import Cells, Pieces
from scportrait_like.raster.instances import Instances
from scportrait_like.raster.reading import Check, Reading
from scportrait_like.raster.sources import Source, phase_of
from scportrait_like.raster.tiles import Tile

Put = Callable[[str, NDArray[Any]], None]

_MASK: Final = "fragment.mask"
_LABELS: Final = "fragment.labels"


class Windows(Protocol):
    """What windows are cut of, and how; see `scportrait_like.raster.instance_task.InstanceTask`."""

    @property
    def labels(self) -> Source:
        """(z, y, x)."""

    @property
    def image(self) -> Source | None:
        """(c, z, y, x), or None."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Positions of the channels, in the order wanted."""

    @property
    def size(self) -> int:
        """Edge of the windows in pixels."""

    @property
    def remove_background(self) -> bool:
        """Whether pixels of others are 0."""

    @property
    def keep_labels(self) -> bool:
        """Whether the mask's own values are wanted too."""

    @property
    def held(self) -> int:
        """Bytes of values that may stay in memory."""


class TilePixels(Protocol):
    """Takes planes of a tile, and gives the pixels of its cells."""

    def cut_labels(self, z: int, plane: NDArray[Any]) -> None:
        """Take what is wanted of a plane of labels (y, x)."""

    def cut(self, channel: int, z: int, plane: NDArray[Any]) -> None:
        """Take what is wanted of a plane of a channel (y, x)."""

    def take(self, windows: Windows, rows: slice) -> Instances:
        """Return some of the cells, their pixels in memory."""


class Values:
    """Planes of numbers (c, z, n), in memory or, above a limit, in a file.

    Parameters
    ----------
    shape
        (c, z, n).
    dtype
        Of the numbers.
    limit
        Bytes that may stay in memory.
    file
        An open file of no name; None: all stays in memory.
    """

    def __init__(
        self, shape: tuple[int, int, int], dtype: np.dtype[Any], limit: int, file: Any = None
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._file = file if prod(shape) * dtype.itemsize > limit else None
        self._array = np.empty(shape, dtype) if self._file is None else None

    def room(self, channel: int, z: int) -> NDArray[Any]:
        """Where a plane (n,) may be written to; `keep` follows."""
        if self._array is not None:
            found: NDArray[Any] = self._array[channel, z]
            return found
        return np.empty(self.shape[2], self.dtype)

    def keep(self, channel: int, z: int, plane: NDArray[Any]) -> None:
        """Keep what was written into a plane's room."""
        if self._file is not None:
            self._file.seek(self._place(channel, z))
            self._file.write(np.ascontiguousarray(plane).data)
            self._file.flush()

    def read(self, channel: int, z: int) -> NDArray[Any]:
        """Return a plane (n,); of one in the file only the pages that are looked at are loaded."""
        if self._array is not None:
            found: NDArray[Any] = self._array[channel, z]
            return found
        if not self.shape[2]:
            return np.empty(0, self.dtype)
        file: Any = self._file
        mapped: Any = np.memmap(file, self.dtype, "r", self._place(channel, z), self.shape[2:])
        return np.asarray(mapped)

    def part(self, here: slice) -> NDArray[Any]:
        """Return some numbers of all planes, (c, z, m)."""
        if self._array is not None:
            return self._array[:, :, here]
        file: Any = self._file
        n_channels, depth, _ = self.shape
        found = np.empty((n_channels, depth, here.stop - here.start), self.dtype)
        for channel, z in np.ndindex(n_channels, depth):
            # Read, not mapped: a mapping for each of many small parts costs far more.
            file.seek(self._place(channel, z) + here.start * self.dtype.itemsize)
            file.readinto(found[channel, z].data)
        return found

    def _place(self, channel: int, z: int) -> int:
        _, depth, n = self.shape
        return (channel * depth + z) * n * self.dtype.itemsize


def _values(windows: Windows, n: int, file: Any) -> Values | None:
    """Room for so many pixels of each plane of the image, or None: there is no image."""
    if windows.image is None:
        return None
    shape = len(windows.channels), windows.labels.shape[0], n
    return Values(shape, windows.image.dtype.newbyteorder("="), windows.held, file)


def _room_of_mask(windows: Windows, n: int, dtype: Any) -> NDArray[Any]:
    return np.empty((windows.labels.shape[0], n), dtype)


@dataclass
class Boxes:
    """The pixels of some cells' boxes.

    Attributes
    ----------
    cells
        Whose they are.
    bits, labels
        As in `Instances`.
    values
        Of the image (c, z, pixels), or None: there is none, or `put` takes them.
    put
        Takes the image's pixels as they come.
    """

    cells: Cells
    bits: NDArray[np.uint8]
    labels: NDArray[Any] | None
    values: Values | None
    put: Put | None = field(default=None, repr=False)

    @classmethod
    def empty(
        cls, windows: Windows, cells: Cells, file: Any = None, put: Put | None = None
    ) -> Boxes:
        """Room for the boxes of some cells."""
        labels = None
        if windows.keep_labels:
            labels = _room_of_mask(windows, cells.pixels, windows.labels.dtype.newbyteorder("="))
        values = _values(windows, cells.pixels, file) if put is None else None
        bits = _room_of_mask(windows, cells.pixels, np.uint8)
        return cls(cells, bits, labels, values, put)

    def cut_labels(self, z: int, plane: NDArray[Any]) -> None:
        """Take the masks, and the labels where they are kept."""
        cells = self.cells
        cut_masks(plane, cells.ids, cells.boxes, cells.offsets, self.bits[z])
        if self.labels is not None:
            cut_pixels(plane, cells.boxes, cells.offsets, self.labels[z])

    def cut(self, channel: int, z: int, plane: NDArray[Any]) -> None:
        """Take the pixels."""
        cells = self.cells
        if self.put is not None:
            room = np.empty(cells.pixels, plane.dtype.newbyteorder("="))
            cut_pixels(plane, cells.boxes, cells.offsets, room)
            self.put(_fragment(channel, z), room)
        elif self.values is not None and len(cells):
            room = self.values.room(channel, z)
            cut_pixels(plane, cells.boxes, cells.offsets, room)
            self.values.keep(channel, z, room)

    def take(self, windows: Windows, rows: slice) -> Instances:
        """Return some of the cells."""
        here = self.cells.flat(rows)
        values = None if self.values is None else self.values.part(here)
        labels = None if self.labels is None else self.labels[:, here]
        cells, bits = self.cells.take(rows), self.bits[:, here]
        return Instances(cells, windows.size, bits, values, labels, windows.remove_background)


@dataclass
class Planes:
    """A whole tile, of which boxes are cut when they are asked for.

    Attributes
    ----------
    cells
        Whose boxes.
    labels
        (z, y, x) of the tile.
    values
        Of the image (c, z, y * x), or None.
    """

    cells: Cells
    labels: NDArray[Any]
    values: Values | None

    @classmethod
    def empty(cls, windows: Windows, cells: Cells, tile: Tile, file: Any = None) -> Planes:
        """Room for a tile."""
        edges = [part.stop - part.start for part in tile.region]
        dtype = windows.labels.dtype.newbyteorder("=")
        labels = np.zeros((windows.labels.shape[0], *edges), dtype)
        return cls(cells, labels, _values(windows, prod(edges), file))

    def cut_labels(self, z: int, plane: NDArray[Any]) -> None:
        """Keep the plane."""
        self.labels[z] = plane

    def cut(self, channel: int, z: int, plane: NDArray[Any]) -> None:
        """Keep the plane."""
        if self.values is not None:
            room = self.values.room(channel, z)
            room[:] = plane.reshape(-1)
            self.values.keep(channel, z, room)

    def take(self, windows: Windows, rows: slice) -> Instances:
        """Cut the boxes of some of the cells."""
        cells = self.cells.take(rows)
        depth, *edges = self.labels.shape
        bits = np.empty((depth, cells.pixels), np.uint8)
        labels = np.empty((depth, cells.pixels), self.labels.dtype) if windows.keep_labels else None
        for z, plane in enumerate(self.labels):
            cut_masks(plane, cells.ids, cells.boxes, cells.offsets, bits[z])
            if labels is not None:
                cut_pixels(plane, cells.boxes, cells.offsets, labels[z])
        values = None
        if self.values is not None:
            n_channels = self.values.shape[0]
            values = np.empty((n_channels, depth, cells.pixels), self.values.dtype)
            for channel, z in np.ndindex(n_channels, depth):
                plane = self.values.read(channel, z).reshape(edges)
                cut_pixels(plane, cells.boxes, cells.offsets, values[channel, z])
        return Instances(cells, windows.size, bits, values, labels, windows.remove_background)


def tile_pixels(windows: Windows, cells: Cells, tile: Tile, file: Any) -> TilePixels:
    """Room for what a tile keeps of its cells: their boxes, or itself if that is less."""
    if cells.pixels > prod(part.stop - part.start for part in tile.region):
        return Planes.empty(windows, cells, tile, file)
    return Boxes.empty(windows, cells, file)


def cut_tile(windows: Windows, tile: Tile, parts: Sequence[TilePixels], reading: Reading) -> None:
    """Read a tile (y, x) once, plane by plane, for several groups of cells."""
    depth = windows.labels.shape[0]
    for low, high in _slabs(depth, windows.labels.chunks[0], phase_of(windows.labels)[0]):
        labels = reading.read(windows.labels, (slice(low, high), *tile.region))
        for z in range(low, high):
            for part in parts:
                part.cut_labels(z, labels[z - low])
        reading.lap("cut")
        del labels
    if windows.image is None:
        return
    # Neighbours first: channels may share chunks.
    order = sorted(range(len(windows.channels)), key=windows.channels.__getitem__)
    channels = [windows.channels[place] for place in order]
    for low, high in _slabs(depth, windows.image.chunks[1], phase_of(windows.image)[1]):
        slab = Tile(tile.index, (low, *tile.start), (high, *tile.stop))
        for number, volume in reading.planes(windows.image, channels, slab):
            for z in range(low, high):
                for part in parts:
                    part.cut(order[number], z, volume[z - low])
            reading.lap("cut")
            del volume  # or it stays while the next one is read


def _slabs(depth: int, step: int, before: int) -> Iterator[tuple[int, int]]:
    """Planes that share chunks, of which the first has lost some."""
    for low in range(-before, depth, step):
        yield max(low, 0), min(low + step, depth)


def leave(boxes: Boxes, put: Put) -> None:
    """Hand on what is kept of a tile's fragments, by the names that `join_boxes` looks for."""
    put(_MASK, boxes.bits)
    if boxes.labels is not None:
        put(_LABELS, boxes.labels)
    if boxes.values is not None:
        for channel, z in np.ndindex(*boxes.values.shape[:2]):
            put(_fragment(channel, z), boxes.values.read(channel, z))


def _fragment(channel: int, z: int) -> str:
    return f"fragment.{channel}.{z}"


def join_boxes(
    windows: Windows, cells: Cells, pieces: Pieces, held: Mapping[int, Any], check: Check
) -> Boxes:
    """Join the boxes of cells from what their tiles left."""
    boxes = Boxes.empty(windows, cells)
    of_mask = [(_MASK, boxes.bits), *([] if boxes.labels is None else [(_LABELS, boxes.labels)])]
    for name, planes in of_mask:
        for z, plane in enumerate(planes):
            plane[:] = pieces.join(held, name, cells, plane.dtype, z)
    if boxes.values is not None:
        for channel, z in np.ndindex(*boxes.values.shape[:2]):
            check()
            name = _fragment(channel, z)
            room = boxes.values.room(channel, z)
            room[:] = pieces.join(held, name, cells, boxes.values.dtype)
            boxes.values.keep(channel, z, room)
    return boxes
