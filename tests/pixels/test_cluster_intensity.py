"""`tb.cluster_intensity`: against numpy, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata.models import Image2DModel, Image3DModel, Labels2DModel, Labels3DModel

from scportrait_like import tb
from scportrait_like.errors import ElementExistsError, InputError, MissingInputError

Array = np.ndarray[Any, Any]

CHANNELS = ["DNA", "CD3", "CD 8/a"]
# Cluster 4 has no pixel, and metacluster 3 none but its.
MAPPING = pd.Series([2, 1, 1, 3, 2], index=range(1, 6), name="metaclustering")


def made(shape: tuple[int, ...], seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 3, 5], shape).astype(np.uint8)
    return rng.random((3, *shape), np.float32) * 100, labels


@pytest.fixture
def sdata() -> spatialdata.SpatialData:
    found: dict[str, Any] = {}
    for number, shape in enumerate([(60, 70), (50, 40)]):
        pixels, labels = made(shape, number)
        found[f"image{number}"] = Image2DModel.parse(
            pixels, dims=("c", "y", "x"), c_coords=CHANNELS, chunks=(1, 32, 32)
        )
        found[f"clusters{number}"] = Labels2DModel.parse(labels, dims=("y", "x"), chunks=(32, 32))
    return spatialdata.SpatialData.init_from_elements(found)


def means(pixels: Array, labels: Array, groups: Array, group: int) -> tuple[Array, int]:
    """Mean and number of the pixels of a group of clusters, by numpy."""
    inside = np.isin(labels, groups[groups == group].index)
    count = int(inside.sum())
    flat = pixels[:, inside].astype(float)
    return (flat.mean(axis=1) if count else np.full(len(pixels), np.nan)), count


def check_rows(table: anndata.AnnData, pixels: Array, labels: Array) -> None:
    own = pd.Series(MAPPING.index, index=MAPPING.index)
    assert table.obs["cell_ID"].tolist() == MAPPING.index.tolist()
    assert table.obs["metacluster"].tolist() == MAPPING.tolist()
    for row, cluster in enumerate(MAPPING.index):
        mean, count = means(pixels, labels, own, cluster)
        np.testing.assert_allclose(table.X[row], mean, rtol=1e-12)
        assert table.obs["pixels"].iloc[row] == count
    np.testing.assert_allclose(table.obs["share"].sum(), 1)


def test_one_image(sdata: spatialdata.SpatialData) -> None:
    assert tb.cluster_intensity(sdata, MAPPING, "image0", "clusters0") is sdata
    table = sdata["cluster_intensities"]
    assert list(table.var_names) == CHANNELS
    assert table.uns["spatialdata_attrs"]["region"] == "clusters0"
    pixels, labels = made((60, 70), 0)
    check_rows(table, pixels, labels)
    groups = table.uns["metaclusters"]
    assert groups["ids"].tolist() == [1, 2, 3]
    for row, group in enumerate(groups["ids"]):
        mean, count = means(pixels, labels, MAPPING, group)
        np.testing.assert_allclose(groups["mean"][row], mean, rtol=1e-12)
        assert groups["pixels"][row] == count
    np.testing.assert_array_equal(table.uns["clusters"]["mean"], table.X)


def test_several_images_and_the_disk(sdata: spatialdata.SpatialData, tmp_path: Path) -> None:
    sdata.write(tmp_path / "s.zarr")
    stored = spatialdata.read_zarr(tmp_path / "s.zarr")
    images, labels = ["image0", "image1"], ["clusters0", "clusters1"]
    tb.cluster_intensity(
        stored, MAPPING, images, labels, "of_both", channels=["CD 8/a", "DNA"], region_key="where"
    )
    table = spatialdata.read_zarr(tmp_path / "s.zarr")["of_both"]
    assert table.uns["spatialdata_attrs"]["region"] == labels
    parts = [made((60, 70), 0), made((50, 40), 1)]
    for name, (pixels, own) in zip(labels, parts, strict=True):
        check_rows(table[table.obs["where"] == name], pixels[[2, 0]], own)
    together = [
        np.concatenate([part[i].reshape(n, -1) for part in parts], 1) for i, n in ((0, 3), (1, 1))
    ]
    for row, group in enumerate(table.uns["metaclusters"]["ids"]):
        mean, count = means(together[0][[2, 0]], together[1][0], MAPPING, group)
        np.testing.assert_allclose(table.uns["metaclusters"]["mean"][row], mean, rtol=1e-12)
        assert table.uns["metaclusters"]["pixels"][row] == count


def test_a_volume_and_a_plain_mapping() -> None:
    pixels, labels = made((4, 20, 30), 3)
    sdata = spatialdata.SpatialData.init_from_elements(
        {
            "image": Image3DModel.parse(pixels, dims=("c", "z", "y", "x"), c_coords=CHANNELS),
            "clusters": Labels3DModel.parse(labels, dims=("z", "y", "x")),
        }
    )
    tb.cluster_intensity(sdata, dict(MAPPING), "image", "clusters", executor="inline")
    check_rows(sdata["cluster_intensities"], pixels, labels)


def test_what_is_there_is_kept(sdata: spatialdata.SpatialData) -> None:
    tb.cluster_intensity(sdata, MAPPING, "image0", "clusters0")
    with pytest.raises(ElementExistsError, match=r"cluster_intensities.*overwrite=True"):
        tb.cluster_intensity(sdata, MAPPING, "image0", "clusters0", channels="DNA")
    tb.cluster_intensity(sdata, MAPPING, "image0", "clusters0", channels="DNA", overwrite=True)
    assert sdata["cluster_intensities"].shape == (5, 1)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"mapping": MAPPING.iloc[:3]}, InputError, "clusters0 hold 5.*mapping"),
        ({"mapping": MAPPING - 1}, InputError, "whole numbers from 1"),
        ({"mapping": {}}, InputError, "whole numbers from 1"),
        ({"mapping": {1: "a"}}, InputError, "whole numbers from 1"),
        ({"mapping": [1] * 5}, InputError, "a pandas Series or a mapping"),
        ({"channels": ["DNA", "CD4"]}, InputError, "CD4.*DNA, CD3"),
        ({"image_name": "image7"}, MissingInputError, "image7"),
        ({"labels_name": "image0"}, MissingInputError, "image0"),
        ({"labels_name": ["clusters0", "clusters1"]}, InputError, "1 images need as many labels"),
        ({"image_name": "image1"}, InputError, "clusters0"),
        ({"to_coordinate_system": "um"}, InputError, "um"),
        ({"instance_key": "fov_labels"}, InputError, "fov_labels"),
    ],
    ids=str,
)
def test_refused(
    sdata: spatialdata.SpatialData, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    usual = {"mapping": MAPPING, "image_name": "image0", "labels_name": "clusters0"}
    with pytest.raises(error, match=said):
        tb.cluster_intensity(sdata, **{**usual, **given})
    assert "cluster_intensities" not in sdata.tables
