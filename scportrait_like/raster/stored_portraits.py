"""Pictures of an `.h5sc` file, read back.

h5py does one thing at a time in a process, decoding included. So compressed chunks are fetched
through it, which takes microseconds, and decoded outside.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.errors import IncompleteOutputError, RunError
from scportrait_like.identity import files_identity

_IMAGES: Final = f"obsm/{names.IMAGES_KEY}"
_CHANNEL_NAMES: Final = f"uns/{names.IMAGES_KEY}/channel_names"
_N_MASKS: Final = f"uns/{names.IMAGES_KEY}/n_masks"
_IDS: Final = f"obs/{names.INSTANCE_KEY}"


@dataclass(frozen=True)
class StoredPortraits:
    """The pictures of an `.h5sc` file: small, and it pickles.

    Attributes
    ----------
    path
        Of the file.
    stamp
        Identity of the file: a worker that outlives a replacement must not use the old.
    n_cells, size
        Pictures, and their edge in pixels.
    dtype
        Of the values.
    masks, channels
        Names of the planes: masks first.
    codec
        Name in `_DECODERS`; None: chunks that only HDF5 itself decodes.
    """

    path: str
    stamp: str
    n_cells: int
    size: int
    dtype: np.dtype[Any]
    masks: tuple[str, ...]
    channels: tuple[str, ...]
    codec: str | None

    @classmethod
    def open(cls, path: Path) -> StoredPortraits:
        """Look at a file.

        Raises
        ------
        IncompleteOutputError
            It is cut short, or is no `.h5sc` file.
        """
        stamp = files_identity(path)
        try:
            file = _opened(str(path), stamp)
            images, planes = file[_IMAGES], [name.decode() for name in file[_CHANNEL_NAMES][:]]
            n_masks = int(file[_N_MASKS][()])
            if images.ndim != 4 or images.shape[1] != len(planes) or not 0 <= n_masks < len(planes):
                raise ValueError(f"pictures {images.shape}, planes {', '.join(planes)}")
        except (OSError, KeyError, ValueError) as error:
            raise IncompleteOutputError(
                f"{path} is damaged, or no .h5sc file ({error}); make it anew with "
                "project.extract(overwrite=True)"
            ) from error
        return cls(
            path=str(path),
            stamp=stamp,
            n_cells=images.shape[0],
            size=images.shape[-1],
            dtype=images.dtype,
            masks=tuple(planes[:n_masks]),
            channels=tuple(planes[n_masks:]),
            codec=_codec_of(images),
        )

    def ids(self) -> NDArray[np.int64]:
        """Labels of the cells, (n_cells,), in the order of the rows."""
        found: NDArray[np.int64] = self._file()[_IDS][:].astype(np.int64)
        return found

    def read(self, rows: NDArray[np.int64], planes: Sequence[int]) -> NDArray[Any]:
        """Read some planes of some pictures.

        Parameters
        ----------
        rows
            (n,) of the file, in any order.
        planes
            p positions among masks and channels.

        Returns
        -------
        ndarray
            (n, p, size, size).

        Raises
        ------
        IncompleteOutputError
            The file is damaged there.
        RunError
            It was replaced by another.
        """
        file = self._file()  # held while it is read, whoever opens others
        images = file[_IMAGES]
        out = np.empty((len(rows), len(planes), self.size, self.size), self.dtype)
        try:
            if self.codec is None:
                for number, row in enumerate(rows.tolist()):
                    for place, plane in enumerate(planes):
                        out[number, place] = images[row, plane]
            else:
                _read_chunks(images.id.read_direct_chunk, _DECODERS[self.codec], rows, planes, out)
        except (OSError, RuntimeError, ValueError, zlib.error) as error:
            raise IncompleteOutputError(
                f"{self.path} is damaged ({error}); make it anew with "
                "project.extract(overwrite=True)"
            ) from error
        return out

    def _file(self) -> Any:
        return _opened(self.path, self.stamp)


# Files that this process has open, by path, and of which state and process each is.
_files: dict[str, tuple[tuple[str, int], Any]] = {}
_MOST_OPEN: Final = 4


def _opened(path: str, stamp: str) -> Any:
    """Open a file, once for each of its states and for each process.

    Of a path one state is held: the disk keeps a file that was replaced until it is closed. Whoever
    still reads one that is let go of here has it to the end.

    Raises
    ------
    RunError
        The file is in another state by now.
    """
    import h5py

    state = stamp, os.getpid()
    held, file = _files.get(path, (None, None))
    if held != state:  # no lock, which a fork might take along: at worst two threads open it
        file = h5py.File(path, "r")
        if files_identity(Path(path)) != stamp:
            raise RunError(f"{path} was replaced while it was in use: begin anew what reads it")
        _files.pop(path, None)
        _files[path] = state, file  # the latest at the end
        for other in list(_files)[:-_MOST_OPEN]:
            _files.pop(other, None)
    return file


def _codec_of(images: Any) -> str | None:
    """Name of the decoder of a data set's chunks, or None if it is stored in another way."""
    plain = images.dtype.newbyteorder("=") == images.dtype
    filters = images.id.get_create_plist().get_nfilters()
    if images.chunks != (1, 1, *images.shape[2:]) or not plain or filters > 1:
        return None
    if not filters:
        return "none"
    return images.compression if images.compression in _DECODERS else None


Decoder = Callable[[bytes, NDArray[np.uint8]], Any]


def _lzf(chunk: bytes, out: NDArray[np.uint8]) -> None:
    from imagecodecs import lzf_decode

    if len(lzf_decode(chunk, out=out.data)) != len(out):
        raise ValueError("a chunk is cut short")


def _gzip(chunk: bytes, out: NDArray[np.uint8]) -> None:
    _copy(zlib.decompress(chunk), out)


def _copy(chunk: bytes, out: NDArray[np.uint8]) -> None:
    out[:] = np.frombuffer(chunk, np.uint8)


_DECODERS: Final[dict[str, Decoder]] = {"lzf": _lzf, "gzip": _gzip, "none": _copy}


def _read_chunks(
    fetch: Callable[[tuple[int, int, int, int]], tuple[int, bytes]],
    decode: Decoder,
    rows: NDArray[np.int64],
    planes: Sequence[int],
    out: NDArray[Any],
) -> None:
    """Fetch the chunk of each picture and plane, and decode it into its place."""
    flat = out.reshape(*out.shape[:2], out.shape[2] * out.shape[3]).view(np.uint8)
    for number, row in enumerate(rows.tolist()):
        for place, plane in enumerate(planes):
            raw, chunk = fetch((row, plane, 0, 0))
            # A set bit tells of a filter that was left out: the chunk did not shrink.
            (_copy if raw else decode)(chunk, flat[number, place])
