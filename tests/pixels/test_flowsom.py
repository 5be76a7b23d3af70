"""`im.flowsom`: the interface of the function, and that its labels are those of `predict`."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Image3DModel
from spatialdata.transformations import Scale, get_transformation

import scportrait_like as sl
from scportrait_like.errors import (
    ElementExistsError,
    InputError,
    MissingInputError,
    ScportraitLikeError,
)

CHANNELS = ("CD3", "CD20", "CD68", "αSMA", "DNA")


def tissue(shape: tuple[int, ...] = (5, 90, 110), dtype: str = "float32", seed: int = 0) -> Any:
    """Patches of five kinds of pixels, with noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 5, [-(-n // 10) for n in shape[1:]])
    kind = coarse
    for axis in range(kind.ndim):
        kind = np.repeat(kind, 10, axis)
    kind = kind[tuple(slice(n) for n in shape[1:])]
    pixels = rng.gamma(2.0, 1.0, shape)
    for channel in range(shape[0]):
        pixels[channel][kind == channel % 5] += 8
    return (pixels * 20).astype(dtype)


def held(pixels: Any, chunks: Any = None, name: str = "image", **options: Any) -> SpatialData:
    """An object in memory with one image."""
    array = da.from_array(pixels, chunks=chunks or pixels.shape)
    model, dims = (Image2DModel, "cyx") if pixels.ndim == 3 else (Image3DModel, "czyx")
    names = [f"c{n}" for n in range(len(pixels))] if len(pixels) != 5 else list(CHANNELS)
    image = model.parse(array, dims=tuple(dims), c_coords=names, **options)
    return SpatialData(images={name: image})


def clustered(sdata: SpatialData, **options: Any) -> tuple[Any, Any, Any, pd.Series]:
    given = {"fraction": 0.3, "n_clusters": 4, "xdim": 5, "ydim": 4, **options}
    _, fsom, mapping = sl.im.flowsom(sdata, "image", "clusters", "groups", **given)
    pixels = [np.asarray(sdata[name].data.compute()) for name in ("clusters", "groups")]
    return *pixels, fsom, mapping


def rows_of(pixels: Any) -> Any:
    return np.ascontiguousarray(pixels.reshape(len(pixels), -1).T, np.float64)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("model", ["FlowSOMEstimator", "BatchFlowSOMEstimator"])
def test_labels_are_those_of_predict(dtype: str, model: str) -> None:
    import flowsom

    pixels = tissue(dtype=dtype)
    clusters, groups, fsom, _mapping = clustered(
        held(pixels), model=getattr(flowsom.models, model), importance=[1, 2, 1, 0.5, 1]
    )
    fsom.model.predict(rows_of(pixels))
    np.testing.assert_array_equal(clusters.ravel(), fsom.model.cluster_labels + 1)
    np.testing.assert_array_equal(groups.ravel(), fsom.model.metacluster_labels + 1)
    assert (clusters.dtype, groups.dtype) == (np.uint8, np.uint8)


def test_what_is_returned() -> None:
    pixels = tissue()
    sdata = held(pixels)
    _, groups, fsom, mapping = clustered(
        sdata, instance_key="id", region_key="of", spatial_key="at"
    )
    assert mapping.name == "metaclustering"
    assert mapping.index.tolist() == list(range(1, 21))
    assert set(mapping) == {1, 2, 3, 4}
    cells = fsom.mudata["cell_data"]
    assert cells.X.dtype == np.float64
    assert cells.shape == (round(0.3 * pixels[0].size), 5)
    assert list(cells.var_names) == list(CHANNELS)
    assert cells.obs["id"].tolist() == list(range(1, len(cells) + 1))
    assert cells.obs["of"].cat.categories.tolist() == ["image"]
    y, x = cells.obsm["at"].T
    np.testing.assert_array_equal(cells.X, pixels[:, y, x].T)
    np.testing.assert_array_equal(groups[y, x], cells.obs["metaclustering"] + 1)
    assert fsom.mudata["cluster_data"].n_obs == 20


def test_channels_by_name_and_position_in_the_order_wanted() -> None:
    pixels = tissue()
    for channels in (["DNA", "CD20"], [4, 1], ("DNA", 1)):
        sdata = held(pixels)
        clusters, _, fsom, _ = clustered(sdata, channels=channels)
        assert list(fsom.mudata["cell_data"].var_names) == ["DNA", "CD20"]
        found = fsom.model.cluster_model.predict(rows_of(pixels[[4, 1]]))
        np.testing.assert_array_equal(clusters.ravel(), found + 1)
    one, _, _, _ = clustered(held(pixels), channels="CD3", xdim=2, ydim=2, n_clusters=2)
    assert set(np.unique(one)) <= {1, 2, 3, 4}


@pytest.mark.parametrize("chunks", [(1, 32, 32), (5, 17, 110), (2, 90, 40)])
def test_same_seed_same_labels_whatever_the_chunks(chunks: Any) -> None:
    pixels = tissue()
    first = clustered(held(pixels))
    other = clustered(held(pixels, chunks))
    np.testing.assert_array_equal(first[0], other[0])
    np.testing.assert_array_equal(first[1], other[1])
    pd.testing.assert_series_equal(first[3], other[3])
    np.testing.assert_array_equal(first[2].model.codes, other[2].model.codes)
    assert not np.array_equal(clustered(held(pixels), random_state=7)[0], first[0])


@pytest.mark.parametrize("executor", ["inline", "threads", pytest.param("processes")])
def test_same_seed_same_labels_whatever_the_executor(executor: str) -> None:
    pixels = tissue()
    first = clustered(held(pixels, (5, 45, 60)))
    other = clustered(held(pixels, (5, 45, 60)), executor=executor)
    np.testing.assert_array_equal(first[0], other[0])


@pytest.mark.slow
def test_a_dask_client_and_any_executor_do_the_work() -> None:
    from dask.distributed import Client, LocalCluster

    pixels = tissue()
    first = clustered(held(pixels, (5, 45, 60)))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        other = clustered(held(pixels, (5, 45, 60)), client=client)
    np.testing.assert_array_equal(first[0], other[0])
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        other = clustered(held(pixels, (5, 45, 60)), executor=pool)
    np.testing.assert_array_equal(first[0], other[0])


def test_pixels_with_nan_have_no_cluster_and_are_not_sampled() -> None:
    pixels = tissue()
    pixels[2, 10:40, 5:50] = np.nan
    pixels[0, 80, 100] = np.inf
    clusters, groups, fsom, _ = clustered(held(pixels))
    lost = ~np.isfinite(pixels).all(axis=0)
    assert (clusters[lost] == 0).all()
    assert (groups[lost] == 0).all()
    assert (clusters[~lost] > 0).all()
    cells = fsom.mudata["cell_data"]
    assert len(cells) == round(0.3 * (~lost).sum())
    assert np.isfinite(cells.X).all()


def test_volumes() -> None:
    pixels = tissue((5, 4, 50, 60))
    sdata = held(pixels, (1, 2, 30, 60))
    clusters, _, fsom, _ = clustered(sdata)
    assert sdata["clusters"].dims == ("z", "y", "x")
    found = fsom.model.cluster_model.predict(rows_of(pixels))
    np.testing.assert_array_equal(clusters.ravel(), found + 1)
    z, y, x = fsom.mudata["cell_data"].obsm["spatial"].T
    np.testing.assert_array_equal(fsom.mudata["cell_data"].X, pixels[:, z, y, x].T)


def test_several_images_share_a_map() -> None:
    first, second = tissue(), tissue((5, 60, 70), seed=3)[::-1]
    sdata = held(first)
    # The same channels in another order.
    sdata["other"] = Image2DModel.parse(second, dims=("c", "y", "x"), c_coords=CHANNELS[::-1])
    _, fsom, mapping = sl.im.flowsom(
        sdata, ["image", "other"], ["k1", "k2"], ["m1", "m2"], fraction=0.3, n_clusters=4, xdim=5,
        ydim=4,
    )  # fmt: skip
    for name, pixels in (("1", first), ("2", second[::-1])):
        found = fsom.model.cluster_model.predict(rows_of(pixels)) + 1
        np.testing.assert_array_equal(np.asarray(sdata[f"k{name}"].data).ravel(), found)
        groups = mapping.loc[found].to_numpy()
        np.testing.assert_array_equal(np.asarray(sdata[f"m{name}"].data).ravel(), groups)
    regions = fsom.mudata["cell_data"].obs["fov_labels"]
    # Drawn of all pixels together: each image has about its share.
    counts = regions.value_counts()
    assert counts.sum() == round(0.3 * (90 * 110 + 60 * 70))
    assert abs(counts["other"] - 1260) < 150


def test_backed_objects_are_written_with_transformations_and_pyramid(tmp_path: Path) -> None:
    pixels = tissue((5, 300, 260))
    scale = {"global": Scale([0.5, 0.5], ("x", "y"))}
    sdata = held(pixels, (1, 128, 128), transformations=scale)
    sdata.write(tmp_path / "store.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "store.zarr")
    _clusters, *_ = sl.im.flowsom(
        sdata, "image", "clusters", "groups", fraction=0.1, n_clusters=3, xdim=4, ydim=4,
        chunks=64, scale_factors=[2, 2],
    )  # fmt: skip
    there = spatialdata.read_zarr(tmp_path / "store.zarr")
    for name in ("clusters", "groups"):
        assert len(there[name].children) == 3
        matrix = get_transformation(there[name]).to_affine_matrix(("x", "y"), ("x", "y"))
        np.testing.assert_array_equal(matrix, np.diag([0.5, 0.5, 1]))
        finest = next(iter(there[name]["scale0"].values())).data
        assert finest.chunks[0][0] == 64
        coarse = next(iter(there[name]["scale1"].values())).data
        assert set(np.unique(coarse.compute())) <= set(np.unique(finest.compute()))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store.zarr"]


def test_multiscale_images_are_read_at_full_resolution() -> None:
    pixels = tissue((5, 128, 128))
    plain = clustered(held(pixels))
    scaled = clustered(held(pixels, scale_factors=[2]))
    np.testing.assert_array_equal(plain[0], scaled[0])


def test_max_samples_caps_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    _, _, fsom, _ = clustered(held(tissue()), fraction=None, max_samples=1000)
    assert len(fsom.mudata["cell_data"]) == 1000
    assert "max_samples" in caplog.text


def test_strata_keep_what_is_rare() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.gamma(2.0, 1.0, (3, 200, 200)).astype(np.float32)
    pixels[0] += 10
    pixels[2, :2, :30] += 100  # 60 pixels of 40,000
    plain = clustered(held(pixels), fraction=0.01)[2].mudata["cell_data"].X
    kept = clustered(held(pixels), fraction=0.01, strata="channels")[2].mudata["cell_data"].X
    assert (plain[:, 2] > 50).sum() < 5
    assert (kept[:, 2] > 50).sum() == 60


def test_an_estimator_of_somebody_else_is_asked_itself() -> None:
    import flowsom
    from flowsom.models import ConsensusCluster

    class Corner(flowsom.models.SOMEstimator):
        """Assigns by the city-block distance."""

        def predict(self, X: Any, y: Any = None) -> Any:
            gaps = np.abs(X[:, None] - self.codes[None]).sum(axis=2)
            self.labels_, self.distances = gaps.argmin(axis=1), gaps.min(axis=1)
            return self.labels_

    class Estimator(flowsom.models.BaseFlowSOMEstimator):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(Corner, ConsensusCluster, **kwargs)

    pixels = tissue()
    pixels[0, 0, 0] = np.nan
    clusters, _, fsom, _ = clustered(held(pixels), model=Estimator)
    rows = rows_of(pixels)[1:]
    gaps = np.abs(rows[:, None] - fsom.model.codes[None]).sum(axis=2)
    np.testing.assert_array_equal(clusters.ravel()[1:], gaps.argmin(axis=1) + 1)
    assert clusters[0, 0] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 1.5}, "fraction"),
        ({"fraction": 0.001}, "nodes"),
        ({"n_clusters": 50}, "n_clusters"),
        ({"n_clusters": 0}, "n_clusters"),
        ({"random_state": -1}, "random_state"),
        ({"max_samples": 0}, "max_samples"),
        ({"channels": ["CD3", "CD8"]}, "CD8.*CD68"),
        ({"channels": []}, "channels"),
        ({"channels": [7]}, "7"),
        ({"channels": ["CD3", "CD3"]}, "CD3"),
        ({"strata": "cells"}, "strata"),
        ({"executor": "cluster"}, "cluster"),
        ({"client": 3}, "client"),
        ({"rlenn": 3}, "rlenn"),
        ({"cols_to_use": ["CD3"]}, "channels"),
        ({"scale_factors": [0]}, "scale_factors"),
        ({"chunks": "many"}, "chunks"),
    ],
)
def test_wrong_arguments_leave_everything_as_it_was(options: Any, said: str) -> None:
    sdata = held(tissue())
    with pytest.raises(ScportraitLikeError, match=f"(?s){said}"):
        clustered(sdata, **options)
    assert not sdata.labels


