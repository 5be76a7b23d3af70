"""`allocate_intensity` against scipy and plain loops, on real objects and stores."""

from __future__ import annotations

import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
import tifffile
from scipy import ndimage
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Image3DModel, Labels2DModel, Labels3DModel
from spatialdata.transformations import Identity, Scale, Sequence, Translation

from scportrait_like import datasets, tb
from scportrait_like.errors import (
    ElementExistsError,
    InputError,
    MissingInputError,
    ProjectLockedError,
    ShapeError,
)
from scportrait_like.project import Project
from scportrait_like.run.lock import project_lock

STEINBOCK = Path(__file__).parents[2] / "shared/data/imc_steinbock"


def example(tmp_path: Path | None) -> SpatialData:
    """The two fields of the tutorials: in memory, or backed by a store."""
    sdata = datasets.pixie_example()
    if tmp_path is None:
        return sdata
    sdata.write(tmp_path / "pixie.zarr")
    return spatialdata.read_zarr(tmp_path / "pixie.zarr")


def pixels_of(sdata: SpatialData, field: int) -> tuple[Any, Any]:
    image = sdata[f"raw_image_fov{field}"].data.compute()
    return image, sdata[f"label_whole_fov{field}"].data.compute()


def expected(measure: Any, image: Any, labels: Any, ids: Any) -> Any:
    return np.stack([measure(plane, labels, ids) for plane in image.astype(np.float64)], axis=1)


def allocate(sdata: SpatialData, field: int = 0, **options: Any) -> SpatialData:
    given: dict[str, Any] = {
        "image_name": f"raw_image_fov{field}",
        "labels_name": f"label_whole_fov{field}",
        "to_coordinate_system": f"fov{field}",
        "output_table_name": "my_table",
        **options,
    }
    return tb.allocate_intensity(sdata, **given)


@pytest.mark.parametrize("backed", [False, True])
def test_the_example_of_the_tutorial(tmp_path: Path, backed: bool) -> None:
    sdata = example(tmp_path if backed else None)
    returned = tb.allocate_intensity(
        sdata,
        image_name="raw_image_fov0",
        labels_name="label_whole_fov0",
        to_coordinate_system="fov0",
        output_table_name="my_table",
        mode="sum",
        obs_stats="count",
        overwrite=True,
    )
    assert returned is sdata
    image, labels = pixels_of(sdata, 0)
    ids = np.unique(labels)[1:]
    objects = [sdata, spatialdata.read_zarr(sdata.path)] if backed else [sdata]
    for found in objects:
        table = found["my_table"]
        assert table.X.dtype == np.float64
        np.testing.assert_array_equal(table.X, expected(ndimage.sum, image, labels, ids))
        assert list(table.var_names) == list(datasets.MARKERS)
        assert list(table.obs.columns) == ["fov_labels", "cell_ID", "shapeSize"]
        assert table.obs["cell_ID"].dtype == labels.dtype
        assert table.obs["cell_ID"].tolist() == ids.tolist()
        assert table.obs["shapeSize"].tolist() == np.bincount(labels.ravel())[ids].tolist()
        assert table.obs["shapeSize"].dtype == np.int64
        assert table.obs["fov_labels"].unique().tolist() == ["label_whole_fov0"]
        assert table.obs.index.name == "cells"
        centers = np.array(ndimage.center_of_mass(labels > 0, labels, ids))
        np.testing.assert_allclose(table.obsm["spatial"], centers[:, ::-1], rtol=1e-12)
        assert set(found.images) == {"raw_image_fov0", "raw_image_fov1"}
    _, joined = spatialdata.join_spatialelement_table(
        sdata=sdata, spatial_element_names="label_whole_fov0", table_name="my_table", how="left"
    )
    assert joined.n_obs == len(ids)


