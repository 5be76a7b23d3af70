"""Sources: arrays that a worker opens by itself and reads region by region.

A source is small and pickles: it says where the pixels are, not what they are. Axes are those of
the array; image (c, y, x), labels (y, x).
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.raster.stored import Index, NpySource, Region, Source, ZarrSource

__all__ = [
    "ArraySource",
    "DaskSource",
    "Index",
    "NpySource",
    "Region",
    "SelectSource",
    "Source",
    "StackSource",
    "ViewSource",
    "ZarrSource",
    "source_of",
    "spilled",
    "view",
]


@dataclass(frozen=True)
class ArraySource:
    """A numpy array in this process."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Edge lengths."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.array.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Pixels are at hand one by one: chunks of one, that fit any tile."""
        return (1,) * self.array.ndim

    def read(self, region: Region) -> NDArray[Any]:
        """View of a region."""
        return self.array[region]


@dataclass(frozen=True)
class DaskSource:
    """Any dask array: a region is computed from its culled graph.

    Attributes
    ----------
    array
        A `dask.array.Array`.
    """

    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Edge lengths."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        found: np.dtype[Any] = np.dtype(self.array.dtype)
        return found

    @property
    def chunks(self) -> tuple[int, ...]:
        """The largest chunk's edges; exact where chunks are regular."""
        return tuple(max(edges) for edges in self.array.chunks)

    def read(self, region: Region) -> NDArray[Any]:
        """Compute a region in this thread."""
        return np.asarray(self.array[region].compute(scheduler="synchronous"))


@dataclass(frozen=True)
class StackSource:
    """Several sources of (y, x) as one of (c, y, x): a file a channel.

    Attributes
    ----------
    planes
        One source a channel, of equal shapes and dtypes.
    """

    planes: tuple[Source, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, y, x)."""
        return (len(self.planes), *self.planes[0].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype(self.planes[0].dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """One channel, and the largest edges of all planes."""
        edges = np.max([plane.chunks for plane in self.planes], axis=0)
        return (1, *edges.tolist())

    def read(self, region: Region) -> NDArray[Any]:
        """Read a region of each channel."""
        channels, inner = region[0], region[1:]
        return np.stack([plane.read(inner) for plane in self.planes[channels]])


@dataclass(frozen=True)
class ViewSource:
    """A part of another source, as an array of its own; axes may be left out, and new ones added.

    What numpy's basic indexing makes: `view` builds it from such an index.

    Attributes
    ----------
    source
        What is read.
    start, size
        Where the part begins, and its edges, along each axis of `source`.
    axes
        For each axis of the view that of `source`, ascending, or None: a new axis of length one.
        Axes of `source` that are not named are left out; the part has one pixel along them.
    """

    source: Source
    start: tuple[int, ...]
    size: tuple[int, ...]
    axes: tuple[int | None, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Edge lengths."""
        return tuple(1 if axis is None else self.size[axis] for axis in self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.source.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Those of the source, one along new axes.

        Where the part begins inside a chunk all borders are shifted, by `phase`.
        """
        return tuple(1 if axis is None else self.source.chunks[axis] for axis in self.axes)

    @property
    def phase(self) -> tuple[int, ...]:
        """How many pixels of the first chunk lie before the part, along each axis."""
        inner = phase_of(self.source)
        return tuple(
            0 if axis is None else (self.start[axis] + inner[axis]) % self.source.chunks[axis]
            for axis in self.axes
        )

    def read(self, region: Region) -> NDArray[Any]:
        """Read a region, counted from the part's begin."""
        full = [slice(start, start + n) for start, n in zip(self.start, self.size, strict=True)]
        for axis, part in zip(self.axes, region, strict=True):
            if axis is not None:
                full[axis] = slice(self.start[axis] + part.start, self.start[axis] + part.stop)
        values = self.source.read(tuple(full))
        return values.reshape([1 if axis is None else values.shape[axis] for axis in self.axes])

    def part(self, index: Index) -> ViewSource:
        """View of this view."""
        start, size = list(self.start), list(self.size)
        kept: list[int | None] = []
        axes = iter(self.axes)
        for item in index:
            axis = None if item is None else next(axes)
            if axis is None:
                if item is None or isinstance(item, slice):
                    kept.append(None)
                continue
            if isinstance(item, slice):
                begin, end, _ = item.indices(size[axis])
                start[axis], size[axis] = start[axis] + begin, max(0, end - begin)
                kept.append(axis)
            else:
                start[axis], size[axis] = start[axis] + int(item or 0), 1
        return ViewSource(self.source, tuple(start), tuple(size), tuple(kept))


def view(source: Source, *indices: Index) -> Source:
    """Part of a source, by basic indexes that are applied one after the other.

    Parameters
    ----------
    source
        What is read; a view of the whole is this itself.
    indices
        Each one names every axis: a slice of step one, an integer of zero or more, which leaves
        the axis out, or None, which adds one. A slice of an axis that was added takes all of it.
    """
    axes = tuple(range(len(source.shape)))
    whole = ViewSource(source, (0,) * len(axes), source.shape, axes)
    found = whole
    for index in indices:
        found = found.part(index)
    return source if found == whole else found


@dataclass(frozen=True)
class SelectSource:
    """Some channels of a source (c, y, x), in an order of their own.

    Attributes
    ----------
    source
        What is read.
    positions
        Channels of `source`.
    """

    source: Source
    positions: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, y, x)."""
        return (len(self.positions), *self.source.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.source.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """One channel where each has chunks of its own, else all: neighbours may lie anywhere."""
        together = 1 if self.source.chunks[0] == 1 else len(self.positions)
        return (together, *self.source.chunks[1:])

    def read(self, region: Region) -> NDArray[Any]:
        """Read a region of each selected channel."""
        wanted = np.array(self.positions[region[0]], np.int64)
        extents = [part.stop - part.start for part in region[1:]]
        out = np.empty((len(wanted), *extents), self.dtype)
        group = wanted // self.source.chunks[0]
        for one in np.unique(group):  # channels that share chunks, and nothing between them
            places = np.flatnonzero(group == one)
            first, last = wanted[places].min(), wanted[places].max()
            planes = self.source.read((slice(int(first), int(last) + 1), *region[1:]))
            out[places] = planes[wanted[places] - first]
        return out


def phase_of(source: Source) -> tuple[int, ...]:
    """How many pixels of a source's first chunk lie before its begin, along each axis."""
    if isinstance(source, SelectSource):
        return (0, *phase_of(source.source)[1:])
    return source.phase if isinstance(source, ViewSource) else (0,) * len(source.shape)


