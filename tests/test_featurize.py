"""`tb.featurize` against a plain loop, on objects in memory and in stores."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Image3DModel, Labels2DModel, Labels3DModel, TableModel
from spatialdata.transformations import Identity, Scale, Sequence, Translation

import scportrait_like as sl
from scportrait_like.errors import (
    ConfigError,
    ElementExistsError,
    InputError,
    MissingInputError,
    ModelError,
)
from tests.instances.oracle import windows

DIMENSION = 6


def weighed(batch: NDArray[Any], embedding_dimension: int, shift: int = 0) -> NDArray[Any]:
    """Sums of the pixels under weights: exact, and no two places of a window weigh the same."""
    flat = batch.reshape(len(batch), -1).astype(np.int64)
    weights = (np.arange(flat.shape[1])[:, None] + shift) * np.arange(1, embedding_dimension + 1)
    return flat @ weights


def own_pixels(
    batch: NDArray[Any], mask: NDArray[np.bool_], embedding_dimension: int
) -> NDArray[Any]:
    """Pixels of the mask, and how many of them are 0."""
    assert mask.shape == (len(batch), 1, *batch.shape[2:])
    area = mask.sum(axis=(1, 2, 3, 4))
    dark = (mask & (batch[:, :1] == 0)).sum(axis=(1, 2, 3, 4))
    return np.stack([area, dark], axis=1)[:, :embedding_dimension]


def failing(batch: NDArray[Any], embedding_dimension: int) -> NDArray[Any]:
    raise RuntimeError("no weights here")


def field(seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """An image (3, 60, 80) and labels that do not fill it, ids in no order."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((60, 80), np.int32)
    ids = rng.permutation(np.arange(1, 90))[:20]
    for number, id_ in enumerate(ids):
        y, x = divmod(number, 5)
        height, width = rng.integers(3, 14, 2)
        labels[15 * y : 15 * y + height, 16 * x : 16 * x + width] = id_
    return rng.integers(0, 4000, (3, 60, 80)).astype(np.uint16), labels


def fields(tmp_path: Path | None = None) -> SpatialData:
    """Two fields, each in a coordinate system of its own."""
    images, labels = {}, {}
    for k in range(2):
        image, mask = field(k)
        placed = {f"fov{k}": Identity()}
        images[f"image{k}"] = Image2DModel.parse(
            image, c_coords=["a", "b", "c"], chunks=(1, 32, 32), transformations=placed
        )
        labels[f"cells{k}"] = Labels2DModel.parse(mask, chunks=(25, 32), transformations=placed)
    sdata = SpatialData(images=images, labels=labels)
    if tmp_path is None:
        return sdata
    sdata.write(tmp_path / "fields.zarr")
    return spatialdata.read_zarr(tmp_path / "fields.zarr")


BOTH: dict[str, Any] = {
    "image_name": ["image0", "image1"],
    "labels_name": ["cells0", "cells1"],
    "to_coordinate_system": ["fov0", "fov1"],
}


def featurize(sdata: SpatialData, **options: Any) -> SpatialData:
    given = {
        "image_name": "image0",
        "labels_name": "cells0",
        "to_coordinate_system": "fov0",
        "table_name": None,
        "output_table_name": "embeddings",
        "diameter": 12,
        "embedding_dimension": DIMENSION,
        "model": weighed,
        "dtype": np.float64,
        **options,
    }
    return sl.tb.featurize(sdata, **given)


def expected(k: int, diameter: int = 12, remove_background: bool = True) -> dict[int, Any]:
    """Vectors of a field's cells, by id."""
    image, labels = field(k)
    ids, _, images = windows(labels[None], image[:, None], diameter, remove_background)
    assert images is not None
    return dict(zip(ids.tolist(), weighed(images, DIMENSION).astype(np.float64), strict=True))


def table_of_both(sdata: SpatialData, rows: Any = None) -> Any:
    """A table over both fields, its rows in an order of its own."""
    for k in range(2):
        sl.tb.allocate_intensity(
            sdata,
            f"image{k}",
            f"cells{k}",
            "table",
            to_coordinate_system=f"fov{k}",
            append=k > 0,
            instance_key="id",
            region_key="where",
        )
    table = sdata["table"]
    order = np.random.default_rng(0).permutation(table.n_obs) if rows is None else rows
    table = table[order].copy()
    table.uns[TableModel.ATTRS_KEY]["region"] = sorted(set(table.obs["where"]))
    table.layers["twice"] = 2 * table.X
    table.uns["kept"] = "yes"
    sl.io.tables.place_table(sdata, "table", table, overwrite=True)
    return table


