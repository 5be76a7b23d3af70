"""What the gigapixel and the terapixel store hold, and what an aggregation of them must find.

Since so few of their pixels are distinct (see `big_store`), the sums of all cells follow without
reading the store: `Expected` is the oracle of the measurements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import DATA

IMAGE, LABELS = "image_tiled", "labels_cells"
CHUNK = 2048
DISTINCT = 32


@dataclass(frozen=True)
class BigStore:
    """What a store holds.

    Attributes
    ----------
    name
        Of the store.
    channels, edge
        The image is (channels, edge, edge).
    cells
        How many ids the mask is to have, nearly.
    lattice
        Cells of a chunk: at most this many along y and x.
    radius
        Of a cell, in pixels.
    """

    name: str
    channels: int
    edge: int
    cells: int
    lattice: int
    radius: float

    @property
    def path(self) -> Path:
        return DATA / f"{self.name}.zarr"

    @property
    def pattern_path(self) -> Path:
        return DATA / f"{self.name}.npz"

    @property
    def along(self) -> int:
        """Chunks along y, and along x."""
        return -(-self.edge // CHUNK)

    @property
    def n_chunks(self) -> int:
        """Chunks of the image and of the labels."""
        return (self.channels + 1) * self.along**2

    def array_path(self, element: str) -> Path:
        """The zarr array of the image or of the labels."""
        kind = "images" if element == IMAGE else "labels"
        return self.path / kind / element / "s0"

    def sized(self, channels: int | None, edge: int | None) -> BigStore:
        """The same tissue in another size."""
        if channels is None and edge is None:
            return self
        c, n = channels or self.channels, edge or self.edge
        cells = round(self.cells * (n / self.edge) ** 2)
        return replace(self, name=f"{self.name}-{c}x{n}", channels=c, edge=n, cells=cells)

    def distinct_of(self, channel: Any, row: Any, column: Any) -> Any:
        """Which of the distinct chunks lies at a place; arrays are taken too."""
        return (7 * channel + 3 * row + 5 * column) % DISTINCT


# Cells of a tonsil, one per 44 x 44 pixels, and of a liver, one per 190 x 190 pixels.
GIGAPIXEL = BigStore("gigapixel", 100, 20_000, 206_030, 47, 16.0)
TERAPIXEL = BigStore("terapixel", 100, 100_000, 278_482, 11, 68.0)
STORES = {store.name: store for store in (GIGAPIXEL, TERAPIXEL)}


@dataclass(frozen=True)
class Pattern:
    """The cells of a chunk.

    Attributes
    ----------
    codes
        (CHUNK, CHUNK) int16: which row of `cell` a pixel belongs to, -1 for the background.
    cell
        (n,) the number of the cell, below `per_chunk`.
    dy, dx
        (n,) where its owner lies, in chunks: -1, 0 or 1.
    per_chunk
        Cells that have their centre in a chunk.
    """

    codes: NDArray[np.int16]
    cell: NDArray[np.int64]
    dy: NDArray[np.int64]
    dx: NDArray[np.int64]
    per_chunk: int

    def ids(self, along: int, row: int, column: int) -> NDArray[np.uint32]:
        """The id of each row of `cell` in the chunk at (row, column).

        Owners may lie one chunk outside: cells that are cut by the border of the image.
        """
        owner = (row + self.dy + 1) * (along + 2) + column + self.dx + 1
        return (owner * self.per_chunk + self.cell + 1).astype(np.uint32)

    def save(self, path: Path) -> None:
        np.savez_compressed(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Pattern:
        with np.load(path) as found:
            arrays = {name: found[name] for name in ("codes", "cell", "dy", "dx")}
            return cls(**arrays, per_chunk=int(found["per_chunk"]))


class Expected:
    """What an aggregation of a store must find, from its pattern and its distinct chunks.

    Parameters
    ----------
    store
        Where chunks lie.
    pattern
        Its cells; default: as stored.
    rows
        Only so many rows of pixels, from the top; default: all.
    """

    def __init__(
        self, store: BigStore, pattern: Pattern | None = None, rows: int | None = None
    ) -> None:
        self.store = store
        self.pattern = pattern or Pattern.load(store.pattern_path)
        height = store.edge if rows is None else rows
        n_rows = -(-height // CHUNK)
        # Only chunks of the last row and of the last column are seen in part.
        tall = [CHUNK] * (n_rows - 1) + [height - CHUNK * (n_rows - 1)]
        wide = [CHUNK] * (store.along - 1) + [store.edge - CHUNK * (store.along - 1)]
        self._parts: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for (row, h), (column, w) in product(enumerate(tall), enumerate(wide)):
            self._parts.setdefault((h, w), []).append((row, column))

    def ids_and_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ascending ids without the background, and their pixels."""
        ids, counts = [], []
        for size, places in self._parts.items():
            seen = self._bins(size)
            codes = np.flatnonzero(seen[1:])
            for place in places:
                ids.append(self.pattern.ids(self.store.along, *place)[codes])
                counts.append(seen[1:][codes])
        found, at = np.unique(np.concatenate(ids), return_inverse=True)
        total = np.bincount(at, np.concatenate(counts)).astype(np.int64)
        return found.astype(np.int64), total

    def means(self) -> Iterator[NDArray[np.float64]]:
        """A channel at a time, the mean of every id of `ids_and_counts`."""
        ids, counts = self.ids_and_counts()
        chunks = self._distinct_chunks()
        tables = {
            size: np.stack([self._bins(size, chunk)[1:] for chunk in chunks])
            for size in self._parts
        }
        where, places = [], []
        for size, found in self._parts.items():
            for place in found:
                # An id of a pixel that is not seen is not there; it adds 0 to another.
                at = np.searchsorted(ids, self.pattern.ids(self.store.along, *place))
                where.append(np.minimum(at, len(ids) - 1))
                places.append((size, place))
        flat = np.concatenate(where)
        for channel in range(self.store.channels):
            sums = [tables[size][self.store.distinct_of(channel, *place)] for size, place in places]
            yield np.bincount(flat, np.concatenate(sums), len(ids)) / counts

    def _bins(
        self, size: tuple[int, int], weights: NDArray[Any] | None = None
    ) -> NDArray[np.float64]:
        """Pixels, or the sum of their weights: of the background, then of each code."""
        height, width = size
        codes = self.pattern.codes[:height, :width].reshape(-1).astype(np.int32) + 1
        given = None if weights is None else weights[:height, :width].reshape(-1)
        found = np.bincount(codes, given, len(self.pattern.cell) + 1)
        return found.astype(np.float64)

    def _distinct_chunks(self) -> NDArray[np.uint16]:
        """Read each of them where it lies first; what is nowhere seen of one stays 0."""
        import zarr

        array = zarr.open_array(self.store.array_path(IMAGE), mode="r")
        found = np.zeros((DISTINCT, CHUNK, CHUNK), np.uint16)
        whole: set[int] = set()
        along = range(self.store.along)
        for channel, row, column in product(range(self.store.channels), along, along):
            number = int(self.store.distinct_of(channel, row, column))
            if number in whole:
                continue
            y, x = row * CHUNK, column * CHUNK
            seen = np.asarray(array[channel, y : y + CHUNK, x : x + CHUNK])
            found[number, : seen.shape[0], : seen.shape[1]] = seen
            if seen.shape == (CHUNK, CHUNK):
                whole.add(number)
            if len(whole) == DISTINCT:
                break
        return found