def test_statistics_in_obs_and_channels_by_name() -> None:
    sdata = example(None)
    channels = [datasets.MARKERS[5], datasets.MARKERS[1]]
    allocate(
        sdata,
        channels=channels,
        obs_stats=["var", "count", "median", "q0.25", "mean"],
        calculate_center_of_mass=False,
        instance_size_key="area",
        region_key="where",
        instance_key="id",
        cell_index_name="index_of_cells",
    )
    image, labels = pixels_of(sdata, 0)
    image, ids = image[[5, 1]], np.unique(labels)[1:]
    table = sdata["my_table"]
    assert list(table.var_names) == channels
    assert list(table.obs.columns) == [
        "where",
        "id",
        *(f"var_{channel}" for channel in channels),
        "area",
        *(f"{stat}_{channel}" for stat in ("median", "q0.25", "mean") for channel in channels),
    ]
    assert table.obs.index.name == "index_of_cells"
    assert not table.obsm
    means = expected(ndimage.mean, image, labels, ids)
    np.testing.assert_allclose(table.X, means, rtol=1e-13)
    for stat, measure in {
        "var": ndimage.variance,
        "median": ndimage.median,
        "mean": ndimage.mean,
    }.items():
        columns = table.obs[[f"{stat}_{channel}" for channel in channels]].to_numpy()
        np.testing.assert_allclose(columns, expected(measure, image, labels, ids), rtol=1e-9)
    quarters = [[np.quantile(plane[labels == id_], 0.25) for plane in image] for id_ in ids]
    columns = table.obs[[f"q0.25_{channel}" for channel in channels]].to_numpy()
    np.testing.assert_allclose(columns, quarters, rtol=1e-12)


def test_one_channel_given_as_text_or_number() -> None:
    sdata = example(None)
    allocate(sdata, channels=datasets.MARKERS[3], output_table_name="named")
    assert list(sdata["named"].var_names) == [datasets.MARKERS[3]]
    image, _ = pixels_of(sdata, 0)
    plain = Image2DModel.parse(image, transformations={"fov0": Identity()})
    sdata["numbered"] = plain
    for channels in (3, [3], "3", ["3"]):
        allocate(sdata, image_name="numbered", channels=channels)
        assert list(sdata["my_table"].var_names) == ["3"]
        np.testing.assert_array_equal(sdata["my_table"].X, sdata["named"].X)


@pytest.mark.parametrize("backed", [False, True])
def test_append(tmp_path: Path, backed: bool) -> None:
    sdata = example(tmp_path if backed else None)
    allocate(sdata, 0, output_table_name="alone")
    for field in (0, 1):
        allocate(sdata, field, append=True, overwrite=field == 0, obs_stats="count")
    with pytest.raises(InputError, match="annotates 'label_whole_fov1' already"):
        allocate(sdata, 1, append=True)
    with pytest.raises(InputError, match="holds the mean in X"):
        allocate(sdata, 1, append=True, output_table_name="alone", mode="sum")
    for found in [sdata, spatialdata.read_zarr(sdata.path)] if backed else [sdata]:
        table = found["my_table"]
        counts = []
        for field in (0, 1):
            image, labels = pixels_of(sdata, field)
            ids = np.unique(labels)[1:]
            rows = table[table.obs["fov_labels"] == f"label_whole_fov{field}"]
            assert rows.obs["cell_ID"].tolist() == ids.tolist()
            np.testing.assert_allclose(
                rows.X, expected(ndimage.mean, image, labels, ids), rtol=1e-13
            )
            counts.append(len(ids))
        assert table.n_obs == sum(counts)
        assert table.obs_names.is_unique
        assert found["alone"].n_obs == counts[0]
        assert len(spatialdata.get_element_instances(found["label_whole_fov1"])) == counts[1]
        regions = found.get_annotated_regions(table)
        assert set(regions) == {"label_whole_fov0", "label_whole_fov1"}


def test_append_over_the_common_channels(caplog: pytest.LogCaptureFixture) -> None:
    sdata = example(None)
    allocate(sdata, 0, channels=datasets.MARKERS[:4])
    with caplog.at_level(logging.WARNING):
        allocate(sdata, 1, channels=[datasets.MARKERS[k] for k in (6, 3, 1)], append=True)
    assert list(sdata["my_table"].var_names) == [datasets.MARKERS[1], datasets.MARKERS[3]]
    assert datasets.MARKERS[6] in caplog.text


def test_append_keeps_a_table_that_this_object_has_not_seen(tmp_path: Path) -> None:
    sdata = example(tmp_path)
    allocate(spatialdata.read_zarr(sdata.path), 0)
    with pytest.raises(ElementExistsError, match="read the store again"):
        allocate(sdata, 1, append=True)
    assert anndata.read_zarr(sdata.path / "tables/my_table").obs["fov_labels"].nunique() == 1


