"""The step `PixelClustering`: what it makes of small tissue, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata.transformations import Identity, Scale, get_transformation

from scportrait_like import im, names
from scportrait_like.errors import (
    ConfigError,
    ElementExistsError,
    InputError,
    MissingInputError,
    ShapeError,
    StaleRunError,
)
from scportrait_like.filehandler import FileHandler
from scportrait_like.pixels.trained_som import TrainedSom
from scportrait_like.project import Project
from scportrait_like.raster import tiles
from steps.pixel_clustering import PreprocessConfig

from .clustering import (
    CHANNELS,
    FILES,
    LABELS,
    SMALL,
    STEP,
    TABLES,
    TILE,
    Array,
    again,
    clustering_digests,
    labels_of,
    make,
    table_of,
    write,
)

PLAIN = {**SMALL, "preprocess": False}


@pytest.fixture(autouse=True, scope="module")
def small_tiles() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_EDGE", TILE)
        yield


@pytest.fixture
def mask(labels: Array) -> Array:
    return labels


@pytest.fixture(scope="module")
def made(small_tissue: Any, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has clustered its pixels as they are; it is only looked at."""
    image, mask, _ = small_tissue
    project = make(tmp_path_factory.mktemp("made"), image, mask, PLAIN)
    project.cluster_pixels()
    return project


@pytest.fixture
def copied(made: Project, tmp_path: Path) -> Project:
    """A copy of it, to be changed."""
    folder = tmp_path / "copied"
    shutil.copytree(made.project_location, folder)
    return Project(folder)


def state_of(project: Project) -> str:
    (status,) = project.status()
    return status.state


def som_of(project: Project, output: str = "data") -> TrainedSom:
    folder = project.project_location / names.PIXEL_CLUSTERING_DIR / output
    return TrainedSom.load(folder / names.SOM_FILE)


def predicted(som: TrainedSom, image: Array) -> Array:
    """What flowsom itself says of each pixel."""
    rows = image.reshape(len(image), -1).T.astype(np.float64)
    return (som.predict(rows) + 1).reshape(image.shape[1:])


# What it makes


def test_every_pixel_gets_what_flowsom_predicts(made: Project, image: Array) -> None:
    som = som_of(made)
    assert som.codes.shape == (12, 3)
    assert list(som.channels) == ["channel 0", "channel 1", "channel 2"]
    assert set(som.metaclusters) == {1, 2, 3, 4}
    assert som.preparation is None
    clusters, groups = (labels_of(made, name) for name in LABELS)
    assert clusters.dtype == groups.dtype == np.uint8
    np.testing.assert_array_equal(clusters, predicted(som, image))
    np.testing.assert_array_equal(groups, som.metaclusters[clusters - 1])
    assert made.pixel_clustering_f.report.computed > 3 * 15


def test_the_folder(made: Project) -> None:
    output = made.pixel_clustering_f.output_path
    assert output == made.project_location / "pixel_clustering" / "data"
    assert {path.name for path in output.iterdir()} == {*FILES, names.RUN_FILE}
    mapping = pd.read_csv(output / names.MAPPING_FILE, index_col="cluster")["metaclustering"]
    pd.testing.assert_series_equal(mapping, som_of(made).mapping, check_names=False)
    assert state_of(made) == "complete"
    assert set(made.sdata.tables) == set(TABLES)


def test_tables_of_intensities(made: Project, image: Array) -> None:
    som = som_of(made)
    for name, labels, key in zip(TABLES, LABELS, ("cluster", "metacluster"), strict=False):
        table, found = table_of(made, name), labels_of(made, labels)
        assert table.uns["spatialdata_attrs"] == {
            "region": labels,
            "region_key": "region",
            "instance_key": key,
        }
        assert list(table.var_names) == list(som.channels)
        ids = table.obs[key].tolist()
        assert ids == list(range(1, found.max() + 1))
        for row, group in enumerate(ids):
            pixels = image[:, found == group].astype(float)
            np.testing.assert_allclose(table.X[row], pixels.mean(axis=1), rtol=1e-12)
            assert table.obs["pixels"].iloc[row] == pixels.shape[1]
        np.testing.assert_allclose(table.obs["share"], table.obs["pixels"] / found.size)
    clusters = table_of(made, TABLES[0])
    np.testing.assert_array_equal(clusters.obs["metacluster"], som.metaclusters)


