"""Copying a source into the project's store, chunk by chunk, within the memory budget."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from scportrait_like import names
from scportrait_like.errors import InputError, MemoryBudgetError
from scportrait_like.filehandler import FileHandler
from scportrait_like.identity import digest
from scportrait_like.io.pyramids import write_region
from scportrait_like.kernels.index import LabelPartials
from scportrait_like.raster.index import CellIndex, index_labels, merge_index
from scportrait_like.raster.sources import DaskSource, Region, Source, ViewSource, ZarrSource
from scportrait_like.raster.tiles import Tile
from scportrait_like.run.bounded import bounded_map
from scportrait_like.run.memory import MARGIN, MB, granted_cores, tree_memory, tune_allocator
from scportrait_like.run.progress import Progress

logger = logging.getLogger(__name__)

_SMALLEST_CHUNK: Final = 256
# A region is held as decoded chunks, as the array of them, and as the array that is encoded.
_COPIES: Final = 3
_RETILE: Final = (
    "write it in tiles first, for instance: vips tiffsave IN.tif OUT.tif --tile --tile-width 1024 "
    "--tile-height 1024 --compression deflate --bigtiff"
)


@dataclass(frozen=True)
class RasterInput:
    """An image or a mask that is to be loaded.

    Attributes
    ----------
    source
        Image (c, y, x) or mask (y, x).
    identity
        Tells whether the same pixels are meant (`scportrait_like.identity`).
    channel_names
        Of an image.
    transforms
        A spatialdata transformation for each coordinate system; None: pixels in ``global``.
    what
        Where it comes from, for messages and the log.
    """

    source: Source
    identity: str
    what: str
    channel_names: tuple[str, ...] = ()
    transforms: Mapping[str, Any] | None = None

    @property
    def is_image(self) -> bool:
        """Whether it has channels."""
        return len(self.source.shape) == 3

    @property
    def frame(self) -> str:
        """Hash of what stands around the pixels: names of channels, and coordinate systems."""
        systems = {name: repr(transform) for name, transform in (self.transforms or {}).items()}
        return digest(self.channel_names, systems)

    @property
    def revision(self) -> str:
        """Revision id of the element that it becomes."""
        return digest("raster", 1, self.identity, self.frame)


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type in this machine's byte order; zarr knows only one of C's two names of 64 bits."""
    return np.dtype(dtype.str).newbyteorder("=")


def _read(source: Source, region: Region) -> np.ndarray[Any, Any]:
    return np.asarray(source.read(region), _native(source.dtype))


@dataclass(frozen=True)
class _CopyRegion:
    """Reads one region and writes it into level 0; indexes labels on the way.

    Attributes
    ----------
    lock
        Where regions share chunks of the target, so that only one thread writes at a time.
    """

    source: Source
    target: str
    what: str
    lock: Any

    def __call__(self, part: _Part) -> LabelPartials | None:
        tile, channels = part
        region = tile.region if channels is None else (channels, *tile.region)
        pixels = _read(self.source, region)
        with self.lock:
            write_region(self.target, region, pixels)
        if channels is None:
            return index_labels(pixels, (tile.start[0], tile.start[1]), self.what)
        return None


@dataclass(frozen=True)
class _CompareRegion:
    """Tells whether two sources hold the same pixels in a region."""

    first: Source
    second: Source

    def __call__(self, part: _Part) -> bool:
        tile, channels = part
        region = tile.region if channels is None else (channels, *tile.region)
        ours, theirs = _read(self.first, region), _read(self.second, region)
        return np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f")


_Part = tuple[Tile, slice | None]


