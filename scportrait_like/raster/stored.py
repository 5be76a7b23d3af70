"""Sources that lie on the disk, and what a source is."""

from __future__ import annotations

import logging
import mmap
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

# Held while zarr's settings are changed.
_choosing = threading.Lock()
# zarrs decodes in threads of its own, which a forked process does not have: it would wait for ever.
_forked = False

Region = tuple[slice, ...]
Index = Sequence[slice | int | None]


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
        """Decode a region, by the package ``zarrs`` where it is installed and can do it."""
        fast = None if _forked else _open_fast(self.path, self.stamp)
        if fast is not None:
            try:
                return np.asarray(fast[region])
            except Exception:  # noqa: BLE001 - zarr decides, and its error is the one to show
                logger.debug("zarrs cannot read %s of %s; zarr does", region, self.path)
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


@lru_cache(maxsize=64)
def _open_fast(path: str, stamp: tuple[int, int]) -> Any:
    """Open an array to be decoded by the package ``zarrs``, or None: there is none, or it cannot.

    The caller's threads read side by side, so each read decodes chunk after chunk.
    """
    if find_spec("zarrs") is None:
        return None
    import zarr

    array = _open_zarr(path, stamp)
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "biuf" or not dtype.isnative:
        return None
    chosen = {
        "codec_pipeline.path": "zarrs.ZarrsCodecPipeline",
        "codec_pipeline.strict": True,
        "codec_pipeline.chunk_concurrent_minimum": 1,
        "codec_pipeline.chunk_concurrent_maximum": 1,
    }
    try:
        # The settings are the process's: two threads that set them at once would leave them set.
        # `threading.max_workers` stays as it is, since zarr may start its own pool meanwhile.
        with _choosing, zarr.config.set(chosen):
            return zarr.Array(zarr.AsyncArray(metadata=array.metadata, store_path=array.store_path))
    except Exception as error:  # noqa: BLE001 - whatever it is, zarr reads the array by itself
        logger.debug("zarrs cannot open %s: %s", path, error)
        return None


def _after_fork() -> None:
    """Leave zarrs alone where the parent may have used it; a data loader forks its workers."""
    global _forked, _choosing
    _forked = _forked or _open_fast.cache_info().currsize > 0
    _choosing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class NpySource:
    """An array that lies in a file as it lies in memory, as in a ``.npy``.

    Attributes
    ----------
    path
        The file; it must stay as it is while it is read.
    shape, dtype
        Of the array.
    offset
        Bytes before its first pixel.
    fortran
        Whether the first axis runs fastest.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    fortran: bool = False

    @classmethod
    def open(cls, path: Path | str) -> NpySource:
        """Read the head of a ``.npy`` file."""
        mapped = np.load(path, mmap_mode="r")
        return cls._of(mapped, path)

    @classmethod
    def behind(cls, array: Any) -> NpySource | None:
        """Source of the file that an `np.memmap` maps as a whole, or None: it is something else."""
        # A part of a mapping has the mapping as its base; mode "c" keeps changes in memory.
        base: Any = getattr(array, "base", None)
        if not isinstance(array, np.memmap) or not isinstance(base, mmap.mmap):
            return None
        if array.mode == "c" or array.filename is None or not Path(array.filename).is_file():
            return None
        array.flush()
        return cls._of(array, array.filename)

    @classmethod
    def _of(cls, mapped: Any, path: Any) -> NpySource:
        fortran = not mapped.flags.c_contiguous
        return cls(os.fspath(path), mapped.shape, mapped.dtype, mapped.offset, fortran)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Pixels are at hand one by one."""
        return (1,) * len(self.shape)

    def read(self, region: Region) -> NDArray[Any]:
        """Copy of a region."""
        # Mapped for this read only: pages that stay mapped would count as taken memory.
        order: Literal["F", "C"] = "F" if self.fortran else "C"
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order)
        return np.array(mapped[region])