def test_the_table_of_counts(made: Project, mask: Array) -> None:
    table, som = table_of(made, names.PIXEL_CLUSTER_COUNTS), som_of(made)
    ids = np.unique(mask[mask > 0])
    np.testing.assert_array_equal(table.obs[names.INSTANCE_KEY], ids)
    assert table.uns["spatialdata_attrs"]["region"] == names.SEG_CYTOSOL
    assert list(table.var_names) == [str(i) for i in range(1, 13)]
    np.testing.assert_array_equal(table.var["metacluster"], som.metaclusters)
    clusters, groups = (labels_of(made, name) for name in LABELS)
    counts = table.X.toarray()
    for row, cell in enumerate(ids.tolist()):
        inside = mask == cell
        np.testing.assert_array_equal(counts[row], np.bincount(clusters[inside], minlength=13)[1:])
        own = np.bincount(groups[inside], minlength=5)[1:]
        np.testing.assert_array_equal(table.obsm["metaclusters"][row], own)
    area = [(mask == cell).sum() for cell in ids.tolist()]
    np.testing.assert_array_equal(table.obs["area"], area)
    np.testing.assert_array_equal(table.obs["pixels"], area)
    np.testing.assert_array_equal(
        table.obs["metacluster"], table.obsm["metaclusters"].argmax(axis=1) + 1
    )
    y, x = np.nonzero(mask == ids[7])
    np.testing.assert_allclose(table.obsm["spatial"][7], [x.mean(), y.mean()])


def test_it_is_read_by_spatialdata(made: Project) -> None:
    sdata = spatialdata.read_zarr(made.filehandler.path)
    for name in LABELS:
        element = sdata[name]
        assert len(element.children) == 2
        assert isinstance(get_transformation(element), Identity)
        finest = next(iter(element["scale0"].data_vars.values()))
        np.testing.assert_array_equal(finest.data.compute(), labels_of(made, name))
    for name, labels in zip(TABLES, (*LABELS, names.SEG_CYTOSOL), strict=True):
        elements, joined = spatialdata.join_spatialelement_table(
            sdata=sdata, spatial_element_names=labels, table_name=name, how="left"
        )
        assert joined.n_obs == sdata[name].n_obs
        assert labels in elements


def test_the_same_as_by_functions(tmp_path: Path, image: Array, mask: Array) -> None:
    """Prepared on the way, or by `pixel_clustering_preprocess` before `flowsom`: equal labels."""
    given = {"p": 99, "p_sum": 10, "p_post": 99.5, "sigma": 1.5}
    project = make(tmp_path, image, mask, {**SMALL, "preprocess": given})
    project.cluster_pixels()
    som = som_of(project)
    assert som.preparation is not None
    sdata = spatialdata.SpatialData.init_from_elements({"i": project.sdata[names.INPUT_IMAGE]})
    im.pixel_clustering_preprocess(sdata, "i", "prepared", **given)
    small = {key: SMALL[key] for key in ("xdim", "ydim", "n_clusters", "fraction")}
    _, fsom, mapping = im.flowsom(sdata, "prepared", "clusters", "groups", **small)
    found = [im.get_dataarray(sdata, name).data.compute() for name in ("clusters", "groups")]
    for name, expected in zip(LABELS, found, strict=True):
        np.testing.assert_array_equal(labels_of(project, name), expected)
    assert 0.02 < (found[0] == 0).mean() < 0.5
    assert som.mapping.tolist() == mapping.tolist()
    np.testing.assert_array_equal(som.codes, fsom.model.codes)
    obs = table_of(project, names.PIXEL_CLUSTER_COUNTS).obs
    assert obs["pixels"].sum() == ((mask > 0) & (found[0] > 0)).sum()


def test_the_images_transformations(tmp_path: Path, image: Array) -> None:
    section = {**PLAIN, "image": "scaled"}
    project = make(tmp_path, image, None, section)
    transforms = {"global": Identity(), "micrometer": Scale([0.5, 0.25], axes=("y", "x"))}
    write(tmp_path, "scaled", image, (1, 64, 150), transforms=transforms)
    project.cluster_pixels()
    for name in LABELS:
        assert project.filehandler.open_array(name).chunks == (64, 150)
        found = get_transformation(project.sdata[name], get_all=True)
        assert set(found) == set(transforms)
        matrix = found["micrometer"].to_affine_matrix(("y", "x"), ("y", "x"))
        np.testing.assert_allclose(np.diag(matrix), [0.5, 0.25, 1])