def store_chunk(length: int, source_edge: int, largest: int = names.CHUNK) -> int:
    """Chunk edge to write, such that source chunks and written chunks share borders.

    A small source edge is multiplied up to `largest`; a large one is divided where it can be; one
    that spans the axis puts no condition.
    """
    if source_edge >= length:
        return min(length, largest)
    if source_edge <= largest:
        return source_edge * (largest // source_edge)
    for divisor in range(-(-source_edge // largest), source_edge // _SMALLEST_CHUNK + 1):
        if source_edge % divisor == 0:
            return source_edge // divisor
    return source_edge


def copy_raster(
    filehandler: FileHandler, name: str, given: RasterInput, budget: int, overwrite: bool
) -> CellIndex | None:
    """Write an input as an element of the store, with its pyramid.

    Parameters
    ----------
    filehandler
        Of the project; the caller holds its lock.
    name
        Of the element.
    given
        What to copy: an image, or labels that `check_labels` has passed.
    budget
        Bytes for the process tree.
    overwrite
        Whether an element of that name may be replaced.

    Returns
    -------
    CellIndex or None
        Of a mask, made in the same pass.

    Raises
    ------
    InputError
        A mask with ids that are none, or without any; a source whose chunks alone are larger than
        the budget.
    MemoryBudgetError
        The budget is taken already.
    """
    source = given.source
    plan = _plan_copy(source, given.what, budget)
    logger.info(
        "%s: copying %s %s from %s in %d regions of at most %d MB, %d at once",
        name,
        source.shape,
        source.dtype,
        given.what,
        len(plan.parts),
        plan.unit_bytes // MB,
        plan.workers,
    )
    with (
        filehandler.raster_writer(
            name,
            "images" if given.is_image else "labels",
            source.shape,
            _native(source.dtype),
            chunks=plan.chunks,
            channel_names=given.channel_names or None,
            transforms=given.transforms,
            attributes={
                names.REVISION: given.revision,
                "source": given.what,
                "frame": given.frame,
            },
            overwrite=overwrite,
        ) as writer,
        ThreadPoolExecutor(plan.workers) as pool,
    ):
        lock = nullcontext() if plan.aligned else threading.Lock()
        work = _CopyRegion(source, str(writer.levels[0]), given.what, lock)
        found = []
        with Progress(len(plan.parts), part="region") as progress:
            for partials in bounded_map(pool, work, plan.parts, plan.workers):
                progress.step()
                if partials is not None:
                    found.append(partials)
        index = None
        if not given.is_image:
            index = merge_index(found, (source.shape[0], source.shape[1]))
            if len(index) == 0:
                raise InputError(f"mask {given.what} is empty: it holds no label above 0")
        writer.build_pyramid(lambda work, items: bounded_map(pool, work, items, plan.workers))
    return index


def same_pixels(path: Path, given: RasterInput, budget: int) -> bool:
    """Whether an input holds what the zarr array at `path` holds; read until they differ."""
    there, source = ZarrSource.open(path), given.source
    if there.shape != source.shape or there.dtype != _native(source.dtype):
        return False
    plan = _plan_copy(source, given.what, budget)
    with ThreadPoolExecutor(plan.workers) as pool:
        return all(bounded_map(pool, _CompareRegion(source, there), plan.parts, plan.workers))


@dataclass(frozen=True)
class _CopyPlan:
    """How to copy: regions, the chunks to write, and what may be under way at once.

    Attributes
    ----------
    aligned
        No two regions share a chunk that is written.
    """

    parts: list[_Part]
    chunks: tuple[int, ...]
    aligned: bool
    unit_bytes: int
    workers: int


def _plan_copy(source: Source, what: str, budget: int) -> _CopyPlan:
    room = int(budget * (1 - MARGIN)) - tree_memory()
    lengths = (source.shape[-2], source.shape[-1])
    together = min(source.chunks[0], source.shape[0]) if len(source.shape) == 3 else 1
    pixel = _COPIES * together * source.dtype.itemsize
    borders = [_borders(source, axis) for axis in (-2, -1)]
    aligned = all(map(_is_regular, borders))
    if aligned:
        chunks, cuts = _aligned(lengths, source.chunks[-2:], room // 4 // pixel)
    else:
        chunks = (min(lengths[0], names.CHUNK), min(lengths[1], names.CHUNK))
        cuts = [_joined(border, names.CHUNK) for border in borders]
    unit_bytes = pixel * prod(max(b - a for a, b in _pairs(cut)) for cut in cuts)
    if unit_bytes > room:
        raise _too_large(source, what, unit_bytes, budget, room)
    workers = max(1, min(granted_cores(), room // unit_bytes))
    if 2 * workers * unit_bytes > room:
        tune_allocator()
    areas = [(y, x) for y in _pairs(cuts[0]) for x in _pairs(cuts[1])]
    tiles = [Tile(n, (y[0], x[0]), (y[1], x[1])) for n, (y, x) in enumerate(areas)]
    if len(source.shape) == 2:
        return _CopyPlan([(tile, None) for tile in tiles], chunks, aligned, unit_bytes, workers)
    exact = isinstance(source, DaskSource)
    channels = _borders(source, 0) if exact else _regular(source.shape[0], together)
    groups = [slice(*pair) for pair in _pairs(channels)]
    parts: list[_Part] = [(tile, group) for tile in tiles for group in groups]
    return _CopyPlan(parts, (1, *chunks), aligned, unit_bytes, workers)


def _aligned(
    lengths: Sequence[int], edges: Sequence[int], pixels: int
) -> tuple[tuple[int, int], list[list[int]]]:
    """Chunks that share borders with the source's, and the cuts of regions of whole chunks.

    Strips and whole planes make wide regions: shorter chunks keep them below `pixels`.
    """
    chunks = [store_chunk(n, e) for n, e in zip(lengths, edges, strict=True)]
    while True:
        regions = [min(n, max(c, e)) for n, c, e in zip(lengths, chunks, edges, strict=True)]
        shorter = chunks[0] // 2 // edges[0] * edges[0]
        if prod(regions) <= pixels or shorter < _SMALLEST_CHUNK:
            break
        chunks[0] = shorter
    cuts = [_regular(n, region) for n, region in zip(lengths, regions, strict=True)]
    return (chunks[0], chunks[1]), cuts


def _regular(length: int, step: int) -> list[int]:
    return [*range(0, length, step), length]


def _pairs(cuts: Sequence[int]) -> list[tuple[int, int]]:
    return list(pairwise(cuts))


def _borders(source: Source, axis: int) -> list[int]:
    """Where the chunks of a source begin along an axis, and its end."""
    if isinstance(source, DaskSource):
        return [0, *np.cumsum(source.array.chunks[axis]).tolist()]
    if isinstance(source, ViewSource):
        behind = source.axes[axis]
        if behind is None:
            return [0, 1]
        start, size = source.start[behind], source.size[behind]
        inner = [border - start for border in _borders(source.source, behind)]
        return [0, *(border for border in inner if 0 < border < size), size]
    inner_source = getattr(source, "source", None)
    if inner_source is not None and inner_source.shape[axis] == source.shape[axis]:
        return _borders(inner_source, axis)
    return _regular(source.shape[axis], source.chunks[axis])


def _is_regular(borders: Sequence[int]) -> bool:
    sizes = np.diff(borders)
    return bool((sizes[:-1] == sizes[0]).all() and sizes[-1] <= sizes[0])


def _joined(borders: Sequence[int], largest: int) -> list[int]:
    """Join neighbouring chunks while they stay within `largest` pixels."""
    cuts = [borders[0]]
    for border, following in _pairs(borders)[1:]:
        if following - cuts[-1] > largest:
            cuts.append(border)
    return [*cuts, borders[-1]]


def _too_large(source: Source, what: str, needed: int, budget: int, room: int) -> Exception:
    if needed > _COPIES * names.CHUNK**2 * source.dtype.itemsize:
        advice = _RETILE if not isinstance(source, DaskSource) else "give it smaller chunks"
        return InputError(
            f"{what}: its chunks of {source.chunks} {source.dtype} are decoded as a whole, which "
            f"takes {needed // MB} MB, but {max(0, room) // MB} MB of the {budget // MB} MB "
            f"granted are free. Grant more memory_limit, or {advice}"
        )
    return MemoryBudgetError(
        f"{what}: a region takes {needed // MB} MB, but of the {budget // MB} MB granted only "
        f"{max(0, room) // MB} MB are free, since the process itself takes the rest. Grant more "
        "memory_limit"
    )