def test_overwrite(tmp_path: Path) -> None:
    sdata = example(tmp_path)
    allocate(sdata)
    allocate(sdata, output_table_name="kept")
    with pytest.raises(ElementExistsError, match="overwrite=True"):
        allocate(sdata, overwrite=False)
    allocate(sdata, channels=datasets.MARKERS[0])
    for found in (sdata, spatialdata.read_zarr(sdata.path)):
        assert found["my_table"].n_vars == 1
        assert found["kept"].n_vars == len(datasets.MARKERS)


def volume(backed: Path | None, shape: tuple[int, int, int] = (7, 30, 40)) -> SpatialData:
    rng = np.random.default_rng(5)
    image = rng.integers(0, 1000, (2, *shape)).astype(np.uint16)
    labels = ndimage.zoom(rng.integers(0, 9, (3, 5, 6)), (2, 5, 6), order=0).astype(np.int16)
    place = Scale([0.5, 0.5, 2.0], axes=("x", "y", "z"))
    moved = Translation([1, 2, 3], axes=("z", "y", "x"))
    sdata = SpatialData(
        images={
            "image": Image3DModel.parse(
                image, c_coords=["a", "b"], chunks=(1, 3, 8, 16), transformations={"um": place}
            )
        },
        labels={
            "cells": Labels3DModel.parse(
                labels, chunks=(4, 11, 9), transformations={"um": Sequence([moved, place])}
            )
        },
    )
    if backed is None:
        return sdata
    sdata.write(backed / "volume.zarr")
    return spatialdata.read_zarr(backed / "volume.zarr")


@pytest.mark.parametrize("backed", [False, True])
def test_space_with_labels_on_a_part_of_the_image(tmp_path: Path, backed: bool) -> None:
    sdata = volume(tmp_path if backed else None)
    tb.allocate_intensity(sdata, "image", "cells", to_coordinate_system="um")
    image, labels = sdata["image"].data.compute(), sdata["cells"].data.compute()
    assert labels.shape == (6, 25, 36)
    beneath = image[:, 1:7, 2:27, 3:39]
    ids = np.unique(labels)[1:]
    table = sdata["table_intensities"]
    np.testing.assert_allclose(table.X, expected(ndimage.mean, beneath, labels, ids), rtol=1e-13)
    centers = np.array(ndimage.center_of_mass(labels > 0, labels, ids)) + np.array([1, 2, 3])
    np.testing.assert_allclose(table.obsm["spatial"], centers[:, ::-1] * [0.5, 0.5, 2], rtol=1e-12)


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
@pytest.mark.parametrize("backed", [False, True])
def test_executors_agree(tmp_path: Path, backed: bool, executor: str) -> None:
    sdata = volume(tmp_path if backed else None)
    options: dict[str, Any] = {"to_coordinate_system": "um", "obs_stats": ["median", "kurtosis"]}
    tb.allocate_intensity(sdata, "image", "cells", "all", executor="inline", **options)
    tb.allocate_intensity(sdata, "image", "cells", "b", "b", executor=executor, **options)
    np.testing.assert_array_equal(sdata["b"].X, sdata["all"][:, "b"].X)
    np.testing.assert_array_equal(sdata["b"].obsm["spatial"], sdata["all"].obsm["spatial"])
    for column in ("median_b", "kurtosis_b"):
        assert sdata["b"].obs[column].tolist() == sdata["all"].obs[column].tolist()


def test_a_window_of_a_stored_image_is_read_without_dask(tmp_path: Path) -> None:
    """Only what lies beneath the labels is decoded, by the workers themselves."""
    sdata = volume(tmp_path)
    beneath = tb._intensity._beneath(sdata["image"], [1], (1, 2, 3), (6, 25, 36))
    image = sdata["image"].data.compute()[1:, 1:7, 2:27, 3:39]
    assert beneath.shape == image.shape
    np.testing.assert_array_equal(beneath.read(tuple(slice(0, n) for n in image.shape)), image)
    assert b"dask" not in pickle.dumps(beneath)


