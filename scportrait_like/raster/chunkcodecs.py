"""Codecs of `.h5sc` chunks: the bytes that an HDF5 filter would have made.

A registry; each codec takes pictures and gives one stream of chunks and their sizes. A size of 0
means that the chunk did not shrink and stands raw in the stream (HDF5's filter mask 1).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import lzf_encode
from scportrait_like.kernels.pack import pack

Stream = tuple[NDArray[np.uint8], NDArray[np.int32]]

# h5py's own default for compression="gzip"
GZIP_LEVEL: Final = 4


class ChunkCodec(Protocol):
    """Compresses pictures as the HDF5 filter of the same name would."""

    @property
    def h5py_filter(self) -> dict[str, Any]:
        """Keywords of `h5py.Group.create_dataset` for data sets with such chunks."""

    def encode(self, pictures: NDArray[np.uint16]) -> Stream:
        """Compress each of (n, size, size) float16 bit patterns."""


@dataclass(frozen=True)
class Lzf:
    """LZF, by our own encoder; any LZF decoder reads it."""

    @property
    def h5py_filter(self) -> dict[str, Any]:
        """As h5py names it."""
        return {"compression": "lzf"}

    def encode(self, pictures: NDArray[np.uint16]) -> Stream:
        """Compress each picture."""
        planes = np.ascontiguousarray(pictures).reshape(len(pictures), -1).view(np.uint8)
        encoded = np.empty_like(planes)
        sizes = np.empty(len(planes), np.int64)
        lzf_encode(planes, encoded, sizes)
        return pack(planes, encoded, sizes), sizes.astype(np.int32)


@dataclass(frozen=True)
class Gzip:
    """DEFLATE by zlib."""

    level: int = GZIP_LEVEL

    @property
    def h5py_filter(self) -> dict[str, Any]:
        """As h5py names it."""
        return {"compression": "gzip", "compression_opts": self.level}

    def encode(self, pictures: NDArray[np.uint16]) -> Stream:
        """Compress each picture."""
        raws = [picture.tobytes() for picture in pictures]
        packed = [zlib.compress(raw, self.level) for raw in raws]
        kept = [
            zipped if len(zipped) < len(raw) else raw
            for zipped, raw in zip(packed, raws, strict=True)
        ]
        sizes = [len(z) if len(z) < len(raw) else 0 for z, raw in zip(packed, raws, strict=True)]
        return np.frombuffer(b"".join(kept), np.uint8), np.array(sizes, np.int32)


@dataclass(frozen=True)
class Raw:
    """No compression."""

    @property
    def h5py_filter(self) -> dict[str, Any]:
        """No filter."""
        return {}

    def encode(self, pictures: NDArray[np.uint16]) -> Stream:
        """Pass the bytes on."""
        stream = np.ascontiguousarray(pictures).reshape(-1).view(np.uint8).copy()
        return stream, np.zeros(len(pictures), np.int32)


CODECS: Final[dict[str, ChunkCodec]] = {"lzf": Lzf(), "gzip": Gzip(), "none": Raw()}
