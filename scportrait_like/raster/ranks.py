"""Exact quantiles: of labels inside a tile at once, of those that cross tiles from their pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import ragged_rows, value_counts
from scportrait_like.raster.statistics import Floats, Rank, Vectors

Counts = NDArray[np.int64]


class Distinct(NamedTuple):
    """The pixels of a piece of a label: distinct values, ascending, and how many lie below each.

    Attributes
    ----------
    values
        (d,); NaN comes last.
    below
        (d + 1,) int64: pixels smaller than each value, and all.
    """

    values: NDArray[Any]
    below: Counts

    @classmethod
    def of(cls, pixels: NDArray[Any]) -> Distinct:
        """Sort and count pixels."""
        if pixels.dtype.kind in "iu" and pixels.itemsize <= 2:
            counts = value_counts(pixels)
            bits = np.flatnonzero(counts).astype(f"u{pixels.itemsize}")
            counts, values = counts[bits], bits.view(pixels.dtype)
            ascending = np.argsort(values)
            values, counts = values[ascending], counts[ascending]
        else:
            values, counts = np.unique(pixels, return_counts=True)
        return cls(values, np.concatenate([[0], np.cumsum(counts)]))


def neighbours(ranks: Sequence[Rank], count: Counts) -> Counts:
    """Positions, in sorted order, of the two values beside each rank: (k, ranks, 2)."""
    below = np.stack([np.floor(rank.position(count)) for rank in ranks], axis=-1).astype(np.int64)
    return np.stack([below, np.minimum(below + 1, count[:, None] - 1)], axis=-1)


def take_ranks(vectors: Vectors, ranks: Sequence[Rank]) -> Floats:
    """Values beside each rank of k labels.

    Parameters
    ----------
    vectors
        All pixels of each label; labels of about the same size waste no room.
    ranks
        From 0 to 1.

    Returns
    -------
    (k, ranks, 2) float64; NaN where a label has a NaN.
    """
    dtype = vectors.values.dtype
    last = np.nan if dtype.kind == "f" else np.iinfo(dtype).max
    rows = ragged_rows(vectors.values, vectors.offsets, last)
    rows.sort(axis=1)  # NaN sorts last
    count = np.diff(vectors.offsets)
    at = neighbours(ranks, count)
    found = rows[np.arange(len(count))[:, None, None], at].astype(np.float64)
    if dtype.kind == "f":
        found[np.isnan(rows[np.arange(len(count)), count - 1])] = np.nan
    return found


def select_ranks(pieces: Sequence[Distinct], ranks: Sequence[Rank]) -> Floats:
    """Values beside each rank of one label, from its pieces.

    Pieces may be memory maps: few of their pages are looked at.

    Returns
    -------
    (ranks, 2) float64.
    """
    if any(piece.values.dtype.kind == "f" and np.isnan(piece.values[-1]) for piece in pieces):
        return np.full((len(ranks), 2), np.nan)
    values, below = [piece.values for piece in pieces], [piece.below for piece in pieces]
    total = np.array([sum(int(counts[-1]) for counts in below)])
    found = [
        float(_select(values, below, int(position)))
        for position in neighbours(ranks, total).reshape(-1)
    ]
    return np.array(found).reshape(-1, 2)


def _select(values: Sequence[NDArray[Any]], below: Sequence[Counts], position: int) -> Any:
    """Value at a position of the sorted union: each look leaves at most three quarters of it."""
    low = np.zeros(len(values), np.int64)
    high = np.array([len(part) for part in values])
    while True:
        open_parts = np.flatnonzero(high > low)
        middle = np.array([values[i][(low[i] + high[i]) // 2] for i in open_parts.tolist()])
        order = np.argsort(middle, kind="stable")
        weight = np.cumsum((high - low)[open_parts][order])
        pivot = middle[order[np.searchsorted(weight, weight[-1] / 2)]]
        left = np.array([np.searchsorted(part, pivot, "left") for part in values])
        right = np.array([np.searchsorted(part, pivot, "right") for part in values])
        if position < sum(int(counts[i]) for counts, i in zip(below, left, strict=True)):
            high = np.minimum(high, left)
        elif position >= sum(int(counts[i]) for counts, i in zip(below, right, strict=True)):
            low = np.maximum(low, right)
        else:
            return pivot


def padded_batches(area: Counts, pixels: int) -> Iterator[slice]:
    """Cut labels, by ascending area, into batches that take at most so many pixels as rows.

    All rows are as long as the longest, which is a batch's last one.
    """
    start = 0
    while start < len(area):
        some = area[start : start + pixels]
        taken = some * np.arange(1, len(some) + 1)
        stop = start + max(1, int(np.searchsorted(taken, pixels, "right")))
        yield slice(start, stop)
        start = stop


def batches(area: Counts, pixels: int) -> Iterator[slice]:
    """Cut labels, in their order, into batches of at most so many pixels (one label at least)."""
    ends = np.cumsum(area)
    start = 0
    while start < len(area):
        reach = ends[start] - area[start] + pixels
        stop = max(start + 1, int(np.searchsorted(ends, reach, "right")))
        yield slice(start, stop)
        start = stop