def bytes_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_example_of_the_tutorial() -> None:
    """As it is, but for the import, smaller windows and fewer cells' worth of them."""
    sdata = sl.datasets.pixie_example()

    image_name = "raw_image_fov0"
    labels_name = "label_whole_fov0"

    sdata = sl.tb.allocate_intensity(
        sdata,
        image_name=image_name,
        labels_name=labels_name,
        to_coordinate_system="fov0",
        output_table_name="my_table",
        mode="sum",
        obs_stats="count",  # cell size
        overwrite=True,
    )

    def my_model(
        batch: NDArray[Any],
        normalize: bool = True,
        embedding_dimension: int = 64,
    ) -> NDArray[Any]:
        # batch: (b, c, z, y, x) -> return (b, d)
        vecs = batch.reshape(batch.shape[0], -1).astype(np.float32)

        if normalize:
            norms = np.linalg.norm(vecs, axis=1, keepdims=True) + 1e-8
            vecs = vecs / norms

        # Project to desired embedding dimension (toy example)
        weights = (
            np.random.RandomState(0).randn(vecs.shape[1], embedding_dimension).astype(np.float32)
        )

        return vecs @ weights

    sdata = sl.tb.featurize(
        sdata,
        image_name=image_name,
        labels_name=labels_name,
        table_name="my_table",
        output_table_name="my_table",
        depth=12,
        embedding_dimension=64,
        diameter=24,
        model=my_model,
        model_kwargs={"normalize": True},
        batch_size=100,
        to_coordinate_system="fov0",
        embedding_obsm_key="embedding",
    )

    found = sdata["my_table"].obsm["embedding"]
    image, labels = (sdata[name].data.compute() for name in (image_name, labels_name))
    ids, _, images = windows(labels[None], image[:, None], 24)
    assert sdata["my_table"].obs["cell_ID"].tolist() == ids.tolist()
    assert images is not None
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, my_model(images), rtol=1e-4, atol=1e-4)
    assert sdata["my_table"].obsm["spatial"].shape == (len(ids), 2)


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("remove_background", [True, False])
def test_a_new_table_over_two_regions(
    tmp_path: Path, backed: bool, remove_background: bool
) -> None:
    sdata = fields(tmp_path if backed else None)
    returned = featurize(
        sdata,
        **BOTH,
        remove_background=remove_background,
        embedding_obsm_key="weighed",
        instance_key="id",
        region_key="where",
        cell_index_name="index",
    )
    assert returned is sdata
    for found in [sdata, spatialdata.read_zarr(sdata.path)] if backed else [sdata]:
        table = found["embeddings"]
        assert table.shape == (40, 0)
        assert table.obs["where"].tolist() == ["cells0"] * 20 + ["cells1"] * 20
        assert table.obs["id"].dtype == np.int32
        assert table.obs.index.name == "index"
        assert table.obs_names[0] == f"cells0_{table.obs['id'].iloc[0]}"
        assert table.obsm["weighed"].dtype == np.float64
        answers = [expected(k, remove_background=remove_background) for k in range(2)]
        assert table.obs["id"].tolist() == [id_ for each in answers for id_ in sorted(each)]
        for row, (where, id_) in enumerate(zip(table.obs["where"], table.obs["id"], strict=True)):
            answer = answers[int(where[-1])][id_]
            np.testing.assert_array_equal(table.obsm["weighed"][row], answer)
        assert set(found.get_annotated_regions(table)) == {"cells0", "cells1"}
        assert set(found.images) == {"image0", "image1"}


@pytest.mark.parametrize("backed", [False, True])
def test_rows_of_a_table_that_is_there(tmp_path: Path, backed: bool) -> None:
    """A part of the cells of two fields in any order; all else of the table is kept."""
    sdata = fields(tmp_path if backed else None)
    given = table_of_both(sdata, np.array([31, 4, 0, 39, 12, 22, 5]))
    featurize(sdata, **BOTH, table_name="table")
    featurize(sdata, **BOTH, table_name="table", output_table_name="table", diameter=7)
    answers = {
        name: [expected(k, size) for k in range(2)]
        for name, size in (("embeddings", 12), ("table", 7))
    }
    for found in [sdata, spatialdata.read_zarr(sdata.path)] if backed else [sdata]:
        for name, answer in answers.items():
            table = found[name]
            assert table.obs_names.tolist() == given.obs_names.tolist()
            assert set(table.obsm) == {"spatial", "embedding"}
            cells = zip(table.obs["where"], table.obs["id"], strict=True)
            rows = [answer[int(where[-1])][id_] for where, id_ in cells]
            np.testing.assert_array_equal(table.obsm["embedding"], np.stack(rows))
            np.testing.assert_array_equal(table.X, given.X)
            np.testing.assert_array_equal(table.layers["twice"], given.layers["twice"])
            np.testing.assert_array_equal(table.obsm["spatial"], given.obsm["spatial"])
            assert table.uns["kept"] == "yes"
            assert table.uns["X_statistic"] == "mean"
    assert "embedding" not in given.obsm


