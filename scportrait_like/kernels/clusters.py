"""What clusters of pixels hold: sums of channels, and how many pixels of each lie in a cell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, frozen
from ._jit import jit
from .runs import LabelRuns

Float64 = npt.NDArray[np.float64]

_LANES = 4  # neighbours mostly have one cluster: sums that take turns need not wait for each other


@jit
def _cluster_sums(pixels: Array, clusters: Array, lanes: Float64, sums: Float64) -> None:
    n_clusters = sums.shape[0]
    for channel in range(pixels.shape[0]):
        row = pixels[channel]
        lanes[:] = 0
        whole = clusters.size // _LANES * _LANES
        for i in range(0, whole, _LANES):
            for lane in range(_LANES):
                lanes[lane, clusters[i + lane]] += np.float64(row[i + lane])
        for i in range(whole, clusters.size):
            lanes[0, clusters[i]] += np.float64(row[i])
        for cluster in range(n_clusters):
            for lane in range(_LANES):
                sums[cluster, channel] += lanes[lane, cluster + 1]


def cluster_sums(pixels: Array, clusters: Array, n_clusters: int) -> tuple[Float64, Int64]:
    """Sum the pixels of each cluster in each channel, and count them.

    Parameters
    ----------
    pixels : (c, n), any real dtype
    clusters : (n,), unsigned
        From 1 to ``n_clusters``; pixels of 0 are left out.

    Returns
    -------
    Sums (k, c) float64, of integers exact up to 2**53; and counts (k,) int64.
    """
    values = frozen(pixels, pixels.dtype.newbyteorder("="))
    which = frozen(clusters, clusters.dtype)
    if which.shape != values.shape[1:] or (which.size and int(which.max()) > n_clusters):
        raise ValueError(f"{which.shape} clusters do not fit {values.shape} pixels")
    sums = np.zeros((n_clusters, len(values)))
    _cluster_sums(values, which, np.empty((_LANES, n_clusters + 1)), sums)
    return sums, np.bincount(which, minlength=n_clusters + 1)[1:]


@jit
def _cell_clusters(
    offsets: Int64,
    starts: Int64,
    lengths: Int64,
    clusters: Array,
    tally: Int64,
    cells: Int64,
    which: Int64,
    counts: Int64,
) -> int:
    found = 0
    for cell in range(offsets.size - 1):
        first = found
        for run in range(offsets[cell], offsets[cell + 1]):
            for i in range(starts[run], starts[run] + lengths[run]):
                cluster = clusters[i]
                if cluster == 0:
                    continue
                if tally[cluster] == 0:
                    cells[found] = cell
                    which[found] = cluster
                    found += 1
                tally[cluster] += 1
        for place in range(first, found):
            counts[place] = tally[which[place]]
            tally[which[place]] = 0
    return found


def cell_clusters(runs: LabelRuns, clusters: Array, n_clusters: int) -> tuple[Int64, Int64, Int64]:
    """Count the pixels of each cluster in each cell.

    Parameters
    ----------
    runs
        Of the cells of a tile.
    clusters : (n,), unsigned
        Of the tile's pixels in row-major order, from 1 to ``n_clusters``; 0 is left out.

    Returns
    -------
    Ids of cells, clusters, and counts, (m,) int64 each: one for each pair that is there, cell by
    cell.
    """
    room = int(np.minimum(runs.area, n_clusters).sum())
    cells, which, counts = np.empty((3, room), np.int64)
    found = _cell_clusters(
        runs.offsets,
        runs.starts,
        runs.lengths,
        frozen(clusters, clusters.dtype),
        np.zeros(n_clusters + 1, np.int64),
        cells,
        which,
        counts,
    )
    return runs.ids[cells[:found]], which[:found], counts[:found]