def test_a_volume(tmp_path: Path, image: Array) -> None:
    """Loaders make planes only; but an image of another source may be one, without a mask."""
    volume = np.stack([image[:, :90, :100], image[:, 100:190, 100:200]], axis=1)
    tmp_path.mkdir(exist_ok=True)
    with FileHandler(tmp_path).raster_writer(
        names.INPUT_IMAGE, "images", volume.shape, volume.dtype, chunks=(1, 1, 50, 40)
    ) as writer:
        writer.write((slice(None),) * 4, volume)
    project = Project(tmp_path, {STEP: PLAIN})
    project.cluster_pixels()
    np.testing.assert_array_equal(labels_of(project), predicted(som_of(project), volume))
    assert spatialdata.read_zarr(project.filehandler.path)[LABELS[1]]["scale0"].image.ndim == 3


def test_nan_is_no_cluster(tmp_path: Path, image: Array, mask: Array) -> None:
    holed = image.astype(np.float32)
    holed[1, 40:90, 100:220] = np.nan
    holed[0, 200, 5] = np.inf
    project = make(tmp_path, holed, mask, PLAIN)
    project.cluster_pixels()
    finite = np.isfinite(holed).all(axis=0)
    clusters = labels_of(project)
    np.testing.assert_array_equal(clusters > 0, finite)
    rows = holed[:, finite].T.astype(np.float64)
    np.testing.assert_array_equal(clusters[finite], som_of(project).predict(rows) + 1)
    counts = table_of(project, names.PIXEL_CLUSTER_COUNTS)
    assert counts.X.sum() == (finite & (mask > 0)).sum()


# Settings


def test_keys_of_the_config(tmp_path: Path, image: Array, mask: Array, nuclei: Array) -> None:
    section = {
        **PLAIN,
        "labels": "my_nuclei",
        "channels": ["channel 2", "channel 0"],
        "strata": "channels",
        "max_samples": 3000,
        "random_state": 7,
        "estimator": "batch",
        "clusters_name": "nodes",
        "metaclusters_name": "kinds",
        "clusters_table_name": "of_nodes",
        "metaclusters_table_name": "of_kinds",
        "table_name": "in_cells",
        "region_key": "where",
        "instance_key": "which",
    }
    write(tmp_path, "my_nuclei", nuclei, (50, 100))
    project = make(tmp_path, image, mask, section)
    project.cluster_pixels()
    assert not {*LABELS, *TABLES} & set(project.filehandler.element_names())
    som = som_of(project)
    assert list(som.channels) == section["channels"]
    assert som.settings["seed"] == 7
    assert "Batch" in som.estimator
    assert som.sample["drawn"] == 3000
    np.testing.assert_array_equal(labels_of(project, "nodes"), predicted(som, image[[2, 0]]))
    table = table_of(project, "in_cells")
    assert set(table.obs["where"]) == {"my_nuclei"}
    np.testing.assert_array_equal(table.obs["which"], np.unique(nuclei[nuclei > 0]))
    assert table_of(project, "of_kinds").uns["spatialdata_attrs"]["region"] == "kinds"
    assert list(table_of(project, "of_nodes").var_names) == section["channels"]