@pytest.mark.parametrize("backed", [False, True])
def test_a_plane_of_several_scales_with_labels_on_a_part(tmp_path: Path, backed: bool) -> None:
    tissue = datasets.tissue((3, 300, 400), seed=3)
    image, labels = tissue.read_image(), tissue.read_labels()[100:240, 50:350]
    pixel = Scale([0.325, 0.325], axes=("x", "y"))
    stage = Translation([1234.5, 9876.5], axes=("x", "y"))
    moved = Translation([50, 100], axes=("x", "y"))
    sdata = SpatialData(
        images={
            "image": Image2DModel.parse(
                image,
                c_coords=["a", "b/c", "d"],
                scale_factors=[2, 2],
                transformations={"stage": Sequence([pixel, stage])},
            )
        },
        labels={
            "cells": Labels2DModel.parse(
                labels,
                scale_factors=[2],
                transformations={"stage": Sequence([moved, pixel, stage])},
            )
        },
    )
    if backed:
        sdata.write(tmp_path / "scaled.zarr")
        sdata = spatialdata.read_zarr(tmp_path / "scaled.zarr")
    tb.allocate_intensity(
        sdata,
        "image",
        "cells",
        channels=["d", "b/c"],
        obs_stats="max",
        to_coordinate_system="stage",
    )
    beneath, ids = image[[2, 1], 100:240, 50:350], np.unique(labels)[1:]
    table = sdata["table_intensities"]
    np.testing.assert_allclose(table.X, expected(ndimage.mean, beneath, labels, ids), rtol=1e-13)
    assert list(table.var_names) == ["d", "b/c"]
    columns = table.obs[["max_d", "max_b_c"]].to_numpy()
    np.testing.assert_array_equal(columns, expected(ndimage.maximum, beneath, labels, ids))
    centers = np.array(ndimage.center_of_mass(labels > 0, labels, ids))[:, ::-1]
    placed = 0.325 * (centers + np.array([50, 100])) + np.array([1234.5, 9876.5])
    np.testing.assert_allclose(table.obsm["spatial"], placed, rtol=1e-12)


def test_accepted_and_not_needed(caplog: pytest.LogCaptureFixture) -> None:
    sdata = example(None)
    with caplog.at_level(logging.INFO, "scportrait_like"), ThreadPoolExecutor(2) as executor:
        allocate(sdata, chunks=64, run_on_gpu=True, executor=executor)
    for word in ("chunks=64", "run_on_gpu"):
        said = [record for record in caplog.records if word in record.getMessage()]
        assert [record.levelno for record in said] == [logging.INFO]
    plain = allocate(example(None))
    np.testing.assert_array_equal(sdata["my_table"].X, plain["my_table"].X)


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"image_name": "nothing"}, MissingInputError, "raw_image_fov0, raw_image_fov1"),
        ({"labels_name": "raw_image_fov0"}, MissingInputError, "one of its images"),
        ({"channels": ["DNA", "CD999"]}, InputError, "no channel .*CD999"),
        ({"channels": 2}, InputError, "no channel 2; it has"),
        ({"channels": []}, InputError, "none was given"),
        ({"mode": "median"}, InputError, "mode='median' is not known; known are mean, sum"),
        ({"obs_stats": "avg"}, InputError, "'avg'.*kurtosis"),
        ({"obs_stats": ["mean", "q1.5"]}, InputError, "q1.5"),
        ({"to_coordinate_system": "global"}, InputError, "not placed in .*'global', but in 'fov0'"),
        ({"output_table_name": "raw_image_fov1"}, InputError, "one of the images"),
        ({"output_table_name": "a/b"}, InputError, "cannot name an element"),
        ({"region_key": "a b"}, InputError, "'a b' cannot stand in a table"),
        ({"spatial_key": "a/b"}, InputError, "'a/b' cannot stand in a table"),
        ({"instance_size_key": "cell_ID", "obs_stats": "count"}, InputError, "both 'cell_ID'"),
        ({"cell_index_name": "cell_ID"}, InputError, "names both the index"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], why: str) -> None:
    sdata = example(None)
    with pytest.raises(error, match=why):
        allocate(sdata, **options)
    assert not sdata.tables


def test_twice_the_same_channel() -> None:
    with pytest.raises(InputError, match="stands more than once"):
        allocate(example(None), channels=[datasets.MARKERS[1]] * 2)


