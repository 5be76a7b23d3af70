"""The nearest node of each pixel: what a tile leaves, and what is put together of all tiles.

A tile leaves each pixel's cluster, the sums of each cluster's pixels, and how many pixels of each
cluster lie in each cell. Pixels with two nodes at the same distance are left with their rows: which
of the two it is only the estimator itself can tell, and it is asked where the tiles come together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import Nodes, cell_clusters, cluster_sums, label_runs, nearest_nodes
from scportrait_like.kernels.hashing import row_hashes
from scportrait_like.pixels.stages import PixelTask, Stage
from scportrait_like.pixels.trained_som import TrainedSom
from scportrait_like.raster.index import as_volume, refuse_ids
from scportrait_like.raster.reading import Reading
from scportrait_like.run.blas import one_thread
from scportrait_like.run.plan import Unit
from scportrait_like.run.unitfile import UnitReader, UnitWriter

ASSIGN: Final = "assign"
# Rows that an estimator is asked for at once where it is no map of nearest nodes.
_ASKED: Final = 1 << 16


def cluster_dtype(n_clusters: int) -> np.dtype[Any]:
    """The smallest type of ids from 0 to `n_clusters`."""
    return np.min_scalar_type(n_clusters)


def assignment_stage(trained: TrainedSom | None, totals: bool) -> Stage:
    """The stage that assigns; the map is given, or that of the stage of training."""
    return Stage(ASSIGN, Assign(trained, totals))


@dataclass(frozen=True)
class Assign:
    """Assigns the pixels of a tile.

    Attributes
    ----------
    trained
        None: the run trains one itself.
    totals
        Whether sums of clusters, and clusters in cells, are wanted too.
    """

    trained: TrainedSom | None
    totals: bool

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Leave ``clusters``, ``tie.*``, and of totals ``sums``, ``counts`` and ``cells.*``."""
        from scportrait_like.pixels.som import trained_in

        trained = self.trained or trained_in(task)
        pixels = task.pixels(unit, reading)
        n_clusters = len(trained.codes)
        clusters = np.empty(pixels.shape[1], cluster_dtype(n_clusters))
        if trained.is_euclidean:
            with one_thread():
                ties = nearest_nodes(pixels, Nodes.of(trained.codes), clusters)
        else:
            ties = _ask_all(trained, pixels, clusters, reading)
        reading.lap("assign")
        out.put("clusters", clusters)
        rows, which = _distinct_rows(pixels, ties)
        out.put("tie.pixels", ties)
        out.put("tie.rows", rows)
        out.put("tie.which", which)
        if not self.totals:
            return
        sums, counts = cluster_sums(pixels, clusters, n_clusters)
        out.put("sums", sums)
        out.put("counts", counts)
        del pixels
        reading.lap("sums")
        _count_in_cells(task, unit, clusters, ties, n_clusters, out, reading)