def source_of(array: Any) -> Source:
    """Source of an array-like: numpy, zarr, dask, or the path of a zarr array.

    A dask array that is plainly a zarr array on the local disk or a numpy array, or a view of one
    by basic indexing, is read without dask.
    """
    if isinstance(array, np.ndarray):
        return ArraySource(array)
    if isinstance(array, (str, os.PathLike)):
        return ZarrSource.open(Path(array))
    if hasattr(array, "store_path"):  # zarr.Array
        folder = _folder_of(array)
        return ZarrSource.open(folder) if folder else _elsewhere(array)
    if hasattr(array, "__dask_graph__"):
        found = _behind(array)
        if found is None:
            _refuse_persisted(array)
        return found or DaskSource(array)
    return ArraySource(np.asarray(array))


def _refuse_persisted(array: Any) -> None:
    """Raise `InputError` if chunks of a dask array lie on a cluster: our workers cannot ask it."""
    if "distributed" not in sys.modules:
        return
    tasks = dict(array.__dask_graph__()).values()
    if any(type(task).__module__.startswith("distributed") for task in tasks):
        raise InputError(
            "a dask array was persisted on a cluster, where its chunks cannot be read one by one: "
            "pass the array as it was before persist(), or store it as zarr"
        )


def _behind(array: Any) -> Source | None:
    """Source of what a dask array is a view of, or None: it computes, or its array is elsewhere."""
    try:
        from scportrait_like.raster.dask_views import stored_view
    except ImportError:  # another dask, whose graphs look different: it reads by itself
        return None
    found = stored_view(array)
    if found is None:
        return None
    stored, indices = found
    if isinstance(stored, np.ndarray):
        return view(ArraySource(stored), *indices)
    folder = _folder_of(stored)
    if folder is None:
        return None
    source = ZarrSource.open(folder)
    if source.shape != stored.shape or source.dtype != stored.dtype:  # replaced meanwhile
        return None
    return view(source, *indices)


def _elsewhere(array: Any) -> Source:
    """Source of a zarr array in memory or on a server: dask asks it region by region."""
    import dask.array as da

    from_zarr: Any = da.from_zarr  # it carries no annotations
    return DaskSource(from_zarr(array))


def _folder_of(array: Any) -> Path | None:
    """Return the local folder of a zarr array, or None: it is in memory or elsewhere."""
    store = array.store_path.store
    root = getattr(store, "root", None)
    if root is None and hasattr(store, "fs"):
        # zarr wraps a local path that came as text; elsewhere a path only looks like one.
        wrapped = getattr(store.fs, "sync_fs", store.fs)
        root = store.path if "file" in wrapped.protocol else None
    return Path(root) / array.store_path.path if root is not None else None


def spilled(source: Source, folder: Path) -> Source:
    """Source whose numpy arrays lie in files, for workers in processes of their own.

    An array in memory would be pickled anew with each unit of work.

    Parameters
    ----------
    source
        Any; sources inside of it (``source``, ``planes``) are looked into.
    folder
        Where the files are made; each array is written once a call. The caller removes it.

    Returns
    -------
    `source` with an `NpySource` for each `ArraySource`; an `np.memmap` of a whole file is read
    from there. Anything else is the same, dask arrays too.

    Raises
    ------
    ValueError
        An array of Python objects.
    """
    found: Source = _spilled(source, folder, {})
    return found


def _spilled(source: Any, folder: Path, written: dict[int, NpySource]) -> Any:
    if isinstance(source, ArraySource):
        key = id(source.array)
        if key not in written:
            written[key] = NpySource.behind(source.array) or _write_npy(source.array, folder)
        return written[key]
    changed: dict[str, Any] = {}
    if hasattr(source, "source"):
        changed["source"] = _spilled(source.source, folder, written)
    if hasattr(source, "planes"):
        changed["planes"] = tuple(_spilled(plane, folder, written) for plane in source.planes)
    return replace(source, **changed) if changed else source


def _write_npy(array: NDArray[Any], folder: Path) -> NpySource:
    descriptor, path = tempfile.mkstemp(".npy", "array-", folder)
    with os.fdopen(descriptor, "wb") as file:
        np.save(file, array, allow_pickle=False)
    return NpySource.open(path)
