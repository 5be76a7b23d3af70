"""The cell index: what one pass over a mask tells of every label.

It is stored with the project; every step plans from it, and it is the ledger's list of ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.kernels import (
    LabelPartials,
    LabelRuns,
    label_partials,
    merge_in_passing,
    merge_partials,
)
from scportrait_like.raster.sources import Source
from scportrait_like.raster.tiles import Tile, TileGrid, tile_grid
from scportrait_like.run.bounded import bounded_map
from scportrait_like.run.memory import MARGIN, granted_cores, tree_memory

LARGEST_ID: Final = 2**63 - 1


@dataclass(frozen=True)
class CellIndex:
    """One row a label, by ascending id; the background (0) is left out.

    Attributes
    ----------
    ids
        int64.
    area
        Pixels, int64.
    centroid
        Mean pixel coordinates (n, 2) = (y, x), float64.
    box
        Bounding boxes (n, 4) = (y0, x0, y1, x1), half open, int64.
    border
        Whether the label touches the image's border, bool.
    tiles
        How many tiles of the pass the label spans, int32.
    shape
        (y, x) of the mask.
    """

    ids: NDArray[np.int64]
    area: NDArray[np.int64]
    centroid: NDArray[np.float64]
    box: NDArray[np.int64]
    border: NDArray[np.bool_]
    tiles: NDArray[np.int32]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[Any]) -> CellIndex:
        """Return the index of some rows, by position or mask."""
        parts = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "shape"}
        return CellIndex(**parts, shape=self.shape)

    def save(self, file: Any) -> None:
        """Write as parquet, one column a figure; the mask's shape is in the metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            "id": self.ids,
            "area": self.area,
            "y": self.centroid[:, 0],
            "x": self.centroid[:, 1],
            **{name: self.box[:, i] for i, name in enumerate(_BOX)},
            "touches_border": self.border,
            "tiles": self.tiles,
        }
        table = pa.table(columns).replace_schema_metadata({"shape": "{} {}".format(*self.shape)})
        pq.write_table(table, file)

    @classmethod
    def load(cls, path: Path) -> CellIndex:
        """Read what `save` wrote."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        # Neither `pq.read_table` nor `to_numpy`, which import pandas: 60 MB of the memory granted.
        with pq.ParquetFile(path) as file:
            table = file.read()
        shape = table.schema.metadata[b"shape"].decode().split()

        def column(name: str) -> NDArray[Any]:
            found = table.column(name).combine_chunks()
            is_bool = pa.types.is_boolean(found.type)
            values = np.from_dlpack(found.cast(pa.uint8()) if is_bool else found)
            return values.astype(np.bool_) if is_bool else values

        return cls(
            column("id"),
            column("area"),
            np.stack([column("y"), column("x")], axis=1),
            np.stack([column(name) for name in _BOX], axis=1),
            column("touches_border"),
            column("tiles"),
            (int(shape[0]), int(shape[1])),
        )


_BOX: Final = ("y0", "x0", "y1", "x1")


def index_labels(
    labels: NDArray[Any], origin: tuple[int, int], what: str = "the mask"
) -> LabelPartials:
    """Partials of one region's labels.

    Parameters
    ----------
    labels
        (y, x), any integer dtype.
    origin
        (y, x) of the region in the mask.
    what
        Name of the mask, for messages.

    Raises
    ------
    InputError
        A negative id, or one above 2^63 - 1.
    """
    partials = label_partials(labels[None], (0, *origin))
    refuse_ids(partials, what)
    return partials


def refuse_ids(found: LabelPartials | LabelRuns, what: str) -> None:
    """Raise `InputError` if a region holds ids that are none."""
    if found.negative:
        raise InputError(
            f"{what} holds negative ids; ids are whole numbers from 1, and 0 is the background"
        )
    if found.too_large:
        raise InputError(
            f"{what} holds ids above {LARGEST_ID} (2^63 - 1); give the cells other ids"
        )


def merge_index(partials: Iterable[LabelPartials], shape: tuple[int, int]) -> CellIndex:
    """Join the partials of all regions of a mask of a shape (y, x) into its index."""
    merged, tiles = merge_partials(list(partials))
    box = merged.box[:, [1, 2, 4, 5]]
    border = (box[:, :2] == 0).any(axis=1) | (box[:, 2:] == np.asarray(shape)).any(axis=1)
    centroid = merged.sums[:, 1:] / merged.area[:, None]
    return CellIndex(merged.ids, merged.area, centroid, box, border, tiles, shape)


@dataclass(frozen=True)
class IndexTile:
    """The work of one tile of the pass; pickles."""

    labels: Source
    what: str

    def __call__(self, tile: Tile) -> LabelPartials:
        """Read the tile and index it."""
        return index_labels(
            self.labels.read(tile.region), (tile.start[0], tile.start[1]), self.what
        )


def build_index(
    labels: Source,
    what: str = "the mask",
    mapped: Callable[..., Iterable[LabelPartials]] = map,
    grid: TileGrid | None = None,
) -> CellIndex:
    """Index a mask in one pass.

    Parameters
    ----------
    labels
        (y, x), any integer dtype, ids up to 2^63 - 1.
    what
        Name of the mask, for messages.
    mapped
        A function like `map`, for instance an executor's.
    grid
        Tiles to read by; default: aligned to the chunks.

    Returns
    -------
    CellIndex
        Memory grows with the labels that are there, never with the largest id.

    Raises
    ------
    InputError
        Not integers, negative ids, or ids above 2^63 - 1.
    """
    check_labels(labels.dtype, labels.shape, what)
    shape = (labels.shape[0], labels.shape[1])
    if grid is None:
        grid = tile_grid(shape, (labels.chunks[0], labels.chunks[1]))
    return merge_index(mapped(IndexTile(labels, what), grid), shape)


def check_labels(dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> None:
    """Raise `InputError` unless the array can be a mask: 2-D and integers."""
    check_ids_dtype(dtype, what)
    if len(shape) != 2:
        raise InputError(f"{what} has the shape {shape}, but a mask is (y, x)")


def check_ids_dtype(dtype: np.dtype[Any], what: str) -> None:
    """Raise `InputError` unless ids can be of this dtype."""
    if dtype.kind not in "iu":
        raise InputError(
            f"{what} holds {dtype}, but a mask holds whole numbers: the id of each pixel's cell, 0 "
            "for background. Convert it, for instance with .astype('uint32')"
        )


# A tile is held as decoded chunks and as the array of them; what is found in it is small beside.
_COPIES: Final = 3


def index_workers(labels: Source, grid: TileGrid, budget: int) -> int:
    """Tiles of a mask that may be read at once within a budget for the process tree, in bytes."""
    room = int(budget * (1 - MARGIN)) - tree_memory()
    tile_bytes = _COPIES * prod(grid.edges) * labels.dtype.itemsize
    return max(1, min(granted_cores(), room // tile_bytes))


def as_volume(labels: NDArray[Any], start: tuple[int, ...]) -> tuple[NDArray[Any], tuple[int, ...]]:
    """See labels ([z,] y, x) and their corner as (z, y, x)."""
    missing = (3 - labels.ndim) * (0,)
    return labels.reshape((1,) * len(missing) + labels.shape), (*missing, *start)


@dataclass(frozen=True)
class _Look:
    """The first look at a tile's labels; pickles."""

    labels: Source
    background: bool
    what: str

    def __call__(self, tile: Tile) -> LabelPartials:
        volume, start = as_volume(self.labels.read(tile.region), tile.start)
        partials = label_partials(volume, start, background=self.background)
        refuse_ids(partials, self.what)
        return partials


def look_through(
    labels: Source, grid: TileGrid, *, background: bool, what: str, budget: int
) -> LabelPartials:
    """Look through a mask ([z,] y, x) once, in threads: where its labels lie, by ascending id."""
    workers = index_workers(labels, grid, budget)
    with ThreadPoolExecutor(workers) as pool:
        tiles = bounded_map(pool, _Look(labels, background, what), grid, workers)
        return merge_in_passing(tiles)
