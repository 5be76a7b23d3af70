"""Identity of inputs: what tells whether the same pixels are meant.

For what this package wrote it is the revision id in the element's attributes; for anything else a
hash of the metadata and of (path, size, mtime) of each file, which reads no pixel.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest(*parts: Any) -> str:
    """Hash of JSON-able parts, 32 hex digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def files_identity(path: Path) -> str:
    """Identity of a file, or of all files of a folder, by path, size and mtime.

    Metadata files count by their content too: a rewrite within the clock's grain is seen.
    """
    if path.is_file():
        return digest("file", str(path.resolve()), *_stat(path))
    entries = []
    for folder, _, files in os.walk(path):
        for name in files:
            file = Path(folder) / name
            entry: list[Any] = [str(file.relative_to(path)), *_stat(file)]
            if name in ("zarr.json", ".zarray", ".zattrs"):
                entry.append(file.read_text())
            entries.append(entry)
    return digest("folder", str(path.resolve()), sorted(entries))


def _stat(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def array_identity(array: NDArray[Any]) -> str:
    """Identity of an array: its shape, dtype and pixels, in whatever order they lie in memory."""
    native = array.dtype.newbyteorder("=")
    hasher = hashlib.blake2b(repr((array.shape, native.str)).encode(), digest_size=16)
    for plane in np.atleast_2d(array):
        hasher.update(np.ascontiguousarray(plane, native).reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()