def test_the_regions_may_come_in_any_order() -> None:
    sdata = fields()
    table_of_both(sdata)
    turned = {key: each[::-1] for key, each in BOTH.items()}
    featurize(sdata, **BOTH, table_name="table")
    featurize(sdata, **turned, table_name="table", output_table_name="turned")
    np.testing.assert_array_equal(
        sdata["turned"].obsm["embedding"], sdata["embeddings"].obsm["embedding"]
    )


def test_rows_twice_and_no_rows() -> None:
    sdata = fields()
    given = table_of_both(sdata, np.array([3, 3, 8]))
    given.obs_names_make_unique()
    sdata["table"] = given
    featurize(sdata, table_name="table")
    found = sdata["embeddings"].obsm["embedding"]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[2], expected(0)[int(given.obs["id"].iloc[2])])
    nobody = given[:0].copy()
    nobody.uns[TableModel.ATTRS_KEY]["region"] = []
    sdata["none"] = nobody
    featurize(sdata, table_name="none", output_table_name="still_none")
    assert sdata["still_none"].obsm["embedding"].shape == (0, DIMENSION)


@pytest.mark.parametrize("backed", [False, True])
def test_cells_that_the_labels_lack_are_named(tmp_path: Path, backed: bool) -> None:
    sdata = fields(tmp_path if backed else None)
    table = table_of_both(sdata, np.arange(5))
    table.obs.loc[table.obs_names[2], "id"] = 777
    sdata["odd"] = table
    before = bytes_below(tmp_path)
    with pytest.raises(InputError, match=r"table 'odd' does not fit .* cells0 holds no label 777"):
        featurize(sdata, table_name="odd", model=failing)
    assert bytes_below(tmp_path) == before
    assert "embeddings" not in sdata


