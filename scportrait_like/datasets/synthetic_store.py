"""Write a synthetic tissue as a SpatialData store, each tile computed once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt

from scportrait_like import names
from scportrait_like.errors import InputError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.pyramids import chunk_regions
from scportrait_like.run.bounded import bounded_map
from scportrait_like.run.memory import granted_cores

if TYPE_CHECKING:
    from scportrait_like.datasets.synthetic_tissue import Region, Tissue
    from scportrait_like.io.pyramids import RasterWriter

Reader = Callable[[slice, "Region"], npt.NDArray[Any]]

# Channels computed at once: more would only cost memory, a tile's cells are found fast.
_CHANNELS_AT_ONCE: Final = 8


@dataclass(frozen=True)
class _Writing:
    """Where to, and how: what the elements have in common."""

    store: FileHandler
    chunks: tuple[int, int, int]
    multiscale: bool
    pool: ThreadPoolExecutor
    threads: int

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return bounded_map(self.pool, work, items, 2 * self.threads)


def write(
    section: Tissue,
    path: Path,
    chunks: tuple[int, int, int],
    multiscale: bool,
    nuclei: bool,
    threads: int | None,
) -> Path:
    """Write the store; see :meth:`scportrait_like.datasets.Tissue.write_store`."""
    if path.exists():
        raise InputError(f"{path} exists already; choose another folder or remove it.")
    if min(chunks) < 1:
        raise InputError(f"chunks={chunks!r}: expected (c, y, x), each at least 1.")
    threads = threads or granted_cores()
    # Under its name only when complete, with all its elements.
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with ThreadPoolExecutor(threads) as pool:
        writing = _Writing(FileHandler(part), chunks, multiscale, pool, threads)
        _write_image(section, writing)
        _write_mask(section, names.SEG_CYTOSOL, section.read_labels, writing)
        if nuclei:
            _write_mask(section, names.SEG_NUCLEUS, section.read_nuclei, writing)
    writing.store.path.rename(path)
    shutil.rmtree(part)
    return path


def _write_image(section: Tissue, writing: _Writing) -> None:
    def read(channels: slice, region: Region) -> npt.NDArray[Any]:
        return section.read_image(region, list(range(channels.start, channels.stop)))

    with writing.store.raster_writer(
        names.INPUT_IMAGE,
        "images",
        section.shape,
        section.dtype,
        chunks=writing.chunks,
        channel_names=section.channel_names,
        pyramid=writing.multiscale,
    ) as writer:
        together, *edges = writing.chunks
        together *= max(1, _CHANNELS_AT_ONCE // together)
        _fill(writer, read, (together, *edges), writing)


def _write_mask(
    section: Tissue, name: str, read: Callable[[Region], npt.NDArray[Any]], writing: _Writing
) -> None:
    edges = writing.chunks[1:]
    with writing.store.raster_writer(
        name,
        "labels",
        section.shape[1:],
        section.labels_dtype,
        chunks=edges,
        pyramid=writing.multiscale,
    ) as writer:
        _fill(writer, lambda _, region: read(region), edges, writing)


def _fill(writer: RasterWriter, read: Reader, edges: Sequence[int], writing: _Writing) -> None:
    """Compute and write level 0 by regions of whole chunks, then the pyramid from it."""

    def compute(cuts: tuple[tuple[int, int], ...]) -> None:
        *channels, (y0, y1), (x0, x1) = cuts
        chosen = slice(*channels[0]) if channels else slice(0, 1)
        pixels = read(chosen, (y0, y1, x0, x1))
        writer.write(tuple(slice(*cut) for cut in cuts), pixels)

    for _ in writing.map(compute, chunk_regions(writer.plan.shape, edges)):
        pass
    writer.build_pyramid(writing.map)