def _distinct_rows(
    pixels: NDArray[Any], ties: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rows of tied pixels (u, c), equal ones once, and which of them each pixel has (t,).

    A background of zeros, which ties where several nodes lie at zero, is one row.
    """
    _, first, which = np.unique(row_hashes(pixels, ties), return_index=True, return_inverse=True)
    rows = pixels[:, ties[first]]
    # Two rows of one hash: once in more runs than there will be.
    if not all(np.array_equal(c[ties], kept[which]) for c, kept in zip(pixels, rows, strict=True)):
        rows, which = pixels[:, ties], np.arange(len(ties))
    return rows.T.astype(np.float64), which


def _ask_all(
    trained: TrainedSom, pixels: NDArray[Any], clusters: NDArray[Any], reading: Reading
) -> NDArray[np.int64]:
    """Ask an estimator of somebody else for each pixel: what it does is its own."""
    for start in range(0, len(clusters), _ASKED):
        reading.check()
        rows = np.ascontiguousarray(pixels[:, start : start + _ASKED].T, np.float64)
        finite = np.isfinite(rows).all(axis=1)
        found = np.zeros(len(rows), clusters.dtype)
        if finite.any():
            found[finite] = trained.predict(rows[finite]) + 1
        clusters[start : start + _ASKED] = found
    return np.zeros(0, np.int64)


def _count_in_cells(
    task: PixelTask,
    unit: Unit,
    clusters: NDArray[Any],
    ties: NDArray[np.int64],
    n_clusters: int,
    out: UnitWriter,
    reading: Reading,
) -> None:
    image, tile = task.place(unit)
    if image.labels is None:
        return
    labels, _ = as_volume(reading.read(image.labels, tile.region), tile.start)
    runs = label_runs(labels)
    refuse_ids(runs, f"the mask of {image.name}")
    ids, which, counts = cell_clusters(runs, clusters, n_clusters)
    out.put("cells.ids", ids)
    out.put("cells.clusters", which)
    out.put("cells.counts", counts)
    out.put("tie.cells", labels.reshape(-1)[ties].astype(np.int64))
    reading.lap("cells")


class Assigned:
    """Puts together what tiles have left; ties are settled by the estimator itself.

    Tiles come in the plan's order, so totals have the same bits in every run; they are those of
    runs that were asked for them.

    Parameters
    ----------
    trained
        The map.

    Attributes
    ----------
    counts
        Pixels of each cluster (k,) int64.
    """

    def __init__(self, trained: TrainedSom) -> None:
        self.trained = trained
        k, c = trained.codes.shape
        self.counts = np.zeros(k, np.int64)
        self._sums = np.zeros((k, c))
        self._lost = np.zeros((k, c))  # what rounding took from the sums
        self._dtype = cluster_dtype(k)
        self._cells: list[tuple[NDArray[Any], ...]] = []

    def take(self, result: UnitReader) -> NDArray[Any]:
        """Take a tile; return its clusters (n,), counted from 1, 0 where a channel is no number."""
        clusters = np.array(result["clusters"])
        if "sums" in result:
            self._add(np.array(result["sums"]), np.array(result["counts"]))
        if "cells.ids" in result:
            self._cells.append(
                (
                    np.array(result["cells.ids"]),
                    result["cells.clusters"].astype(self._dtype),
                    result["cells.counts"].astype(np.uint32),
                )
            )
        ties = np.array(result["tie.pixels"])
        if len(ties):
            rows, of = np.array(result["tie.rows"]), np.array(result["tie.which"])
            nodes = self.trained.predict(rows)
            which = nodes[of]
            clusters[ties] = which + 1
            sums, times = np.zeros_like(self._sums), np.bincount(of, minlength=len(rows))
            np.add.at(sums, nodes, rows * times[:, None])
            self._add(sums, np.bincount(which, minlength=len(self.counts)))
            if "tie.cells" in result:
                cells = np.array(result["tie.cells"])
                inside = cells > 0
                ones = np.ones(int(inside.sum()), np.uint32)
                mine = (which[inside] + 1).astype(self._dtype)
                self._cells.append((cells[inside], mine, ones))
        result.release()
        return clusters

    def _add(self, sums: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        self.counts += counts
        # Kahan: of many tiles each would lose a bit.
        sums = sums - self._lost
        total = self._sums + sums
        self._lost = (total - self._sums) - sums
        self._sums = total

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean of each cluster's pixels in each channel (k, c); NaN where it has none."""
        return mean_of(self._sums, self.counts)

    def merged(self, groups: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Means (g, c) and counts (g,) of groups of clusters; `groups` (k,) counts from 1."""
        n_groups = int(groups.max())
        sums, counts = np.zeros((n_groups, self._sums.shape[1])), np.zeros(n_groups, np.int64)
        np.add.at(sums, groups - 1, self._sums)
        np.add.at(counts, groups - 1, self.counts)
        return mean_of(sums, counts), counts

    def cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Ids of cells, clusters from 1, and pixels (m,): a row for each pair that is there.

        By ascending id, then cluster.
        """
        empty = (np.zeros(0, np.int64), np.zeros(0, self._dtype), np.zeros(0, np.uint32))
        ids, clusters, counts = map(np.concatenate, zip(empty, *self._cells, strict=True))
        self._cells = [(ids, clusters, counts)]
        order = np.lexsort((clusters, ids))
        ids, clusters, counts = ids[order], clusters[order], counts[order]
        new = np.ones(len(ids), np.bool_)
        new[1:] = (ids[1:] != ids[:-1]) | (clusters[1:] != clusters[:-1])
        first = np.flatnonzero(new)
        total = np.add.reduceat(counts, first, dtype=np.int64) if len(first) else counts
        return ids[first], clusters[first].astype(np.int64), total.astype(np.int64)


def mean_of(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums (k, c) over counts (k,); NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts[:, None] > 0, sums / counts[:, None], np.nan)
