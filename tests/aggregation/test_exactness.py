"""Pixels made to break a merge: what tiles hold differs as much as it can from tile to tile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from scportrait_like.raster import tiles
from scportrait_like.utils import RasterAggregator

from .oracle import STATISTICS, Array, check, expect

SHAPE = (1, 96, 128)
EDGE = 8


def per_tile(values: Array) -> Array:
    return np.kron(values, np.ones((EDGE, EDGE)))


def ramp(rng: np.random.Generator) -> Array:
    """Means of tiles far apart, little variance in each."""
    return np.add.outer(np.arange(96) * 1e5, np.arange(128) * 1e4) + rng.normal(size=(96, 128))


def steps(rng: np.random.Generator) -> Array:
    """Each tile constant: all variance lies between tiles."""
    return per_tile(rng.normal(size=(12, 16)))


def one_step(rng: np.random.Generator) -> Array:
    """One tile differs from 191 that are equal."""
    values = np.full((12, 16), 0.1)
    values[5, 7] = 0.3
    return per_tile(values)


def outlier(rng: np.random.Generator) -> Array:
    image = rng.normal(size=(96, 128))
    image[50, 60] = 1e8
    return image


def opposite(rng: np.random.Generator) -> Array:
    """Sums of tiles that cancel."""
    return per_tile(1e9 * (np.indices((12, 16)).sum(axis=0) % 2 * 2 - 1)) + rng.normal(
        size=(96, 128)
    )


def offset(rng: np.random.Generator) -> Array:
    """1e9 and noise."""
    return 1e9 + rng.gamma(2, size=(96, 128))


def small_offset(rng: np.random.Generator) -> Array:
    return 1e4 + rng.gamma(2, size=(96, 128))


def tiny(rng: np.random.Generator) -> Array:
    return 1e-30 * rng.gamma(0.3, size=(96, 128))


def large(rng: np.random.Generator) -> Array:
    """Fourth powers still fit into a float64."""
    return 1e70 * rng.gamma(0.3, size=(96, 128))


def constant(rng: np.random.Generator) -> Array:
    return np.full((96, 128), 0.1)


MAKERS = (ramp, steps, one_step, outlier, opposite, offset, small_offset, tiny, large, constant)


def labels(kind: str) -> Array:
    rng = np.random.default_rng(3)
    if kind == "one":
        return np.ones(SHAPE, "uint16")
    if kind == "scattered":
        return rng.integers(0, 5, SHAPE, "uint16")
    if kind == "a pixel a tile":
        mask = np.zeros(SHAPE, "uint16")
        mask[0, ::EDGE, ::EDGE] = 9
        mask[0, 3::EDGE, 5 :: 2 * EDGE] = 4
        return mask
    return np.repeat(np.arange(96, dtype="uint16") % 7, 128).reshape(SHAPE)


@pytest.mark.parametrize("kind", ["one", "scattered", "a pixel a tile", "rows"])
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_made_to_break(
    maker: Callable[[np.random.Generator], Array], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = maker(np.random.default_rng(1))[None, None], labels(kind)
    expected = expect(mask, image, STATISTICS)
    for edge in (EDGE, 40, 1000):
        monkeypatch.setattr(tiles, "TILE_EDGE", edge)
        own = RasterAggregator(
            da.from_array(mask, (1, EDGE, EDGE)),
            da.from_array(image, (1, 1, EDGE, EDGE)),
            run_on_gpu=False,
            executor="inline",
        )
        for name, frame in zip(STATISTICS, own.aggregate_stats(STATISTICS), strict=True):
            check(name, frame[[0]].to_numpy(), expected, f"tiles of {edge}")


@pytest.mark.parametrize("dtype", ["uint32", "int64", "float64"])
def test_a_huge_offset_in_five_hundred_tiles(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """10^9 and noise, the label everywhere: rounding must not add up tile by tile."""
    rng = np.random.default_rng(6)
    image = (1e9 + rng.gamma(2, 40, (1, 1, 128, 256))).astype(dtype)
    mask = rng.integers(0, 3, image.shape[1:], "uint8")
    monkeypatch.setattr(tiles, "TILE_EDGE", EDGE)
    own = RasterAggregator(
        da.from_array(mask, (1, EDGE, EDGE)),
        da.from_array(image, (1, 1, 64, 64)).rechunk((1, 1, EDGE, EDGE)),
        run_on_gpu=False,
    )
    names = ("sum", "mean", "var", "skew", "kurtosis")
    expected = expect(mask, image, names)
    assert (expected.offset > 1e6).all()
    for name, frame in zip(names, own.aggregate_stats(names), strict=True):
        check(name, frame[[0]].to_numpy(), expected)


def test_any_quantile_of_any_number_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rank (n - 1) q is rounded as numpy rounds it, at every n."""
    rng = np.random.default_rng(9)
    counts = np.arange(1, 90)
    mask = np.zeros(4096, "uint16")
    mask[: counts.sum()] = np.repeat(counts, counts)
    mask = rng.permutation(mask).reshape(1, 64, 64)
    image = np.stack([rng.normal(size=mask.shape), rng.integers(0, 6, mask.shape) / 3])
    quantiles = [*rng.random(12).tolist(), *(k / 10 for k in range(11)), 1 / 3, 2 / 3]
    names = tuple(f"q{q!r}" for q in quantiles)
    monkeypatch.setattr(tiles, "TILE_EDGE", 16)
    own = RasterAggregator(
        da.from_array(mask, (1, 16, 16)), da.from_array(image, (1, 1, 16, 16)), run_on_gpu=False
    )
    expected = expect(mask, image, names)
    for name, frame in zip(names, own.aggregate_stats(names), strict=True):
        check(name, frame[[0, 1]].to_numpy(), expected)


def test_many_labels_in_a_large_plane(tmp_path: Path) -> None:
    """Tiles of their true size: 40,000 labels and a label across 9 tiles, by numpy's bincount."""
    rng = np.random.default_rng(5)
    edge = 4200
    image = rng.integers(0, 65_535, (1, 1, edge, edge), "uint16", endpoint=True)
    side = np.arange(edge) // 21
    mask = (1 + np.add.outer(200 * side, side)).astype("uint32")[None]
    mask[0, ::40] = 10**9
    own = RasterAggregator(
        da.from_array(mask, (1, 1400, 1400)),
        da.from_array(image, (1, 1, 1400, 2100)),
        run_on_gpu=False,
    )
    names = ("count", "sum", "mean", "var", "max")
    count, total, mean, var, most = own.aggregate_stats(names)
    ids, flat = np.unique(mask.ravel(), return_inverse=True)
    x = image.ravel().astype(float)
    n, sums = np.bincount(flat), np.bincount(flat, x)
    assert count["cell_ID"].tolist() == ids.tolist()
    assert count[0].tolist() == n.tolist()
    assert total[0].tolist() == sums.tolist()
    np.testing.assert_allclose(mean[0], sums / n, rtol=1e-13)
    squares = np.bincount(flat, (x - (sums / n)[flat]) ** 2)
    np.testing.assert_allclose(var[0], squares / n, rtol=1e-9)
    tops = np.zeros(len(ids))
    np.maximum.at(tops, flat, x)
    assert most[0].tolist() == tops.tolist()
