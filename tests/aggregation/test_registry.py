"""A new statistic is one entry of the registry, with a measure of its own or without."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import dask.array as da
import numpy as np
import pytest
from scipy import stats

from scportrait_like.raster.statistics import (
    EXTREMES,
    STATISTICS,
    SUMS,
    Measure,
    Parts,
    Statistic,
    Vectors,
)
from scportrait_like.utils import RasterAggregator

from .cases import as_dask
from .oracle import Array

pytestmark = pytest.mark.usefixtures("small_tiles")


def ranges(parts: Parts) -> Array:
    return parts[EXTREMES][..., 1] - parts[EXTREMES][..., 0]


def take_squares(vectors: Vectors) -> Array:
    return np.add.reduceat(vectors.floats**2, vectors.offsets[:-1])[:, None]


def take_above(vectors: Vectors) -> Array:
    return np.add.reduceat((vectors.values > 500).astype(float), vectors.offsets[:-1])[:, None]


def added(a: Array, b: Array, *_: Array) -> Array:
    return a + b


def share_above(parts: Parts) -> Array:
    return parts[ABOVE][..., 0] / parts.count


def take_first_and_last(vectors: Vectors) -> Array:
    ends = vectors.offsets[:-1], vectors.offsets[1:] - 1
    return np.stack([vectors.floats[end] for end in ends], axis=1)


def kept(a: Array, b: Array, *_: Array) -> Array:
    return np.stack([a[..., 0], b[..., 1]], axis=-1)


def take_log_mean(vectors: Vectors) -> Array:
    sums = np.add.reduceat(np.log1p(vectors.floats), vectors.offsets[:-1])
    return (sums / np.diff(vectors.offsets))[:, None]


def weighed(a: Array, b: Array, count_a: Array, count_b: Array) -> Array:
    return (a * count_a[:, None] + b * count_b[:, None]) / (count_a + count_b)[:, None]


SQUARES = Measure("squares", 1, take_squares, added)
ABOVE = Measure("above", 1, take_above, added)
ENDS = Measure("ends", 2, take_first_and_last, kept)
LOG_MEAN = Measure("log mean", 1, take_log_mean, weighed)

Oracle = Callable[[Array], Any]
ADDED: dict[str, tuple[Statistic, Oracle]] = {
    "range": (Statistic((EXTREMES,), ranges), np.ptp),
    "power": (
        Statistic((SQUARES,), lambda parts: parts[SQUARES][..., 0] / parts.count),
        lambda x: np.mean(x**2),
    ),
    "share above": (Statistic((ABOVE,), share_above, absent=0), lambda x: np.mean(x > 500)),
    "last minus first": (
        Statistic((ENDS,), lambda parts: parts[ENDS][..., 1] - parts[ENDS][..., 0]),
        lambda x: x[-1] - x[0],
    ),
    "geometric mean": (
        Statistic((LOG_MEAN,), lambda parts: np.expm1(parts[LOG_MEAN][..., 0])),
        lambda x: stats.gmean(x + 1) - 1,
    ),
    "peak over mean": (
        Statistic(
            (SUMS, EXTREMES),
            lambda parts: parts[EXTREMES][..., 1] * parts.count / parts[SUMS].sum(axis=-1),
        ),
        lambda x: x.max() / x.mean(),
    ),
}


def inputs() -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    mask = np.kron(rng.integers(0, 6, (2, 8, 8)), np.ones((1, 7, 7), int)).astype("uint16") * 11
    return mask, rng.integers(0, 1000, (2, *mask.shape), "uint16")


@pytest.mark.parametrize(
    ("name", "executor"),
    # Processes take seconds to start: one statistic shows it.
    [*itertools.product(ADDED, ["inline", "threads"]), ("share above", "processes")],
)
def test_an_entry_is_all(name: str, executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, oracle = ADDED[name]
    monkeypatch.setitem(STATISTICS, name, entry)
    mask, image = inputs()
    # Workers cannot import this module, as little as they can import a notebook.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    own = RasterAggregator(
        # Tiles as wide as the plane: pixels of an earlier tile come first.
        as_dask(mask, (1, 8, 56), "blocks"),
        as_dask(image, (1, 1, 8, 56), "blocks"),
        run_on_gpu=False,
        executor=executor,
    )
    mean, found, median = own.aggregate_stats(("mean", name, "median"))
    ids = np.unique(mask)
    assert found.columns.tolist() == mean.columns.tolist() == [0, 1, "cell_ID"]
    assert found["cell_ID"].tolist() == ids.tolist()
    for row, label in enumerate(ids):
        for channel in (0, 1):
            x = image[channel][mask == label].astype(float)
            assert found.loc[row, channel] == pytest.approx(oracle(x), rel=1e-12)
            assert median.loc[row, channel] == np.median(x)
    (absent,) = own.aggregate_stats((name,), index=[60_000])
    np.testing.assert_array_equal(absent[[0, 1]], [[entry.absent] * 2])


def test_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATISTICS, "range", ADDED["range"][0])
    own = RasterAggregator(*(da.from_array(array) for array in inputs()), run_on_gpu=False)
    with pytest.raises(ValueError, match="range"):
        own.aggregate_stats("rnge")


def test_two_entries_share_a_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What several statistics need is taken once a tile and channel."""
    taken: list[int] = []

    def take(vectors: Vectors) -> Array:
        taken.append(len(vectors.values))
        return take_squares(vectors)

    measure = Measure("counted squares", 1, take, added)
    for name in ("one", "two"):
        entry = Statistic((measure,), lambda parts: parts[measure][..., 0])
        monkeypatch.setitem(STATISTICS, name, entry)
    mask, image = inputs()
    own = RasterAggregator(
        as_dask(mask, (1, 28, 28), "blocks"),
        as_dask(image, (1, 1, 28, 28), "blocks"),
        run_on_gpu=False,
        executor="inline",
    )
    one, two = own.aggregate_stats(("one", "two"))
    np.testing.assert_array_equal(one, two)
    tiles = [pixels for pixels in taken if pixels > 1]  # kernels are warmed up with one pixel
    assert tiles == [28 * 28] * (2 * 4 * 2)