def test_the_cap_is_told(tmp_path: Path, image: Array, log_of: Callable[[Project], str]) -> None:
    project = make(tmp_path, image, None, {**PLAIN, "max_samples": 500})
    project.cluster_pixels()
    assert "500 pixels (max_samples)" in log_of(project)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"fraction": 0}, "fraction: 0"),
        ({"fraction": 1.5}, "fraction: 1.5"),
        ({"max_samples": 0}, "max_samples"),
        ({"n_clusters": 0}, "n_clusters"),
        ({"n_clusters": 101}, "ydim: 10.*as many as n_clusters"),
        ({"xdim": 1, "ydim": 1, "n_clusters": 1}, "ydim: 1.*two at least"),
        ({"xdim": 200, "ydim": 51}, r"ydim: 51.*and 10,000 at most"),
        ({"xdim": 10_001, "ydim": 1}, r"xdim: 10001"),
        ({"strata": "cells"}, "strata.*known are channels"),
        ({"estimator": "som"}, "estimator"),
        ({"random_state": -1}, "random_state"),
        ({"preprocess": {"p": 101}}, r"preprocess\.p: 101"),
        ({"preprocess": {"sigmas": 2}}, "preprocess.*unknown sigmas; known are p, p_sum"),
        ({"preprocess": {"sigma": -1}}, r"preprocess\.sigma: -1 .*a number from 0 on, a list of"),
        ({"preprocess": {"sigma": [1, "a"]}}, r"preprocess\.sigma: \[1, 'a'\].*a number from 0"),
        ({"clusters_name": "a", "metaclusters_name": "a"}, "metaclusters_name: 'a'.*clusters_name"),
        ({"table_name": "a", "clusters_table_name": "a"}, "clusters_table_name: 'a'.*table_name"),
        ({"preprocess": {"cast_dtype": "float16"}}, r"preprocess\.cast_dtype"),
        ({"preprocess": "no"}, "preprocess"),
        ({"nclusters": 5}, "did you mean n_clusters"),
        ({"model": "there", "n_clusters": 7, "channels": ["a"]}, "model.*leave out channels, n_cl"),
        ([{"name": "a"}, {"name": "a"}], "name"),
        ([{"name": "a", "clusters_name": "x"}, {"name": "b", "clusters_name": "x"}], "labels x"),
    ],
    ids=str,
)
def test_mistakes_in_the_config(tmp_path: Path, section: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        Project(tmp_path / "p", {STEP: section})
    assert STEP in str(raised.value)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("value", [None, True, {}, {"p": 99}])
def test_the_usual_preprocess(tmp_path: Path, value: Any) -> None:
    steps = Project(tmp_path / "p", {STEP: [{"name": "a"}, {"name": "b", "preprocess": value}]})
    usual, given = (step.config.preprocess for step in steps.steps[STEP])
    assert usual == given is not None


def test_a_list_of_sections(tmp_path: Path, image: Array, mask: Array) -> None:
    section = [
        {"name": "all", **PLAIN},
        {"name": "two", **PLAIN, "channels": ["channel 1", "channel 2"]},
    ]
    project = make(tmp_path, image, mask, section)
    project.cluster_pixels()
    assert [str(status) for status in project.status()] == [
        "PixelClustering (all): complete",
        "PixelClustering (two): complete",
    ]
    for name, channels in (("all", [0, 1, 2]), ("two", [1, 2])):
        expected = predicted(som_of(project, name), image[channels])
        np.testing.assert_array_equal(labels_of(project, f"pixel_clusters_{name}"), expected)
    alone = make(tmp_path / "alone", image, mask, section[0])
    alone.cluster_pixels()
    own = clustering_digests(tmp_path / "alone", "all", "_all")
    assert own == clustering_digests(tmp_path, "all", "_all")


# Masks


def test_without_a_mask(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, None, PLAIN)
    project.cluster_pixels()
    assert names.PIXEL_CLUSTER_COUNTS not in project.filehandler
    assert state_of(project) == "complete"
    write(tmp_path, names.SEG_CYTOSOL, mask, (TILE, TILE))
    (status,) = Project(tmp_path).status()
    assert status.state == "stale"
    assert any(line.startswith("inputs.seg_all_cytosol: None") for line in status.changes)
    Project(tmp_path).cluster_pixels(overwrite=True)
    assert table_of(project, names.PIXEL_CLUSTER_COUNTS).n_obs == len(np.unique(mask)) - 1


def test_a_mask_that_is_left_alone(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask[:-3], {**PLAIN, "count_in_cells": False})
    project.cluster_pixels()
    assert names.PIXEL_CLUSTER_COUNTS not in project.filehandler
    assert state_of(project) == "complete"


def test_masks_that_do_not_work(tmp_path: Path, image: Array, mask: Array) -> None:
    for name, wrong, error, said in (
        ("size", mask[:-3], ShapeError, "300, 420.*count_in_cells"),
        ("empty", np.zeros_like(mask), InputError, "is empty.*count_in_cells"),
    ):
        project = make(tmp_path / name, image, wrong, PLAIN)
        with pytest.raises(error, match=said):
            project.cluster_pixels()
        assert state_of(project) == "absent"
    project = make(tmp_path / "name", image, mask, {**PLAIN, "labels": "cells"})
    with pytest.raises(MissingInputError, match="cells"):
        project.cluster_pixels()


# Inputs


@pytest.mark.parametrize(
    ("keys", "error", "said"),
    [
        ({"channels": ["channel 1", "DAPI"]}, InputError, r"DAPI.*channel 0, channel 1"),
        ({"image": "stain"}, MissingInputError, "stain"),
        ({"image": names.SEG_CYTOSOL}, InputError, "one of the labels"),
        (
            {"preprocess": {"sigma": [1, 2]}},
            InputError,
            r"key preprocess: sigma has 2 values for 3",
        ),
        ({"channels": ["channel 1"]}, InputError, r"key preprocess: of a single.*norm_sum: false"),
        ({"model": "nowhere"}, MissingInputError, "model.*nowhere"),
        ({"fraction": 1e-4, "xdim": 4, "ydim": 4}, InputError, "16"),
    ],
    ids=str,
)
def test_inputs_that_do_not_work(
    tmp_path: Path, image: Array, mask: Array, keys: Any, error: type[Exception], said: str
) -> None:
    project = make(tmp_path, image, mask, keys)
    with pytest.raises(error, match=said):
        project.cluster_pixels()
    assert not {*LABELS, *TABLES} & set(project.filehandler.element_names())
    assert not project.pixel_clustering_f.output_path.exists()


def test_a_constant_channel_is_named(tmp_path: Path, image: Array, mask: Array) -> None:
    image = image.copy()
    image[1] = 7
    project = make(tmp_path, image, mask, PLAIN)
    with pytest.raises(InputError, match=r"channel 1.*channels"):
        project.cluster_pixels()
    assert not {*LABELS, *TABLES} & set(project.filehandler.element_names())


def test_a_channel_that_is_constant_before_the_preparation(
    tmp_path: Path, image: Array, mask: Array
) -> None:
    """Divided by the sums over the channels it is not constant any more."""
    image = image.copy()
    image[1] = 7
    project = make(tmp_path, image, mask, SMALL)
    with pytest.raises(InputError, match=r"single value in all pixels.*: channel 1 \(7\); leave"):
        project.cluster_pixels()
    assert not {*LABELS, *TABLES} & set(project.filehandler.element_names())


def test_no_section(tmp_path: Path, image: Array, mask: Array) -> None:
    make(tmp_path, image, mask)
    project = Project(tmp_path, {"Aggregation": {}}, overwrite=True)
    assert project.pixel_clustering_f is None
    with pytest.raises(ConfigError, match=r"section PixelClustering is missing.*Aggregation"):
        project.cluster_pixels()


# What was made from something else


def change_image(project: Project) -> Project:
    folder, there = project.project_location, project.filehandler
    pixels = there.open_array(names.INPUT_IMAGE)[:]
    write(folder, names.INPUT_IMAGE, pixels + 1, (1, TILE, TILE))
    return Project(folder)


def change_mask(project: Project) -> Project:
    folder, there = project.project_location, project.filehandler
    mask = np.roll(there.open_array(names.SEG_CYTOSOL)[:], 3, axis=1)
    write(folder, names.SEG_CYTOSOL, mask, (TILE, TILE))
    return Project(folder)


def change_config(project: Project) -> Project:
    return again(project, {**PLAIN, "random_state": 3})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (change_image, "inputs.input_image"),
        (change_mask, "inputs.seg_all_cytosol"),
        (change_config, "config.random_state: 100 -> 3"),
    ],
)
def test_stale(copied: Project, change: Callable[[Project], Project], what: str) -> None:
    folder = copied.project_location
    before = clustering_digests(folder)
    project = change(copied)
    (status,) = project.status()
    assert status.state == "stale"
    assert any(line.startswith(what) for line in status.changes), status
    with pytest.raises(StaleRunError, match=what) as raised:
        project.cluster_pixels()
    assert "project.cluster_pixels(overwrite=True)" in str(raised.value)
    assert clustering_digests(folder) == before
    project.cluster_pixels(overwrite=True)
    assert state_of(project) == "complete"
    assert clustering_digests(folder) != before