def test_wrong_inputs() -> None:
    sdata = held(tissue())
    with pytest.raises(MissingInputError, match="no images element 'imagee'"):
        sl.im.flowsom(sdata, "imagee", "a", "b")
    with pytest.raises(InputError, match="2 images need 2 names"):
        sl.im.flowsom(sdata, ["image", "image"], "a", "b")
    with pytest.raises(InputError, match="twice"):
        sl.im.flowsom(sdata, "image", "a", "a")
    with pytest.raises(InputError, match="no pixel of image"):
        clustered(held(np.full((5, 20, 20), np.nan, np.float32)))
    constant = tissue()
    constant[3] = 4
    with pytest.raises(InputError, match=r"αSMA \(4\)"):
        clustered(held(constant))
    sdata["other"] = Image2DModel.parse(tissue()[:3], dims=("c", "y", "x"), c_coords=CHANNELS[:3])
    with pytest.raises(InputError, match=r"different channels.*DNA"):
        sl.im.flowsom(sdata, ["image", "other"], ["a", "b"], ["c", "d"])
    assert not sdata.labels


def test_existing_labels_are_kept_without_overwrite() -> None:
    sdata = held(tissue())
    before = clustered(sdata)[0]
    with pytest.raises(ElementExistsError, match="overwrite=True"):
        clustered(sdata, random_state=3)
    np.testing.assert_array_equal(np.asarray(sdata["clusters"].data), before)
    after = clustered(sdata, random_state=3, overwrite=True)[0]
    assert not np.array_equal(after, before)


def test_float16_is_taken_and_complex_is_not() -> None:
    pixels = tissue(dtype="float16")
    clusters, _, fsom, _ = clustered(held(pixels))
    found = fsom.model.cluster_model.predict(rows_of(pixels))
    np.testing.assert_array_equal(clusters.ravel(), found + 1)
    with pytest.raises(InputError, match="complex64"):
        clustered(held(tissue().astype(np.complex64)))


def test_channels_as_numpy_integers() -> None:
    clusters, *_ = clustered(held(tissue()), channels=np.array([4, 1]))
    other, *_ = clustered(held(tissue()), channels=["DNA", "CD20"])
    np.testing.assert_array_equal(clusters, other)


def test_a_training_beyond_the_budget_is_told(caplog: pytest.LogCaptureFixture) -> None:
    clustered(held(tissue()), memory_limit="250MB")
    assert "training on 2,970 pixels may take" in caplog.text


def test_a_background_of_zeros_that_ties() -> None:
    pixels = tissue()
    pixels[:, :80] = 0
    clusters, _, fsom, _ = clustered(held(pixels), fraction=None)
    fsom.model.predict(rows_of(pixels))
    np.testing.assert_array_equal(clusters.ravel(), fsom.model.cluster_labels + 1)
