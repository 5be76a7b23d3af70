"""Real tissue: answers that other software computed, and scikit-image's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from skimage.measure import regionprops_table

from scportrait_like.utils import RasterAggregator

from .oracle import STATISTICS, Array, check, expect

DATA = Path(__file__).parents[3] / "shared" / "data"
tifffile = pytest.importorskip("tifffile")


def folder(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not there: it holds real tissue that is not shipped")
    return DATA / name


def aggregator(mask: Array, image: Array, edge: int = 64, **options: Any) -> RasterAggregator:
    """Mask (y, x) and image (c, y, x), each in chunks of its own."""
    return RasterAggregator(
        da.from_array(mask[None], (1, edge, edge)),
        da.from_array(image[:, None], (1, 1, edge // 2, 2 * edge)),
        run_on_gpu=False,
        **options,
    )


@pytest.mark.usefixtures("small_tiles")
def test_means_of_steinbock() -> None:
    """All 404 cells x 5 channels of fifteen fields, as steinbock measured them."""
    root = folder("imc_steinbock")
    cells = 0
    for table in sorted((root / "intensities_deepcell").glob("*.csv")):
        wanted = pd.read_csv(table, index_col="Object")
        panel = pd.read_csv(root / "panel.csv")
        assert wanted.columns.tolist() == panel["name"].tolist()
        image = tifffile.imread(root / "img" / f"{table.stem}.tiff")
        mask = tifffile.imread(root / "masks_deepcell" / f"{table.stem}.tiff")
        own = aggregator(mask, image, 16)
        found = own.aggregate_mean(index=wanted.index.to_numpy())
        assert found["cell_ID"].tolist() == wanted.index.tolist()
        np.testing.assert_allclose(found[list(range(5))], wanted, rtol=2e-5, atol=2e-5)
        assert set(own.aggregate_mean()["cell_ID"]) - {0} == set(wanted.index)
        cells += len(wanted)
    assert cells == 404


@pytest.mark.parametrize("field", ["r2", "r8"])
def test_spleen_as_scikit_image(field: str) -> None:
    root = folder("imc_spleen")
    image = tifffile.imread(root / f"{field}_image.ome.tif")
    mask = tifffile.imread(root / f"{field}_labels.tif")
    names = ("intensity_mean", "intensity_min", "intensity_max")
    wanted = regionprops_table(
        mask, np.moveaxis(image, 0, -1), properties=("label", "area", "centroid", *names)
    )
    own = aggregator(mask, image, 128)
    frames = own.aggregate_stats(("mean", "min", "max"), index=wanted["label"])
    for name, frame in zip(names, frames, strict=True):
        assert len(frame) > 2000
        for channel in range(len(image)):
            assert frame[channel].tolist() == wanted[f"{name}-{channel}"].tolist(), (name, channel)
    area = own.aggregate_area(index=wanted["label"])
    assert area["shapeSize"].tolist() == wanted["area"].tolist()
    center = own.center_of_mass(index=wanted["label"])
    for axis in (0, 1):
        np.testing.assert_allclose(center[axis + 1], wanted[f"centroid-{axis}"], rtol=1e-13)


@pytest.mark.usefixtures("small_tiles")
def test_all_statistics_of_codex() -> None:
    """A part of a tissue whose labels may lie in several pieces, in many tiles."""
    root = folder("codex_intestine")
    image = tifffile.imread(root / "R001_X003_Y004_image.ome.tif")[:3, :300, :400]
    mask = tifffile.imread(root / "R001_X003_Y004_labels_expert1.tif")[:300, :400]
    frames = aggregator(mask, image, 32).aggregate_stats(STATISTICS)
    expected = expect(mask[None], image[:, None], STATISTICS)
    assert len(expected.ids) > 100
    for name, frame in zip(STATISTICS, frames, strict=True):
        assert frame["cell_ID"].tolist() == expected.ids.tolist()
        check(name, frame.drop(columns="cell_ID").to_numpy(), expected)