def test_a_complete_output_is_kept(copied: Project) -> None:
    path = copied.filehandler.element_path(LABELS[0])
    before = path.stat().st_ino
    copied.cluster_pixels()
    again(copied, {**PLAIN, "threads": 1, "executor": "inline"}).run()
    assert path.stat().st_ino == before
    digests = clustering_digests(copied.project_location)
    Project(copied.project_location).cluster_pixels(overwrite=True)
    assert path.stat().st_ino != before
    assert clustering_digests(copied.project_location) == digests


@pytest.mark.parametrize("name", [LABELS[1], TABLES[0], TABLES[2]])
def test_an_element_that_was_deleted_is_made_again(copied: Project, name: str) -> None:
    before = clustering_digests(copied.project_location)
    copied.filehandler.delete_element(name)
    (status,) = copied.status()
    assert status.state == "stale"
    assert status.changes[0].endswith(f"{name} is not in the store")
    Project(copied.project_location).cluster_pixels()
    assert state_of(copied) == "complete"
    assert clustering_digests(copied.project_location) == before


def test_foreign_elements_are_kept(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask, PLAIN)
    write(tmp_path, LABELS[1], mask, (TILE, TILE))
    for overwrite in (None, True):
        with pytest.raises(ElementExistsError, match=r"pixel_metaclusters'.*another metaclusters_"):
            project.cluster_pixels(overwrite=overwrite)
    assert not project.pixel_clustering_f.directory.exists(), "refused before any work"
    np.testing.assert_array_equal(labels_of(project, LABELS[1]), mask)
    # What another step made may be replaced.
    project.filehandler.delete_element(LABELS[1])
    table, attributes = anndata.AnnData(np.zeros((2, 1))), {names.MADE_BY: "aggregation/data"}
    project.filehandler.write_element(TABLES[0], table, True, attributes)
    with pytest.raises(ElementExistsError, match=f"{TABLES[0]}.*clusters_table_name") as said:
        project.cluster_pixels()
    assert "project.cluster_pixels(overwrite=True)" in str(said.value)
    project.cluster_pixels(overwrite=True)
    assert table_of(project, TABLES[0]).n_obs == 12
    assert state_of(project) == "complete"
    # A name that another kind of element has cannot be taken at all.
    other = again(project, {**PLAIN, "clusters_name": names.INPUT_IMAGE})
    with pytest.raises(InputError, match="one of the images"):
        other.cluster_pixels(overwrite=True)


