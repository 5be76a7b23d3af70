"""Windows as chunks of a zarr array: the head that compresses them in the workers.

A chunk is one window, with all of its channels or, where these are many bytes, with some of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from scportrait_like.raster.instances import Instances

# Zstandard: on windows that are zero around their cell level 1 is as small as higher ones.
LEVEL: Final = 1
# A chunk has about so many bytes at most: what a reader of one channel decodes in vain.
CHUNK_BYTES: Final = 1 << 20


def channels_together(window: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Channels of a window (c, z, y, x) that one chunk holds; the last chunk may hold fewer."""
    n_channels, *plane = window
    most = max(1, CHUNK_BYTES // (prod(plane) * dtype.itemsize))
    n_chunks = -(-n_channels // most)
    return -(-n_channels // n_chunks)


@dataclass(frozen=True)
class EncodeHead:
    """Compresses windows.

    Of the image it gives ``image.bytes``, the compressed chunks one after the other (uint8), and
    ``image.sizes``, their lengths (n, chunks of a window) int64; of the mask the same as ``mask``.

    Attributes
    ----------
    image, mask
        Whether windows of the image, and of the mask in its own dtype, are wanted.
    """

    image: bool = True
    mask: bool = False

    def __call__(self, instances: Instances) -> Mapping[str, NDArray[Any]]:
        """Make the chunks of a batch."""
        made: dict[str, NDArray[Any]] = {}
        if self.image:
            made |= _encoded("image", instances.images())
        if self.mask:
            made |= _encoded("mask", instances.label_windows())
        return made


def _encoded(name: str, windows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    n, n_channels, *plane = windows.shape
    together = channels_together(windows.shape[1:], windows.dtype)
    n_chunks = -(-n_channels // together)
    if n_chunks * together > n_channels:  # zarr's chunks are all of one shape
        wide = np.zeros((n, n_chunks * together, *plane), windows.dtype)
        wide[:, :n_channels] = windows
        windows = wide
    # numpy's bytes in C order, which are little endian in zarr.
    little = windows.astype(windows.dtype.newbyteorder("<"), copy=False)
    stream, sizes = compressed(little.reshape(n * n_chunks, -1).view(np.uint8))
    return {f"{name}.bytes": stream, f"{name}.sizes": sizes.reshape(n, n_chunks)}


def compressed(chunks: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Compress each row (n, bytes): one stream of all, and n lengths."""
    worst = chunks.shape[1] + chunks.shape[1] // 256 + 64  # as Zstandard's ZSTD_compressBound
    stream: Any = np.empty(len(chunks) * worst, np.uint8)
    sizes = np.empty(len(chunks), np.int64)
    position = 0
    for number, chunk in enumerate(chunks):
        sizes[number] = len(imagecodecs.zstd_encode(chunk, level=LEVEL, out=stream[position:]))
        position += int(sizes[number])
    return stream[:position], sizes
