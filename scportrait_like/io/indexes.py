"""The cell index of each labels element, stored with the project."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scportrait_like import names
from scportrait_like.filehandler import FileHandler
from scportrait_like.identity import digest, files_identity
from scportrait_like.kernels import LabelPartials
from scportrait_like.raster.index import CellIndex, IndexTile, build_index, index_workers
from scportrait_like.raster.sources import ZarrSource
from scportrait_like.raster.tiles import TileGrid, tile_grid
from scportrait_like.run.bounded import bounded_map
from scportrait_like.run.durable import committed
from scportrait_like.run.memory import memory_budget

logger = logging.getLogger(__name__)


def element_identity(filehandler: FileHandler, name: str) -> str:
    """Identity of an element of the store: its revision, or a hash of its files."""
    return filehandler.revision(name) or files_identity(filehandler.element_path(name))


def index_path(filehandler: FileHandler, name: str) -> Path:
    """Where the index of an element of this identity is stored."""
    identity = digest(element_identity(filehandler, name))
    return filehandler.directory / names.INDEX_DIR / f"{name}-{identity}.parquet"


def labels_index(filehandler: FileHandler, name: str, budget: int | None = None) -> CellIndex:
    """Cell index of a labels element; read where it is stored, else made in one pass and stored.

    The caller holds the project's lock.

    Parameters
    ----------
    filehandler
        Of the project.
    name
        Of the element.
    budget
        Bytes for the process tree; default as in `memory_budget`.
    """
    path = index_path(filehandler, name)
    if path.is_file():
        return CellIndex.load(path)
    source = ZarrSource.open(filehandler.array_path(name))
    grid = tile_grid((source.shape[0], source.shape[1]), (source.chunks[0], source.chunks[1]))
    workers = index_workers(source, grid, budget or memory_budget())
    with ThreadPoolExecutor(workers) as pool:

        def mapped(work: IndexTile, tiles: TileGrid) -> Iterator[LabelPartials]:
            return bounded_map(pool, work, tiles, workers)

        index = build_index(source, name, mapped, grid)
    store_index(filehandler, name, index)
    return index


def store_index(filehandler: FileHandler, name: str, index: CellIndex) -> None:
    """Store the index of an element, and remove those of its predecessors."""
    path = index_path(filehandler, name)
    path.parent.mkdir(exist_ok=True)
    with committed(path) as file:
        index.save(file)
    for old in path.parent.glob(f"{name}-*.parquet"):
        if old != path:
            old.unlink()
    logger.info("%s: %d labels indexed", name, len(index))