# A saved map


@pytest.fixture
def second(small_tissue: Any) -> Array:
    """Another section: other pixels, channels in another order, another dtype."""
    return np.ascontiguousarray(small_tissue[0][::-1, ::-1, 30:]).astype(np.float32)


def other_project(folder: Path, image: Array, section: Any) -> Project:
    write(folder, names.INPUT_IMAGE, image, (1, 90, 80), CHANNELS[::-1][: len(image)])
    return Project(folder, {STEP: section})


@pytest.mark.parametrize("place", [".", "pixel_clustering", "pixel_clustering/data/model.json"])
def test_a_map_is_applied_to_another_project(
    made: Project, tmp_path: Path, second: Array, place: str
) -> None:
    project = other_project(tmp_path, second, {"model": str(made.project_location / place)})
    project.cluster_pixels()
    stages = {name.split("-")[0] for name in project.pixel_clustering_f.report.parts}
    assert stages
    som = som_of(project)
    np.testing.assert_array_equal(som.codes, som_of(made).codes)
    np.testing.assert_array_equal(labels_of(project), predicted(som, second[::-1]))
    assert list(table_of(project, TABLES[0]).var_names) == list(som.channels)
    assert state_of(project) == "complete"


def test_a_map_brings_its_preparation(
    tmp_path: Path, image: Array, second: Array, mask: Array
) -> None:
    first = make(tmp_path / "first", image, mask, {**SMALL, "preprocess": {"sigma": 1}})
    first.cluster_pixels()
    # The same pixels give the same labels: the percentiles are those of the map.
    folder = first.project_location / names.PIXEL_CLUSTERING_DIR
    same = other_project(
        tmp_path / "same", np.ascontiguousarray(image[::-1]), {"model": str(folder)}
    )
    same.cluster_pixels()
    np.testing.assert_array_equal(labels_of(same), labels_of(first))
    # A part of them too, away from its border.
    part = np.ascontiguousarray(image[::-1, 100:220, 50:250])
    partial = other_project(tmp_path / "part", part, {"model": str(folder)})
    partial.cluster_pixels()
    inner = (slice(8, -8), slice(8, -8))
    np.testing.assert_array_equal(
        labels_of(partial)[inner], labels_of(first)[100:220, 50:250][inner]
    )
    assert som_of(partial).percentiles == som_of(first).percentiles


