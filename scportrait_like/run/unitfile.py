"""The file that holds one unit's result: named arrays, and a directory at its end.

It is written in one go, front to back, so a worker streams its batches into it; it is read through
a memory map, so nothing is held. The layout: the arrays' bytes, a JSON directory ``{name: [offset,
dtype, shape]}``, the directory's length (8 bytes, little endian) and a mark of 8 bytes. A file
without its mark is not a result.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import IncompleteOutputError

_MARK: Final = b"SCPLUNIT"


class UnitWriter:
    """Streams named arrays into a unit's file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._position = 0
        self._directory: dict[str, tuple[int, str, tuple[int, ...]]] = {}

    def put(self, name: str, array: NDArray[Any]) -> None:
        """Append one array under a name of its own."""
        if array.ndim == 1:
            self.put_pieces(name, [array])
        else:
            self._enter(name, array.dtype, array.shape)
            self._write(array)

    def put_pieces(self, name: str, pieces: Sequence[NDArray[Any]]) -> None:
        """Append one array that comes in 1-D pieces of one dtype, without joining them first."""
        self._enter(name, pieces[0].dtype, (sum(map(len, pieces)),))
        for piece in pieces:
            self._write(piece)

    def _enter(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        if name in self._directory:
            raise ValueError(f"the unit's file holds {name} already")
        self._directory[name] = (self._position, dtype.str, shape)

    def _write(self, array: NDArray[Any]) -> None:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._position += self._file.write(flat.data)

    def close(self) -> None:
        """Write the directory and the mark."""
        directory = json.dumps(self._directory).encode()
        self._file.write(directory + len(directory).to_bytes(8, "little") + _MARK)


class UnitReader:
    """Named arrays of a unit's file, as read-only views on a memory map.

    Raises
    ------
    IncompleteOutputError
        The file is cut short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        content = self._opened()
        if content[-8:] != _MARK:
            raise IncompleteOutputError(f"{path} is cut short; delete it and run again")
        length = int.from_bytes(content[-16:-8], "little")
        self._directory: dict[str, Any] = json.loads(content[-16 - length : -16])

    def __iter__(self) -> Iterator[str]:
        return iter(self._directory)

    def __contains__(self, name: str) -> bool:
        return name in self._directory

    def __getitem__(self, name: str) -> NDArray[Any]:
        content = self._opened()
        # Pages that were touched count as taken memory, and what was read before is done with; a
        # view that still looks there gets them back from the file.
        if hasattr(mmap, "MADV_DONTNEED"):
            content.madvise(mmap.MADV_DONTNEED)
        offset, dtype, shape = self._directory[name]
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(content, np.dtype(dtype), count, offset).reshape(shape)

    def release(self) -> None:
        """Let go of the map, and of the open file that Python keeps with it.

        Views keep theirs; the next look opens the file again.
        """
        self._map = None

    def _opened(self) -> mmap.mmap:
        if self._map is None:
            with self._path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map