def test_a_part_of_a_volume(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    labels = np.kron(rng.integers(0, 9, (2, 4, 5)), np.ones((3, 6, 6), int)).astype(np.uint16)
    image = rng.integers(0, 999, (2, 8, 30, 40)).astype(np.float32)
    place = Scale([0.5, 0.5, 2.0], axes=("x", "y", "z"))
    moved = Translation([1, 4, 5], axes=("z", "y", "x"))
    sdata = SpatialData(
        images={
            "image": Image3DModel.parse(image, chunks=(1, 3, 16, 16), transformations={"um": place})
        },
        labels={
            "cells": Labels3DModel.parse(
                labels, chunks=(4, 11, 9), transformations={"um": Sequence([moved, place])}
            )
        },
    )
    sdata.write(tmp_path / "volume.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "volume.zarr")
    featurize(sdata, image_name="image", labels_name="cells", to_coordinate_system="um")
    ids, _, images = windows(labels, image[:, 1:7, 4:28, 5:35], 12)
    assert images is not None
    assert images.shape[1:] == (2, 6, 12, 12)
    assert sdata["embeddings"].obs["cell_ID"].tolist() == ids.tolist()
    np.testing.assert_array_equal(sdata["embeddings"].obsm["embedding"], weighed(images, DIMENSION))


def test_several_scales() -> None:
    image, labels = field(0)
    sdata = SpatialData(
        images={"image": Image2DModel.parse(image, scale_factors=[2, 2])},
        labels={"cells": Labels2DModel.parse(labels, scale_factors=[2])},
    )
    featurize(sdata, image_name="image", labels_name="cells", to_coordinate_system="global")
    answer = expected(0)
    np.testing.assert_array_equal(
        sdata["embeddings"].obsm["embedding"], np.stack([answer[id_] for id_ in sorted(answer)])
    )


@pytest.mark.parametrize("batch_size", [1, 7, None])
def test_batches_and_arguments_of_the_model(batch_size: int | None) -> None:
    sdata = fields()
    sizes = []

    def model(batch: NDArray[Any], shift: int, embedding_dimension: int) -> NDArray[Any]:
        assert batch.shape[1:] == (3, 1, 12, 12)
        assert batch.dtype == np.uint16
        sizes.append(len(batch))
        return weighed(batch, embedding_dimension, shift) - weighed(batch, embedding_dimension, 0)

    featurize(
        sdata, model=model, model_kwargs={"shift": 2}, batch_size=batch_size, depth=6, diameter=None
    )
    image, labels = field(0)
    ids, _, images = windows(labels[None], image[:, None], 12)
    assert images is not None
    sums = images.reshape(len(ids), -1).sum(axis=1, dtype=np.int64)
    np.testing.assert_array_equal(
        sdata["embeddings"].obsm["embedding"], 2 * sums[:, None] * np.arange(1, DIMENSION + 1)
    )
    assert sum(sizes) == len(ids)
    assert max(sizes) == (batch_size or len(ids))


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_executors_agree(tmp_path: Path, executor: str) -> None:
    sdata = fields(tmp_path)
    featurize(sdata, **BOTH, executor=executor)
    answers = [expected(k) for k in range(2)]
    np.testing.assert_array_equal(
        sdata["embeddings"].obsm["embedding"],
        np.stack([each[id_] for each in answers for id_ in sorted(each)]),
    )


def test_models_of_masks_and_by_name() -> None:
    sdata = fields()
    featurize(sdata, model=own_pixels, embedding_dimension=2, dtype=np.int32)
    image, labels = field(0)
    ids, masks, images = windows(labels[None], image[:, None], 12)
    assert images is not None
    found = sdata["embeddings"].obsm["embedding"]
    assert found.dtype == np.int32
    assert found[:, 0].tolist() == [(mask != 0).sum() for mask in masks]
    featurize(sdata, model=f"{__name__}:weighed", output_table_name="named")
    np.testing.assert_array_equal(sdata["named"].obsm["embedding"], weighed(images, DIMENSION))
    featurize(sdata, model="intensity_statistics", embedding_dimension=None, output_table_name="s")
    assert sdata["s"].obsm["embedding"].shape[0] == len(ids)


def test_the_default_model() -> None:
    """Means of the channels; zeros behind them."""
    sdata = fields()
    sl.tb.featurize(sdata, "image0", "cells0", None, "default", 12, 5, to_coordinate_system="fov0")
    image, labels = field(0)
    images = windows(labels[None], image[:, None], 12)[2]
    assert images is not None
    found = sdata["default"].obsm["embedding"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :3], images.mean(axis=(2, 3, 4)), rtol=1e-6)
    assert not found[:, 3:].any()


def test_a_model_is_fitted_once_for_all_regions() -> None:
    """The same window has the same vector in either region."""
    sdata = fields()
    sdata["image1"], sdata["cells1"] = sdata["image0"], sdata["cells0"]
    both = {**BOTH, "to_coordinate_system": "fov0"}
    featurize(sdata, **both, model="pca", embedding_dimension=3, model_kwargs={"sample": 13})
    found = sdata["embeddings"].obsm["embedding"]
    np.testing.assert_allclose(found[:20], found[20:], rtol=1e-9)
    assert np.abs(found).max() > 0


def test_a_model_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    sdata = fields(tmp_path)
    table_of_both(sdata)
    before, there = bytes_below(tmp_path), sdata["table"].copy()
    options = {**BOTH, "table_name": "table", "output_table_name": "table", "overwrite": True}
    with pytest.raises(ModelError, match="no weights here"):
        featurize(sdata, **options, model=failing)
    with pytest.raises(ModelError, match="wanted is"):
        featurize(sdata, **options, model=own_pixels)
    assert bytes_below(tmp_path) == before
    assert list(sdata["table"].obsm) == list(there.obsm)
    np.testing.assert_array_equal(sdata["table"].X, there.X)


def test_what_is_there_is_replaced_when_asked_only(tmp_path: Path) -> None:
    sdata = fields(tmp_path)
    table_of_both(sdata, np.arange(20))
    own = {"table_name": "table", "output_table_name": "table"}
    featurize(sdata, **own)
    before = bytes_below(tmp_path)
    with pytest.raises(ElementExistsError, match=r"obsm\['embedding'\]; overwrite=True"):
        featurize(sdata, **own, model=failing)
    with pytest.raises(ElementExistsError, match="overwrite=True"):
        featurize(sdata, output_table_name="table", model=failing)
    assert bytes_below(tmp_path) == before
    featurize(sdata, **own, embedding_obsm_key="other", diameter=9)
    featurize(sdata, **own, overwrite=True, embedding_dimension=2)
    for found in (sdata, spatialdata.read_zarr(sdata.path)):
        assert {key: each.shape[1] for key, each in found["table"].obsm.items()} == {
            "spatial": 2,
            "embedding": 2,
            "other": DIMENSION,
        }
    featurize(sdata, output_table_name="table", overwrite=True)
    assert spatialdata.read_zarr(sdata.path)["table"].shape == (20, 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_name": "imag"}, MissingInputError, "images: image0, image1"),
        ({"labels_name": "cell"}, MissingInputError, "labels: cells0, cells1"),
        ({"table_name": "tabel"}, MissingInputError, "has no table 'tabel'; it has table"),
        ({"image_name": ["image0", "image1"]}, InputError, "image_name names 2, labels_name 1"),
        ({"labels_name": [], "image_name": []}, InputError, "names 0"),
        ({**BOTH, "labels_name": ["cells0", "cells0"]}, InputError, "twice"),
        ({**BOTH, "to_coordinate_system": ["fov0"]}, InputError, "is not placed in"),
        (
            {"table_name": "table"},
            InputError,
            "annotates cells0, cells1, but labels_name is cells0",
        ),
        ({"table_name": "plain"}, InputError, "annotates no element"),
        ({"diameter": None}, InputError, "give diameter"),
        ({"diameter": 0}, InputError, "diameter=0"),
        ({"diameter": 2.5}, InputError, "diameter=2.5"),
        ({"batch_size": 0}, InputError, "batch_size=0"),
        ({"dtype": "U4"}, InputError, "real numbers"),
        ({"embedding_obsm_key": "a/b"}, InputError, "'a/b' cannot stand in a table"),
        ({"instance_key": "k", "region_key": "k"}, InputError, "cannot have both"),
        ({"output_table_name": "image0"}, InputError, "cannot name one of the tables"),
        ({"store_intermediate": True}, InputError, "store_intermediate=True"),
        ({"model": "no_such_model"}, ConfigError, "no_such_model"),
        ({"model": "pca", "embedding_dimension": None}, InputError, "give embedding_dimension"),
        ({"embedding_dimension": 0}, InputError, "embedding_dimension"),
        ({"model": lambda batch: batch}, InputError, "embedding_dimension"),
        ({"model_kwargs": {"nosuch": 1}}, InputError, "nosuch"),
        ({"executor": "treads"}, ConfigError, "treads"),
    ],
)
def test_wrong_arguments_are_told_before_any_work(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    sdata = fields()
    table_of_both(sdata)
    sdata["plain"] = sdata["table"].copy()
    del sdata["plain"].uns[TableModel.ATTRS_KEY]
    tables = set(sdata.tables)
    with pytest.raises(error, match=message):
        featurize(sdata, **{"model": failing, **options})
    assert set(sdata.tables) == tables


def test_empty_labels() -> None:
    sdata = fields()
    sdata["empty"] = Labels2DModel.parse(
        np.zeros((60, 80), np.int32), transformations={"fov0": Identity()}
    )
    with pytest.raises(InputError, match="labels empty are empty"):
        featurize(sdata, labels_name="empty")


def test_what_is_not_needed_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sdata = fields(tmp_path)
    with caplog.at_level(logging.INFO):
        featurize(sdata, run_on_gpu=True, depth=6, store_intermediate=True, meta=3, ovewrite=None)
    assert "run_on_gpu" in caplog.text
    assert "not needed: depth, store_intermediate" in caplog.text
    warned = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert "not known, and not used: meta, ovewrite" in warned
    np.testing.assert_array_equal(
        sdata["embeddings"].obsm["embedding"],
        np.stack([row for _, row in sorted(expected(0).items())]),
    )


def test_a_depth_that_gives_the_diameter_is_needed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        featurize(fields(), depth=6, diameter=None)
    assert "not needed" not in caplog.text
    assert "not known" not in caplog.text


def test_a_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def budget(limit: Any) -> int:
        asked.append(limit)
        return 1 << 30

    monkeypatch.setattr("scportrait_like.raster.instance_runs.memory_budget", budget)
    featurize(fields(), memory_limit="1GB")
    assert set(asked) == {"1GB"}