def test_the_map_counts_by_its_content(made: Project, tmp_path: Path, second: Array) -> None:
    saved = tmp_path / "saved.json"
    shutil.copy(made.pixel_clustering_f.output_path / names.SOM_FILE, saved)
    project = other_project(tmp_path / "p", second, {"model": str(saved)})
    project.cluster_pixels()
    moved = again(project, {"model": str(made.project_location)})
    assert state_of(moved) == "complete"
    content = json.loads(saved.read_text())
    content["metaclusters"][0] = content["metaclusters"][0] % 4 + 1
    saved.write_text(json.dumps(content))
    changed = again(project, {"model": str(saved)})
    (status,) = changed.status()
    assert status.state == "stale"
    assert status.changes == (f"the saved map {saved} has changed",)
    with pytest.raises(StaleRunError, match=r"the saved map .*saved\.json has changed"):
        changed.cluster_pixels()


def test_maps_that_do_not_fit(made: Project, tmp_path: Path, second: Array) -> None:
    project = other_project(tmp_path / "p", second[:2], {"model": str(made.project_location)})
    with pytest.raises(InputError, match=r"key model.*channel 0; it has channel 2, channel 1"):
        project.cluster_pixels()
    broken = tmp_path / "broken.json"
    content = json.loads((made.pixel_clustering_f.output_path / names.SOM_FILE).read_text())
    content["preparation"] = PreprocessConfig().preparation().as_json()
    for text, said in (("{", "cut short"), (json.dumps(content), "no percentiles are given")):
        broken.write_text(text)
        project = other_project(tmp_path / "q", second, {"model": str(broken)})
        with pytest.raises(InputError, match=rf"{STEP}: key model: .*broken\.json.*{said}"):
            project.cluster_pixels()


# Executors and the command line


@pytest.mark.parametrize(
    ("executor", "threads"),
    [("inline", 1), ("threads", 1), ("processes", 2)],
)
def test_executors(made: Project, copied: Project, executor: str, threads: int) -> None:
    project = again(copied, {**PLAIN, "executor": executor, "threads": threads})
    project.cluster_pixels(overwrite=True)
    assert project.pixel_clustering_f.report.executor == executor
    assert clustering_digests(copied.project_location) == clustering_digests(made.project_location)


@pytest.mark.slow
def test_a_dask_cluster(made: Project, copied: Project) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        project = again(copied, {**PLAIN, "executor": "dask"})
        project.cluster_pixels(overwrite=True)
        assert project.pixel_clustering_f.report.executor == "dask"
    assert clustering_digests(copied.project_location) == clustering_digests(made.project_location)


def test_chunks_change_no_label(made: Project, tmp_path: Path, image: Array, mask: Array) -> None:
    write(tmp_path, names.INPUT_IMAGE, image, (2, 300, 70))
    write(tmp_path, names.SEG_CYTOSOL, mask, (128, 128))
    project = Project(tmp_path, {STEP: PLAIN})
    project.cluster_pixels()
    for name in LABELS:
        np.testing.assert_array_equal(labels_of(project, name), labels_of(made, name))
    first, other = (table_of(each, TABLES[2]) for each in (made, project))
    np.testing.assert_array_equal(first.X.toarray(), other.X.toarray())


def test_run_and_other_steps(tmp_path: Path, image: Array, mask: Array) -> None:
    """The labels are labels as any: another step may read them in the same run."""
    config = {STEP: PLAIN, "Aggregation": {"labels": LABELS[0], "channels": ["channel 1"]}}
    make(tmp_path, image, mask)
    project = Project(tmp_path, config, overwrite=True)
    project.run()
    assert [status.state for status in project.status()] == ["complete", "complete"]
    means, own = (table_of(project, name) for name in ("intensities", TABLES[0]))
    np.testing.assert_allclose(means.X[:, 0], own[:, "channel 1"].X[:, 0], rtol=1e-12)
