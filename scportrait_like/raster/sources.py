"""Sources: arrays that a worker opens by itself and reads region by region.

A source is small and pickles: it says where the pixels are, not what they are. Axes are those of
the array; image (c, y, x), labels (y, x).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Region = tuple[slice, ...]


class Source(Protocol):
    """What is read: its shape, dtype and chunks, and a region of it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Edge lengths in pixels (and channels)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """Edges of what is decoded at once, an axis each."""

    def read(self, region: Region) -> NDArray[Any]:
        """Pixels of a region, slices with plain starts and stops."""


@dataclass(frozen=True)
class ZarrSource:
    """A zarr array on disk.

    Attributes
    ----------
    path
        Folder of the array.
    stamp
        Identity of its metadata file: a worker that outlives a replacement must not use the old.
    shape, dtype, chunks
        As in its metadata.
    """

    path: str
    stamp: tuple[int, int]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    @classmethod
    def open(cls, path: Path | str) -> ZarrSource:
        """Open the array in a folder."""
        stamp = _stamp(str(path))
        array = _open_zarr(str(path), stamp)
        # With shards the inner chunk is what is decoded at once.
        return cls(str(path), stamp, array.shape, np.dtype(array.dtype), array.chunks)

    def read(self, region: Region) -> NDArray[Any]:
        """Decode a region."""
        return np.asarray(_open_zarr(self.path, self.stamp)[region])


def _stamp(path: str) -> tuple[int, int]:
    for name in ("zarr.json", ".zarray"):
        try:
            found = (Path(path) / name).stat()
        except FileNotFoundError:
            continue
        return found.st_ino, found.st_mtime_ns
    raise FileNotFoundError(f"{path} is not a zarr array")


@lru_cache(maxsize=64)
def _open_zarr(path: str, stamp: tuple[int, int]) -> Any:
    import zarr

    return zarr.open_array(path, mode="r")


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
class WindowSource:
    """A part of another source, as an array of its own.

    Attributes
    ----------
    source
        What is read.
    start, shape
        Where the part begins, and its edges.
    drop
        Leading axes of length one that are left out.
    """

    source: Source
    start: tuple[int, ...]
    size: tuple[int, ...]
    drop: int = 0
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", self.size[self.drop :])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.source.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Those of the source; exact where the part begins on a chunk's border."""
        return self.source.chunks[self.drop :]

    def read(self, region: Region) -> NDArray[Any]:
        """Read a region, counted from the part's begin."""
        full = (slice(0, 1),) * self.drop + region
        moved = tuple(
            slice(start + part.start, start + part.stop)
            for start, part in zip(self.start, full, strict=True)
        )
        values = self.source.read(moved)
        return values.reshape(values.shape[self.drop :])


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
        wanted = list(self.positions[region[0]])
        if self.source.chunks[0] == 1:
            planes = [self.source.read((slice(c, c + 1), *region[1:])) for c in wanted]
            return np.concatenate(planes)
        first = min(wanted)
        return self.source.read((slice(first, max(wanted) + 1), *region[1:]))[
            [channel - first for channel in wanted]
        ]


def source_of(array: Any) -> Source:
    """Source of an array-like: numpy, zarr, dask (opened as zarr where it is plainly one), path."""
    if isinstance(array, np.ndarray):
        return ArraySource(array)
    if isinstance(array, (str, os.PathLike)):
        return ZarrSource.open(Path(array))
    if hasattr(array, "store_path"):  # zarr.Array
        folder = _folder_of(array)
        return ZarrSource.open(folder) if folder else ArraySource(np.asarray(array[...]))
    if hasattr(array, "__dask_graph__"):
        return zarr_behind(array) or DaskSource(array)
    return ArraySource(np.asarray(array))


def zarr_behind(array: Any) -> ZarrSource | None:
    """Return the zarr array that a dask array reads as a whole and unchanged, or None."""
    import zarr

    if len(array.dask.layers) > 2:
        return None
    found = [
        value
        for layer in array.dask.layers.values()
        for value in layer.values()
        if isinstance(value, zarr.Array) or isinstance(getattr(value, "value", None), zarr.Array)
    ]
    if len(found) != 1:
        return None
    behind = found[0] if isinstance(found[0], zarr.Array) else found[0].value
    folder = _folder_of(behind)
    if folder is None or behind.shape != array.shape or behind.dtype != array.dtype:
        return None
    return ZarrSource.open(folder)


def _folder_of(array: Any) -> Path | None:
    """Return the local folder of a zarr array, or None: it is in memory or elsewhere."""
    store = array.store_path.store
    root = getattr(store, "root", None)
    if root is None and hasattr(store, "fs"):
        # zarr wraps a local path that came as text; elsewhere a path only looks like one.
        wrapped = getattr(store.fs, "sync_fs", store.fs)
        root = store.path if "file" in wrapped.protocol else None
    return Path(root) / array.store_path.path if root is not None else None
