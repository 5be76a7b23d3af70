"""Arrays over instances in zarr files of their own: windows chunk by chunk, rows at once.

Workers compress each window to a chunk; here chunks are only put after each other into *shards*,
files of many windows with an index at their end (zarr format 3, codec ``sharding_indexed``). An
array is made in a scratch folder beside its place, and appears there when it is complete.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import ElementExistsError, InputError
from scportrait_like.io.placement import (
    clear_leftovers,
    flush_tree,
    leftovers,
    place_folder,
    scratch_folder,
    write_errors,
)
from scportrait_like.io.zarr_metadata import read_node
from scportrait_like.raster.instance_codec import LEVEL, EncodeHead, channels_together
from scportrait_like.raster.instance_runs import Found, InstanceRun, rows_of
from scportrait_like.raster.instances import results
from scportrait_like.raster.stored import Source, ZarrSource
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.runner import RunReport
from scportrait_like.run.unitfile import UnitReader

if TYPE_CHECKING:
    import dask.array as da

# A shard holds windows of about so many bytes before compression.
SHARD_BYTES: Final = 64 << 20
# So a shard's index marks a chunk that is not there.
_MISSING: Final = np.iinfo(np.uint64).max
_AXES: Final = ("i", "c", "z", "y", "x")


@dataclass(frozen=True)
class Layout:
    """How windows (i, c, z, y, x) of a dtype lie in a zarr array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of what is compressed at once: of one window all channels, or some."""
        return 1, channels_together(self.shape[1:], self.dtype), *self.shape[2:]

    @property
    def in_window(self) -> int:
        """Chunks of a window."""
        return -(-self.shape[1] // self.chunk[1])

    @property
    def shard(self) -> tuple[int, ...]:
        """Shape of what lies in one file."""
        window = self.chunk[1] * self.in_window, *self.shape[2:]
        rows = SHARD_BYTES // (prod(window) * self.dtype.itemsize)
        return max(1, min(rows, self.shape[0])), *window


class ShardWriter:
    """Writes a zarr array of compressed chunks, in any order of its rows.

    Parameters
    ----------
    folder
        A new folder.
    layout
        Of the array.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        self._rows = layout.shard[0]
        count = -(-layout.shape[0] // self._rows)
        # Offset in its file and bytes of each chunk, in zarr's order and type.
        index = np.full((count, self._rows, layout.in_window, 2), _MISSING, "<u8")
        self._index: NDArray[np.uint64] = index
        self._filled = [0] * count

    def add(
        self, rows: NDArray[np.int64], sizes: NDArray[np.int64], streams: Iterable[NDArray[Any]]
    ) -> None:
        """Put the chunks of some windows behind those that are there.

        Parameters
        ----------
        rows : (n,)
            Of the array.
        sizes : (n, chunks of a window)
            Bytes of their chunks.
        streams
            The chunks of some windows after each other (uint8); together those of all.
        """
        windows = _cut(streams, sizes.sum(axis=1).tolist())
        shards = rows // self._rows
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            lengths = sizes[here]
            stops = self._filled[shard] + np.cumsum(lengths).reshape(lengths.shape)
            index = np.stack([stops - lengths, lengths], axis=2)
            self._index[shard, rows[here] % self._rows] = index
            self._filled[shard] = int(stops[-1, -1])
            with self._file(shard).open("ab") as file:
                file.write(b"".join([windows[number] for number in here.tolist()]))

    def close(self) -> None:
        """Write the shards' indexes, then the metadata."""
        for shard, index in enumerate(self._index):
            if self._filled[shard]:
                content = index.tobytes()
                with self._file(shard).open("ab") as file:
                    file.write(content + _crc32c(content).to_bytes(4, "little"))
        _create(self._folder, self._layout)

    def _file(self, shard: int) -> Path:
        path = self._folder / "c" / str(shard) / "0/0/0/0"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _cut(streams: Iterable[NDArray[Any]], lengths: Sequence[int]) -> list[memoryview]:
    """Cut streams into pieces of some lengths, none of which lies in two streams."""
    pieces, left = [], iter(lengths)
    for stream in streams:
        view, start = stream.data, 0
        while start < len(view):
            stop = start + next(left)
            pieces.append(view[start:stop])
            start = stop
    return pieces


def _crc32c(content: bytes) -> int:
    """Checksum by the package that this version of zarr brings."""
    try:
        import google_crc32c
    except ImportError:
        import crc32c

        return int(crc32c.crc32c(content))
    return int(google_crc32c.value(content))


def _create(folder: Path, layout: Layout) -> None:
    """Let zarr write the metadata of an array."""
    import zarr
    from zarr.codecs import BytesCodec, ZstdCodec

    zarr.create_array(
        str(folder),
        shape=layout.shape,
        dtype=layout.dtype,
        chunks=layout.chunk,
        shards=layout.shard,
        filters=[],
        serializer=BytesCodec(endian="little"),
        compressors=[ZstdCodec(level=LEVEL)],
        fill_value=0,
        zarr_format=3,
        chunk_key_encoding={"name": "default", "separator": "/"},
        dimension_names=_AXES,
    )


class _Shards:
    """A sink that writes what `EncodeHead` made."""

    def __init__(self, plan: Plan, writers: dict[str, ShardWriter]) -> None:
        self._plan, self._writers = plan, writers

    def add(self, unit: Unit, result: UnitReader) -> None:
        """Write the windows of one unit."""
        rows = rows_of(self._plan, unit)
        if len(rows):
            for name, writer in self._writers.items():
                sizes = np.concatenate(list(results(result, f"{name}.sizes")))
                writer.add(rows, sizes, results(result, f"{name}.bytes"))
        result.release()

    def flush(self) -> None:
        """Nothing is waited for before the end."""

    def close(self) -> None:
        """Complete the arrays."""
        for writer in self._writers.values():
            writer.close()

    def abort(self) -> None:
        """Nothing is open."""


def write_instances(
    run: InstanceRun,
    found: Found,
    image_path: Path | None,
    mask_path: Path | None,
    overwrite: bool = False,
) -> RunReport:
    """Write windows to zarr arrays, a row a label; files are the same whatever the executor.

    Parameters
    ----------
    run
        What is cut; its head and its size of batches do not count.
    found
        The labels, in the order of the rows.
    image_path
        Folder of the array of the image's windows (i, c, z, y, x), in its dtype; None: none.
    mask_path
        Folder of the array of the mask's windows (i, 1, z, y, x), in its dtype; None: none.
    overwrite
        Whether zarr arrays that are there may be replaced.

    Raises
    ------
    ElementExistsError
        An array is there, and `overwrite` is False.
    InputError
        Something else than a zarr array is there, or what is read.
    DiskFullError
        No space left; what was there is unharmed.
    """
    if run.image is None and image_path is not None:
        raise ValueError("there is no image to write")
    targets = {
        name: path
        for name, path in (("image", image_path), ("mask", mask_path))
        if path is not None
    }
    head = EncodeHead(image=image_path is not None, mask=mask_path is not None)
    run = replace(
        run,
        head=head,
        image=run.image if head.image else None,
        channels=run.channels if head.image else None,
        keep_labels=head.mask,
        batch_size=None,
    )
    kinds = {"mask": (1, run.labels.dtype)}
    if run.image is not None:
        kinds["image"] = (len(run.taken), run.image.dtype)
    for path in targets.values():
        _check_no_source(path, [run.labels, run.image])
    with ExitStack() as stack:
        folders = {
            name: stack.enter_context(_appearing(path, overwrite)) for name, path in targets.items()
        }
        plan = run.plan(found)
        writers = {}
        for name, folder in folders.items():
            n_channels, dtype = kinds[name]
            shape = len(found.ids), n_channels, run.labels.shape[0], run.size, run.size
            writers[name] = ShardWriter(folder, Layout(shape, dtype.newbyteorder("=")))
        return run.go(plan, _Shards(plan, writers))


def write_rows(path: Path, array: NDArray[Any], overwrite: bool = False) -> None:
    """Write an array in memory, such as embeddings (i, d), to a zarr array.

    Parameters
    ----------
    path
        Folder of the zarr array.
    array
        Its first axis is that of the instances.
    overwrite
        Whether a zarr array that is there may be replaced.

    Raises
    ------
    ElementExistsError, InputError, DiskFullError
        See `write_instances`.
    """
    import zarr

    row = max(1, prod(array.shape[1:]) * array.itemsize)
    chunk = max(1, min(len(array), SHARD_BYTES // 8 // row)), *(max(1, n) for n in array.shape[1:])
    with _appearing(path, overwrite) as folder:
        zarr.create_array(str(folder), data=array, chunks=chunk, zarr_format=3)


def lazy_rows(path: Path) -> da.Array:
    """Show a zarr array as dask array, a shard a chunk; those of single windows would be many."""
    import dask.array as da
    import zarr

    array = zarr.open_array(path, mode="r")
    from_zarr: Any = da.from_zarr  # it carries no annotations
    shown: da.Array = from_zarr(array, chunks=array.shards or array.chunks)
    return shown


def check_may_write(path: Path, overwrite: bool) -> None:
    """Refuse what cannot be written, before any work is done.

    Parameters
    ----------
    path
        Folder of a zarr array.
    overwrite
        Whether a zarr array that is there may be replaced.

    Raises
    ------
    ElementExistsError
        An array is there, and `overwrite` is False.
    InputError
        Something else is there, which is never replaced.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    node = read_node(path) if path.is_dir() else None
    if node is None or node["node_type"] != "array":
        kind = "a file" if path.is_file() else f"a {'zarr group' if node else 'folder'}"
        raise InputError(f"{path} is {kind}, not a zarr array, and is not replaced: name another")
    if not overwrite:
        raise ElementExistsError(f"{path} is there already; overwrite=True replaces it.", path=path)


def _check_no_source(path: Path, sources: Iterable[Source | None]) -> None:
    """Refuse to replace what is read, which easily has the name that is the default here."""
    for source in sources:
        behind: Any = source
        while hasattr(behind, "source"):
            behind = behind.source
        if isinstance(behind, ZarrSource) and Path(behind.path).resolve() == path.resolve():
            raise InputError(f"{path} is what is read, and is not replaced: name another")


@contextmanager
def _appearing(path: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder that gets its name when the block ends well."""
    target = path.absolute()
    check_may_write(target, overwrite)
    with write_errors(target), scratch_folder(target) as scratch, _claimed(scratch):
        _clear_abandoned(target)
        new = scratch / target.name
        new.mkdir()
        yield new
        flush_tree(new)
        check_may_write(target, overwrite)  # another call may have been faster
        place_folder(new, target, scratch)


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which its owner's death gives back."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _clear_abandoned(target: Path) -> None:
    """Remove what killed calls left beside a target, unless another call works there."""
    for folder in leftovers(target):
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # it is being written, or nobody can tell
            return
        finally:
            os.close(handle)
    clear_leftovers(target)