def test_channels_that_differ_in_case_only() -> None:
    """Fine as variables, but not as columns of obs."""
    sdata = example(None)
    image = sdata["raw_image_fov0"].data[:2]
    sdata["image"] = Image2DModel.parse(
        image, c_coords=["cd3", "CD3"], transformations={"fov0": Identity()}
    )
    allocate(sdata, image_name="image")
    assert list(sdata["my_table"].var_names) == ["cd3", "CD3"]
    with pytest.raises(InputError, match="both 'max_cd3' and 'max_CD3'"):
        allocate(sdata, image_name="image", obs_stats="max")


def test_labels_without_cells_and_of_another_shape() -> None:
    sdata = example(None)
    place = {"fov0": Identity()}
    sdata["empty"] = Labels2DModel.parse(np.zeros((512, 512), np.uint8), transformations=place)
    with pytest.raises(InputError, match="empty"):
        allocate(sdata, labels_name="empty")
    sdata["wide"] = Labels2DModel.parse(np.ones((512, 513), np.uint8), transformations=place)
    with pytest.raises(InputError, match="reach beyond the image"):
        allocate(sdata, labels_name="wide")
    sdata["deep"] = Labels3DModel.parse(np.ones((2, 512, 512), np.uint8), transformations=place)
    with pytest.raises(ShapeError, match="in the plane"):
        allocate(sdata, labels_name="deep")
    assert not sdata.tables


def test_pixels_of_one_value_are_told_once() -> None:
    sdata = example(None)
    flat = np.ones((2, 512, 512), np.uint16)
    sdata["flat"] = Image2DModel.parse(flat, transformations={"fov0": Identity()})
    with pytest.warns(RuntimeWarning, match="skew and kurtosis are 0") as caught:
        allocate(sdata, image_name="flat", obs_stats=["skew", "kurtosis"])
    assert len([one for one in caught if "skew" in str(one.message)]) == 1
    assert (sdata["my_table"].obs[["skew_0", "kurtosis_1"]] == 0).all(axis=None)


def test_the_store_of_a_project(loaded: Project, image: Any, labels: Any) -> None:
    sdata = loaded.sdata
    tb.allocate_intensity(sdata, "input_image", "seg_all_cytosol", obs_stats="count")
    ids = np.unique(labels)[1:]
    means = expected(ndimage.mean, image, labels, ids)
    for found in (sdata, loaded.sdata, spatialdata.read_zarr(loaded.filehandler.path)):
        np.testing.assert_allclose(found["table_intensities"].X, means, rtol=1e-13)
    assert loaded.sdata is not sdata
    with (
        project_lock(loaded.filehandler.directory, "a step"),
        pytest.raises(ProjectLockedError, match="a step"),
    ):
        tb.allocate_intensity(sdata, "input_image", "seg_all_cytosol")


@pytest.mark.skipif(not STEINBOCK.exists(), reason=f"{STEINBOCK} is not there")
@pytest.mark.parametrize("backed", [False, True])
def test_means_that_steinbock_computed(tmp_path: Path, backed: bool) -> None:
    """Fifteen fields in one table: all 404 x 5 means agree."""
    channels = pd.read_csv(STEINBOCK / "panel.csv")["name"].tolist()
    sdata = SpatialData()
    fields = sorted(path.stem for path in (STEINBOCK / "img").iterdir())
    assert len(fields) == 15
    for field in fields:
        image = tifffile.imread(STEINBOCK / f"img/{field}.tiff")
        mask = tifffile.imread(STEINBOCK / f"masks_deepcell/{field}.tiff")
        sdata[f"image_{field}"] = Image2DModel.parse(image, c_coords=channels)
        sdata[f"mask_{field}"] = Labels2DModel.parse(mask)
    if backed:
        sdata.write(tmp_path / "imc.zarr")
        sdata = spatialdata.read_zarr(tmp_path / "imc.zarr")
    with_cells = 0
    for field in fields:
        answer = pd.read_csv(STEINBOCK / f"intensities_deepcell/{field}.csv", index_col="Object")
        if answer.empty:
            continue
        tb.allocate_intensity(sdata, f"image_{field}", f"mask_{field}", append=True)
        table = sdata["table_intensities"]
        rows = table[table.obs["fov_labels"] == f"mask_{field}"]
        assert rows.obs["cell_ID"].tolist() == answer.index.tolist()
        np.testing.assert_allclose(rows.X, answer[channels].to_numpy(), rtol=2e-5, atol=2e-5)
        with_cells += rows.n_obs
    assert with_cells == sdata["table_intensities"].n_obs == 404
