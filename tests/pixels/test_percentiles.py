"""Exact percentiles of values that are not held: numpy's, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scportrait_like.kernels.histograms import count_small, select_between
from scportrait_like.pixels.selection import Selection, bounds_of, counted_quantile

Array = np.ndarray[Any, Any]
SHARES = (0.0, 0.001, 0.05, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0)


def there(values: Array) -> Array:
    return values[(values != 0) & ~np.isnan(values)].astype(np.float64)


def values_of(dtype: str, n: int = 5000, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    values = random.normal(size=n).astype(dtype)
    values[random.random(n) < 0.2] = 0
    values[random.random(n) < 0.02] = np.nan
    values[:3] = -0.0, 1e-42, -1e-42
    return values


def selected(values: Array, low: float, high: float) -> Selection:
    counts, inside = select_between(values, low, high)
    return Selection(*counts.tolist(), inside, low, high)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("share", SHARES)
def test_quantiles_of_what_was_kept(dtype: str, share: float) -> None:
    values = values_of(dtype)
    wanted = np.quantile(there(values), share)
    ordered = np.sort(there(values))
    place = share * (len(ordered) - 1)
    for slack in (1, 5, 100, 10**6):
        low = ordered[max(0, int(place) - slack)]
        high = ordered[min(len(ordered) - 1, int(place) + slack)]
        found, again = selected(values, low, high).quantile(share)
        assert found == wanted
        assert np.isnan(again).all()
    found, _ = selected(values, -np.inf, np.inf).quantile(share)
    assert found == wanted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wrong_bounds_are_told_and_opened(dtype: str) -> None:
    values = values_of(dtype)
    for share, (low, high) in ((0.5, (1.0, 2.0)), (0.5, (-2.0, -1.0)), (0.01, (0.5, 0.5))):
        low, high = (float(np.array(bound, dtype)) for bound in (low, high))
        found, again = selected(values, low, high).quantile(share)
        assert np.isnan(found)
        assert not np.isnan(again).any()
        found, _ = selected(values, *again).quantile(share)
        assert found == np.quantile(there(values), share)


def test_ties_at_the_bounds() -> None:
    values = np.repeat(np.array([1, 2, 3, 4], np.float32), [10, 20, 30, 40])
    for low, high in ((1, 4), (2, 3), (3, 3), (2, 4)):
        counts, inside = select_between(values, low, high)
        assert counts.tolist() == [
            100,
            (values < low).sum(),
            (values == low).sum(),
            (values == high).sum() * (low != high),
        ]
        assert np.array_equal(inside, values[(values > low) & (values < high)])
    for share in SHARES:
        found, _ = selected(values, 1.0, 4.0).quantile(share)
        assert found == np.quantile(values.astype(float), share)


def test_infinite_values() -> None:
    values = np.array([-np.inf, 1, 2, 3, np.inf, 0, np.nan], np.float32)
    counts, inside = select_between(values, -np.inf, np.inf)
    assert counts.tolist() == [5, 0, 1, 1]
    assert inside.tolist() == [1, 2, 3]
    selection = Selection(*counts.tolist(), inside, -np.inf, np.inf)
    assert selection.quantile(0.5)[0] == 2
    assert selection.quantile(1.0)[0] == np.inf
    assert selection.quantile(0.0)[0] == -np.inf


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
def test_counted_integers(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(info.min, info.max, (13, 47), dtype, endpoint=True)
    values[values % 3 == 0] = 0
    counts = count_small(values)
    plain = values[values != 0]
    assert counts.sum() == len(plain)
    assert counts[plain.astype(int) - info.min].min() > 0
    for share in SHARES:
        found = counted_quantile(info.min, counts, share)
        assert found == np.quantile(plain.astype(np.float64), share)
    assert np.isnan(counted_quantile(info.min, counts * 0, 0.5))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.99, 0.999])
def test_bounds_hold_the_quantile(share: float) -> None:
    """Of runs whose values are nearly the same, some of them empty."""
    random = np.random.default_rng(1)
    everything = random.gamma(2, 1, (200_000, 1)) + random.normal(0, 0.01, (200_000, 16))
    everything[random.random(200_000) < 0.5] = 0
    wanted = np.quantile(there(everything), share)
    for _ in range(20):
        runs = everything[random.integers(0, len(everything), 2000)]
        low, high = bounds_of(runs, share)
        assert low <= wanted <= high
        inside = (low < everything) & (everything < high) & (everything != 0)
        assert inside.sum() < 0.4 * (everything != 0).sum()


def test_bounds_of_little() -> None:
    assert bounds_of(np.zeros((10, 16), np.float32), 0.5) == (-np.inf, np.inf)
    assert bounds_of(np.full((10, 16), np.nan, np.float32), 0.5) == (-np.inf, np.inf)
    assert bounds_of(np.ones((3, 16), np.float32), 0.5) == (-np.inf, np.inf)
