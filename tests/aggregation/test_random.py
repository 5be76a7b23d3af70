"""Random, awkward inputs against plain numpy and scipy."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from scportrait_like.raster import aggregate, aggregation, tiles
from scportrait_like.utils import RasterAggregator

from .cases import Case, random_case
from .oracle import STATISTICS, check, check_centroid, expect, ndimage_centers

N_CASES = 80


def check_case(case: Case, folder: Path, executor: object) -> None:
    mask, image = case.arrays(folder)
    aggregator = RasterAggregator(mask, image, run_on_gpu=False, executor=executor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = aggregator.aggregate_stats(case.statistics, index=case.index)
    expected = expect(case.mask, case.image, case.statistics, case.index)
    assert len(frames) == len(case.statistics)
    for name, frame in zip(case.statistics, frames, strict=True):
        assert frame["cell_ID"].tolist() == expected.ids.tolist(), case.about
        check(name, frame.drop(columns="cell_ID").to_numpy(), expected, case.about)
    centers = aggregator.center_of_mass(index=case.index)
    assert centers["cell_ID"].tolist() == expected.ids.tolist(), case.about
    check_centroid(centers[[0, 1, 2]].to_numpy(), expected, case.about)
    area = aggregator.aggregate_area(index=case.index)
    assert area["shapeSize"].tolist() == expected.count.tolist(), case.about


def few_pixels_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantiles of labels that cross tiles: go the ways that are meant for very large ones."""
    monkeypatch.setattr(aggregate, "_HEAVY", 200)
    monkeypatch.setattr(aggregate, "_JOINED", 100)
    monkeypatch.setattr(aggregation, "_PIXELS_TOGETHER", 50)
    monkeypatch.setattr(aggregation, "_SORTED_TOGETHER", 50)


@pytest.mark.parametrize("seed", range(N_CASES))
def test_random_case(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(seed)
    monkeypatch.setattr(tiles, "TILE_EDGE", case.tile)
    if seed % 5 == 0:
        few_pixels_are_many(monkeypatch)
    check_case(case, tmp_path, "threads" if seed % 4 == 0 else "inline")


def test_the_oracle_against_scipy() -> None:
    """What everything is compared with agrees with what others wrote."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60_000, (2, 3, 40, 50), np.uint16)
    mask = rng.integers(0, 7, (3, 40, 50))
    found = expect(mask, image, STATISTICS)
    for row, label in enumerate(found.ids):
        x = image[:, mask == label].astype(float)
        assert found.count[row] == x.shape[1]
        plain = {
            "sum": x.sum(axis=1),
            "mean": x.mean(axis=1),
            "var": x.var(axis=1),
            "skew": stats.skew(x, axis=1),
            "kurtosis": stats.kurtosis(x, axis=1),
            "median": np.median(x, axis=1),
            "q0.9": np.quantile(x, 0.9, axis=1),
        }
        for name, values in plain.items():
            np.testing.assert_allclose(found.values[name][row], values, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.centroid, ndimage_centers(mask, found.ids), rtol=1e-13)
