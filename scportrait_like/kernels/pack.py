"""Pack compressed planes one behind the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._jit import jit

Bytes = npt.NDArray[np.uint8]


@jit
def _pack(planes: Bytes, encoded: Bytes, sizes: npt.NDArray[np.int64], out: Bytes) -> None:
    start = 0
    for i in range(planes.shape[0]):
        size = sizes[i]
        if size == 0:
            size = planes.shape[1]
            out[start : start + size] = planes[i]
        else:
            out[start : start + size] = encoded[i, :size]
        start += size


def pack(planes: Bytes, encoded: Bytes, sizes: npt.NDArray[np.int64]) -> Bytes:
    """Join the streams of `lzf_encode` into one.

    Parameters
    ----------
    planes : (n, nbytes) uint8
        The raw planes, taken where the size is 0.
    encoded : (n, nbytes) uint8
        The streams, each at the begin of its row.
    sizes : (n,) int64
        Their lengths; 0 where the plane did not shrink.

    Returns
    -------
    ndarray
        (sum of lengths,) uint8.
    """
    out = np.empty(int(np.where(sizes == 0, planes.shape[1], sizes).sum()), np.uint8)
    _pack(planes, encoded, sizes, out)
    return out
