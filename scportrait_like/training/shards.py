"""Shards: instances that lie together, and are read together.

What stands here pickles to little, and opens its files in the process that reads, at the first
read: a worker may be forked or spawned.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import ragged_offsets, warm_up_windows
from scportrait_like.raster.cell_plan import box_pixels, cell_boxes
from scportrait_like.raster.cells import Cells
from scportrait_like.raster.instance_runs import Found, instance_grid
from scportrait_like.raster.reading import Reading
from scportrait_like.raster.sources import Source
from scportrait_like.raster.stored_portraits import StoredPortraits
from scportrait_like.raster.tile_pixels import cut_tile, tile_pixels
from scportrait_like.raster.tiles import Tile, TileGrid

# Rows of a file that are one shard; fewer where the file is small.
SHARD_ROWS: Final = 1024
# So many shards there should be at least, to shuffle them and to share them among workers.
SHARDS: Final = 16
# Pixels of a shard of an image stay in a worker's memory up to so many bytes, above in a file.
SHARD_BYTES: Final = 256 << 20
# Windows that are handed on at once: about this many bytes.
_BLOCK_BYTES: Final = 4 << 20


class Shards(Protocol):
    """Instances 0 to n - 1, in shards."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """Labels of the instances, (n,)."""

    def __len__(self) -> int:
        """Shards; none is empty."""

    def members(self, shard: int) -> NDArray[np.int64]:
        """Instances of a shard."""

    def read(self, members: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """Yield the pixels of some instances of one shard, in this order, a few at a time.

        Each is (some, c, y, x), or (some, c, z, y, x) of volumes.
        """


def _rows_at_once(bytes_each: int) -> int:
    return max(1, _BLOCK_BYTES // bytes_each)


@dataclass(frozen=True)
class PictureShards:
    """Pictures of an `.h5sc` file; a shard is a range of its rows.

    Attributes
    ----------
    pictures
        The file.
    rows, ids
        (n,) rows of the file, ascending, and their labels.
    planes
        Positions of the planes wanted.
    step
        Instances of a shard.
    """

    pictures: StoredPortraits
    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    planes: tuple[int, ...]
    step: int

    @classmethod
    def of(
        cls,
        pictures: StoredPortraits,
        rows: NDArray[np.int64],
        ids: NDArray[np.int64],
        planes: tuple[int, ...],
    ) -> PictureShards:
        """Share out some rows, one or more."""
        return cls(pictures, rows, ids, planes, min(SHARD_ROWS, -(-len(rows) // SHARDS)))

    def __len__(self) -> int:
        return -(-len(self.rows) // self.step)

    def members(self, shard: int) -> NDArray[np.int64]:
        """Instances of a shard."""
        begin = shard * self.step
        return np.arange(begin, min(begin + self.step, len(self.rows)))

    def read(self, members: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """Yield pictures (some, planes, size, size)."""
        itemsize = self.pictures.dtype.itemsize
        some = _rows_at_once(len(self.planes) * self.pictures.size**2 * itemsize)
        for begin in range(0, len(members), some):
            yield self.pictures.read(self.rows[members[begin : begin + some]], self.planes)


@dataclass(frozen=True)
class WindowShards:
    """Windows cut from image and mask; a shard is a tile, and has the cells that begin there.

    It reads the tile and, to the right and below, as far as its cells reach. So chunks at its
    border are decoded for a neighbour too: each chunk up to (1 + 1/k)^2 times in the mean, if a
    tile is k x k of them and windows are smaller than a chunk.

    Attributes
    ----------
    labels
        (z, y, x).
    image
        (c, z, y, x).
    channels
        Positions of the channels, in the order wanted.
    size
        Edge of the windows in pixels.
    remove_background
        Whether pixels of others are 0.
    held
        Bytes of a shard's pixels that may stay in memory; more go through a file.
    ids
        (n,).
    boxes
        (n, 4), the pixels that each needs: see `cell_boxes`.
    corners
        (n, 2) first pixel (y, x) of each window.
    starts, order
        ``order[starts[i]:starts[i + 1]]`` are the instances of shard i.
    """

    labels: Source
    image: Source
    channels: tuple[int, ...]
    size: int
    remove_background: bool
    held: int
    ids: NDArray[np.int64]
    boxes: NDArray[np.int64]
    corners: NDArray[np.int64]
    starts: NDArray[np.int64]
    order: NDArray[np.int64]
    keep_labels: bool = False

    @classmethod
    def of(
        cls,
        found: Found,
        labels: Source,
        image: Source,
        channels: tuple[int, ...],
        size: int,
        remove_background: bool,
    ) -> WindowShards:
        """Share out some labels; kernels are compiled here, before any worker starts."""
        warm_up_windows(labels.dtype, image.dtype)
        whole = np.broadcast_to([0, 0, *labels.shape[1:]], found.boxes.shape)
        boxes = cell_boxes(found.centres, size, [found.boxes if remove_background else whole])
        pixel = labels.shape[0] * len(channels) * image.dtype.itemsize
        grid = _joined(instance_grid(labels, image), int(box_pixels(boxes).sum()) * pixel)
        first = (boxes[:, :2] + np.asarray(grid.phase)) // grid.edges
        owner = first[:, 0] * grid.counts[1] + first[:, 1]
        order = np.argsort(owner, kind="stable")
        starts = np.flatnonzero(np.diff(owner[order], prepend=-1))
        return cls(
            labels=labels,
            image=image,
            channels=channels,
            size=size,
            remove_background=remove_background,
            held=SHARD_BYTES,
            ids=found.ids,
            boxes=boxes,
            corners=found.centres - size // 2,
            starts=np.append(starts, len(order)),
            order=order,
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def members(self, shard: int) -> NDArray[np.int64]:
        """Instances of a shard."""
        return self.order[self.starts[shard] : self.starts[shard + 1]]

    def read(self, members: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """Yield windows (some, c, d, d), or (some, c, z, d, d) where there is more than one z."""
        low = self.boxes[members, :2].min(axis=0)
        high = self.boxes[members, 2:].max(axis=0)
        boxes = self.boxes[members] - np.tile(low, 2)
        cells = Cells(self.ids[members], boxes, self.corners[members] - low, ragged_offsets(boxes))
        area = Tile(0, tuple(low.tolist()), tuple(high.tolist()))
        pixel = self.labels.shape[0] * len(self.channels) * self.image.dtype.itemsize
        with tempfile.TemporaryFile(prefix="instances-") as file:
            kept = tile_pixels(self, cells, area, file)
            cut_tile(self, area, [kept], Reading(_go_on))
            for rows in cells.batches(_rows_at_once(pixel * self.size**2)):
                images = kept.take(self, rows).images()
                yield images[:, :, 0] if images.shape[2] == 1 else images


def _go_on() -> None:
    """Nothing interrupts a worker of a data set."""


def _joined(grid: TileGrid, n_bytes: int) -> TileGrid:
    """Join tiles into larger ones, as long as there are enough of them and each fits in memory.

    The larger a tile, the fewer chunks lie on its border.
    """
    factor = 1
    while True:
        wide = TileGrid(grid.shape, tuple(2 * factor * edge for edge in grid.edges), grid.phase)
        if prod(wide.counts) < SHARDS or n_bytes > SHARD_BYTES * prod(wide.counts):
            break
        factor *= 2
    return TileGrid(grid.shape, tuple(factor * edge for edge in grid.edges), grid.phase)
