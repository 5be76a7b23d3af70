"""The step Aggregation: its table against scikit-image, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from skimage.measure import regionprops_table

from scportrait_like import names
from scportrait_like.errors import (
    ConfigError,
    ElementExistsError,
    InputError,
    MissingInputError,
    StaleRunError,
)
from scportrait_like.io.ledger import read_ledger
from scportrait_like.project import Project
from scportrait_like.raster import tiles

from .helpers import Array, aggregation_digests, table_digests, write_raster

STATISTICS = ["mean", "var", "median", "q0.25", "max", "sum"]
# Three channels, a mask of sparse ids, tiles of 100 pixels: many cells cross some.
TILE = 100


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_EDGE", TILE)


def with_sparse_ids(labels: Array) -> Array:
    """Ids far apart, in an order of their own."""
    ids = np.arange(labels.max() + 1)
    ids[1:] = np.random.default_rng(0).permutation(ids[1:]) * 1013 + 5
    return ids[labels].astype(np.uint32)


@pytest.fixture
def mask(labels: Array) -> Array:
    return with_sparse_ids(labels)


def make(folder: Path, image: Array, mask: Array, section: Any = None, **options: Any) -> Project:
    """Make a project with a section Aggregation; chunks of 100 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    write_raster(folder, names.INPUT_IMAGE, image, (1, TILE, TILE), overwrite=True)
    write_raster(folder, names.SEG_CYTOSOL, mask, (TILE, TILE), overwrite=True)
    return Project(folder, {"Aggregation": section or {}}, **options)


def again(project: Project, section: Any, **options: Any) -> Project:
    """Open a project with another section, as a corrected script does."""
    opened = Project(project.project_location, {"Aggregation": section}, overwrite=True, **options)
    opened.overwrite = False
    for step in opened.steps["Aggregation"]:
        step.overwrite = False
    return opened


def table_of(project: Project, name: str = names.INTENSITIES) -> anndata.AnnData:
    return anndata.read_zarr(project.filehandler.path / "tables" / name)


def state_of(project: Project) -> str:
    (status,) = project.status()
    return status.state


def statistic(image: Array, mask: Array, what: Callable[[Array], float]) -> Array:
    """(cells, channels), by numpy."""
    ids = np.unique(mask[mask > 0])
    return np.array([[what(plane[mask == i]) for plane in image] for i in ids.tolist()])


# The table


def check_geometry(table: anndata.AnnData, mask: Array) -> None:
    wanted = ("label", "area", "bbox", "centroid")
    props = regionprops_table(mask, properties=wanted)
    obs = table.obs
    np.testing.assert_array_equal(obs[names.INSTANCE_KEY], props["label"])
    columns = ("area", "min_y", "min_x", "max_y", "max_x")
    for column, prop in zip(columns, ("area", *(f"bbox-{i}" for i in range(4))), strict=True):
        np.testing.assert_array_equal(obs[column], props[prop], column)
        assert obs[column].dtype == np.int64
    height, width = mask.shape
    outer = (obs.min_y == 0) | (obs.min_x == 0) | (obs.max_y == height) | (obs.max_x == width)
    np.testing.assert_array_equal(obs.touches_border, outer)
    assert 0 < outer.sum() < len(outer)
    centroid = np.stack([props["centroid-1"], props["centroid-0"]], axis=1)
    np.testing.assert_allclose(table.obsm["spatial"], centroid, rtol=1e-12)


def test_the_table(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask, {"statistics": STATISTICS})
    assert state_of(project) == "absent"
    project.aggregate()
    assert state_of(project) == "complete"
    assert project.aggregation_f.report.computed > 15
    table = table_of(project)
    assert list(table.var_names) == ["channel 0", "channel 1", "channel 2"]
    assert sorted(table.layers) == sorted(STATISTICS[1:])
    assert table.uns["X_statistic"] == "mean"
    assert {table.X.dtype, *(layer.dtype for layer in table.layers.values())} == {np.dtype(float)}
    check_geometry(table, mask)
    for name, what in {"median": np.median, "max": np.max, "sum": np.sum}.items():
        np.testing.assert_array_equal(table.layers[name], statistic(image, mask, what), name)
    quarter = statistic(image, mask, lambda pixels: np.quantile(pixels, 0.25))
    np.testing.assert_array_equal(table.layers["q0.25"], quarter)
    np.testing.assert_allclose(table.X, statistic(image, mask, np.mean), rtol=1e-13)
    np.testing.assert_allclose(table.layers["var"], statistic(image, mask, np.var), rtol=1e-9)
    # Also of cells that no tile holds as a whole.
    box = table.obs[["min_y", "min_x", "max_y", "max_x"]].to_numpy()
    crossing = (box[:, :2] // TILE != (box[:, 2:] - 1) // TILE).any(axis=1)
    assert crossing.sum() > 20


READER = """
import json, sys
import numpy as np
import spatialdata
sdata = spatialdata.read_zarr(sys.argv[1])
table = sdata["intensities"]
joined = spatialdata.match_element_to_table(sdata, "seg_all_cytosol", "intensities")[1]
print(json.dumps({
    "attrs": table.uns["spatialdata_attrs"],
    "rows": table.n_obs,
    "joined": joined.n_obs,
    "region": table.obs["region"].cat.categories.tolist(),
    "total": float(np.asarray(table.layers["sum"]).sum()),
    "var": list(table.var_names),
}))
"""


def test_readable_by_spatialdata_elsewhere(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask, {"statistics": ["mean", "sum"]})
    project.aggregate()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READER, str(project.filehandler.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    cells = len(np.unique(mask)) - 1
    assert found == {
        "attrs": {
            "region": names.SEG_CYTOSOL,
            "region_key": "region",
            "instance_key": "scportrait_cell_id",
        },
        "rows": cells,
        "joined": cells,
        "region": [names.SEG_CYTOSOL],
        "total": float(image[:, mask > 0].sum()),
        "var": ["channel 0", "channel 1", "channel 2"],
    }


def test_rows_are_the_ledger_and_the_mask(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    project.aggregate()
    ledger = read_ledger(project.aggregation_f.output_path / names.LEDGER_FILE)
    ids = np.unique(mask[mask > 0])
    np.testing.assert_array_equal(ledger.id, ids)
    np.testing.assert_array_equal(table_of(project).obs[names.INSTANCE_KEY], ids)
    assert set(ledger.state) == {"written"}
    assert set(ledger.reason) == {""}
    # The unit that is named saw the cell.
    width = -(-mask.shape[1] // TILE)
    for row in ledger.itertuples():
        tile = int(row.unit.removeprefix("tile-"))
        y, x = (TILE * place for place in divmod(tile, width))
        assert (mask[y : y + TILE, x : x + TILE] == row.id).any()


def test_a_complete_output_is_kept(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    project.aggregate()
    path = project.filehandler.element_path(names.INTENSITIES)
    before = path.stat().st_ino
    Project(tmp_path, {"Aggregation": {}}).aggregate()
    Project(tmp_path, overwrite=True).run()
    assert path.stat().st_ino == before
    Project(tmp_path).aggregate(overwrite=True)
    assert path.stat().st_ino != before


# Config


def test_keys_of_the_config(tmp_path: Path, image: Array, mask: Array, nuclei: Array) -> None:
    section = {
        "image": "other_image",
        "labels": "my_nuclei",
        "channels": ["channel 2", "channel 0"],
        "statistics": ["q0.9", "count", "mean"],
        "table_name": "of_nuclei",
        "region_key": "where",
        "instance_key": "which",
    }
    write_raster(tmp_path, "other_image", image + 1, (1, 100, 100))
    write_raster(tmp_path, "my_nuclei", nuclei, (50, 100))
    project = make(tmp_path, image, mask, section)
    project.aggregate()
    assert names.INTENSITIES not in project.filehandler
    table = table_of(project, "of_nuclei")
    assert list(table.var_names) == section["channels"]
    assert table.uns["X_statistic"] == "q0.9"
    assert list(table.layers) == ["mean"]
    assert table.uns["spatialdata_attrs"] == {
        "region": "my_nuclei",
        "region_key": "where",
        "instance_key": "which",
    }
    assert set(table.obs["where"]) == {"my_nuclei"}
    np.testing.assert_array_equal(table.obs["which"], np.unique(nuclei[nuclei > 0]))
    chosen = image[[2, 0]] + 1
    ninth = statistic(chosen, nuclei, lambda pixels: np.quantile(pixels, 0.9))
    np.testing.assert_array_equal(table.X, ninth)
    np.testing.assert_allclose(table.layers["mean"], statistic(chosen, nuclei, np.mean), rtol=1e-13)


def test_the_mask_of_nuclei_where_there_is_no_other(
    tmp_path: Path, image: Array, nuclei: Array
) -> None:
    write_raster(tmp_path, names.INPUT_IMAGE, image, (1, 128, 128))
    write_raster(tmp_path, names.SEG_NUCLEUS, nuclei, (128, 128))
    project = Project(tmp_path, {"Aggregation": {}})
    project.aggregate()
    assert set(table_of(project).obs["region"]) == {names.SEG_NUCLEUS}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"statistics": ["mean", "mode"]}, r"unknown statistic 'mode'; known are count, sum, mean"),
        ({"statistics": ["q1.5"]}, r"unknown statistic 'q1.5'.* quantiles from q0 to q1"),
        ({"statistics": ["mean", "mean"]}, "give each statistic once"),
        ({"statistics": ["count"]}, "at least one statistic of the pixels"),
        ({"statistics": []}, "at least one statistic of the pixels"),
        ({"statistic": ["mean"]}, "did you mean statistics"),
        ({"executor": "gpu"}, "executor"),
        ([{"name": "a"}, {"name": "a"}], "name"),
    ],
    ids=str,
)
def test_mistakes_in_the_config(tmp_path: Path, section: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        Project(tmp_path / "p", {"Aggregation": section})
    assert "Aggregation" in str(raised.value)
    assert not (tmp_path / "p").exists()


def test_no_section(tmp_path: Path, image: Array, mask: Array) -> None:
    make(tmp_path, image, mask)
    project = Project(tmp_path, {"HDF5CellExtraction": {}}, overwrite=True)
    assert project.aggregation_f is None
    with pytest.raises(ConfigError, match=r"section Aggregation is missing.*HDF5CellExtraction"):
        project.aggregate()


def test_a_list_makes_tables_side_by_side(tmp_path: Path, image: Array, mask: Array) -> None:
    section = [
        {"name": "bright", "statistics": ["max"]},
        {"name": "dna", "statistics": ["mean", "var"], "channels": ["channel 0"]},
    ]
    project = make(tmp_path, image, mask, section)
    assert [status.state for status in project.status()] == ["absent", "absent"]
    project.aggregate()
    assert [str(status) for status in project.status()] == [
        "Aggregation (bright): complete",
        "Aggregation (dna): complete",
    ]
    bright, dna = (table_of(project, f"intensities_{name}") for name in ("bright", "dna"))
    np.testing.assert_array_equal(bright.X, statistic(image, mask, np.max))
    assert dna.shape == (bright.n_obs, 1)
    # One of them is changed: the other stays as it is.
    section[1] = {**section[1], "statistics": ["mean"]}
    changed = again(project, section)
    states = [status.state for status in changed.status()]
    assert states == ["complete", "stale"]
    changed.steps["Aggregation"][1].process(overwrite=True)
    assert [status.state for status in changed.status()] == ["complete", "complete"]
    assert list(table_of(project, "intensities_dna").layers) == []


# Inputs


def test_an_empty_mask(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, np.zeros_like(mask))
    with pytest.raises(InputError, match=f"mask {names.SEG_CYTOSOL} is empty: it holds no label"):
        project.aggregate()
    assert state_of(project) == "absent"
    assert names.INTENSITIES not in project.filehandler


def test_a_channel_that_is_not_there(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask, {"channels": ["channel 1", "DAPI"]})
    with pytest.raises(InputError, match=r"DAPI.*channel 0, channel 1, channel 2"):
        project.aggregate()
    assert state_of(project) == "absent"


@pytest.mark.parametrize(("key", "value"), [("labels", "cells"), ("image", "stain")])
def test_an_element_that_is_not_there(
    tmp_path: Path, image: Array, mask: Array, key: str, value: str
) -> None:
    project = make(tmp_path, image, mask, {key: value})
    with pytest.raises(MissingInputError, match=value):
        project.aggregate()
    assert state_of(project) == "absent"


def test_sizes_that_do_not_fit(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask[:-3])
    with pytest.raises(InputError, match=r"300.*420.*297|297.*300"):
        project.aggregate()


def test_negative_ids(tmp_path: Path, image: Array, mask: Array) -> None:
    wrong = mask.astype(np.int32)
    wrong[150, 200:210] = -4
    project = make(tmp_path, image, wrong)
    with pytest.raises(InputError, match=r"seg_all_cytosol.*negative"):
        project.aggregate()
    assert names.INTENSITIES not in project.filehandler


# What was made from something else


def change_mask(project: Project, image: Array, mask: Array) -> Project:
    moved = np.roll(mask, 3, axis=1)
    write_raster(project.project_location, names.SEG_CYTOSOL, moved, (TILE, TILE), overwrite=True)
    return Project(project.project_location)


def change_image(project: Project, image: Array, mask: Array) -> Project:
    write_raster(
        project.project_location, names.INPUT_IMAGE, image + 1, (1, TILE, TILE), overwrite=True
    )
    return Project(project.project_location)


def change_config(project: Project, image: Array, mask: Array) -> Project:
    return again(project, {"statistics": ["max", "mean"]})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (change_mask, "inputs.seg_all_cytosol"),
        (change_image, "inputs.input_image"),
        (change_config, "config.statistics"),
    ],
)
def test_stale(tmp_path: Path, image: Array, mask: Array, change: Any, what: str) -> None:
    first = make(tmp_path, image, mask)
    first.aggregate()
    before = aggregation_digests(tmp_path)
    project = change(first, image, mask)
    (status,) = project.status()
    assert status.state == "stale"
    assert any(line.startswith(what) for line in status.changes), status
    with pytest.raises(StaleRunError, match=what) as raised:
        project.aggregate()
    assert "project.aggregate(overwrite=True)" in str(raised.value)
    assert aggregation_digests(tmp_path) == before
    project.aggregate(overwrite=True)
    assert state_of(project) == "complete"
    after = aggregation_digests(tmp_path)
    assert after["X"] != before["X"]
    fresh = make(tmp_path / "fresh", *inputs_of(project), dict(project.config["Aggregation"]))
    fresh.aggregate()
    assert aggregation_digests(tmp_path / "fresh") == after


def inputs_of(project: Project) -> tuple[Array, Array]:
    open_array = project.filehandler.open_array
    return open_array(names.INPUT_IMAGE)[:], open_array(names.SEG_CYTOSOL)[:]


def test_run_keys_do_not_make_it_stale(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    project.aggregate()
    other = again(project, {"threads": 1, "executor": "inline", "max_batch_size": 7})
    assert state_of(other) == "complete"


def test_a_table_that_was_deleted_is_made_again(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    project.aggregate()
    before = aggregation_digests(tmp_path)
    project.filehandler.delete_element(names.INTENSITIES)
    (status,) = project.status()
    assert (status.state, status.changes) == ("stale", ("table intensities is not in the store",))
    Project(tmp_path).aggregate()
    assert state_of(project) == "complete"
    assert aggregation_digests(tmp_path) == before


def foreign_table() -> anndata.AnnData:
    from spatialdata.models import TableModel

    return TableModel.parse(anndata.AnnData(np.full((2, 2), 7.0)))


def test_a_foreign_table_is_kept(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    project.filehandler.write_element(names.INTENSITIES, foreign_table())
    for _ in range(2):
        with pytest.raises(
            ElementExistsError, match=r"'intensities' already.*table_name"
        ) as raised:
            project.aggregate()
        assert "project.aggregate(overwrite=True)" in str(raised.value)
    with pytest.raises(ElementExistsError):
        project.run()
    assert not project.aggregation_f.directory.exists(), "refused before any work"
    assert table_of(project).X.tolist() == [[7, 7], [7, 7]]
    project.aggregate(overwrite=True)
    assert table_of(project).n_obs == len(np.unique(mask)) - 1
    assert state_of(project) == "complete"


def test_a_foreign_table_in_the_place_of_ours(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    project.aggregate()
    before = aggregation_digests(tmp_path)
    project.filehandler.write_element(names.INTENSITIES, foreign_table(), True)
    (status,) = project.status()
    assert (status.state, status.changes) == ("stale", ("table intensities is another one",))
    with pytest.raises(ElementExistsError):
        project.aggregate()
    assert table_of(project).X.tolist() == [[7, 7], [7, 7]]
    project.aggregate(overwrite=True)
    assert aggregation_digests(tmp_path) == before


# With other steps


def test_extraction_and_aggregation_in_one_run(tmp_path: Path, image: Array, mask: Array) -> None:
    config = {
        "HDF5CellExtraction": {"image_size": 32, "threads": 1},
        "Aggregation": {"statistics": STATISTICS},
    }
    make(tmp_path, image, mask)
    project = Project(tmp_path, config, overwrite=True)
    project.run()
    assert [str(status) for status in project.status()] == [
        "HDF5CellExtraction (data): complete",
        "Aggregation (data): complete",
    ]
    ids = set(table_of(project).obs[names.INSTANCE_KEY])
    extracted = project.h5sc.obs[names.INSTANCE_KEY]
    assert 0 < len(extracted) < len(ids)
    assert set(extracted) < ids
    alone = make(tmp_path / "alone", image, mask, {"statistics": STATISTICS})
    alone.run("Aggregation")
    assert aggregation_digests(tmp_path) == aggregation_digests(tmp_path / "alone")
    assert "intensities" in repr(project)


def test_other_elements_are_left_alone(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    project.filehandler.write_element("other", foreign_table())
    before = table_digests_of_foreign(project)
    project.aggregate()
    assert table_digests_of_foreign(project) == before
    np.testing.assert_array_equal(inputs_of(project)[1], mask)
    assert set(table_digests(tmp_path)) >= {"X", "obs", "spatial"}


def table_digests_of_foreign(project: Project) -> list[tuple[str, bytes]]:
    folder = project.filehandler.element_path("other")
    return sorted((str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file())


# The command line


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("scportrait-like")
    line = [str(program), *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_command_line(tmp_path: Path, image: Array, mask: Array) -> None:
    make(tmp_path, image, mask, {"statistics": ["mean", "median"]})
    assert "Aggregation (data): absent" in command("status", tmp_path).stdout
    done = command("run", tmp_path, "Aggregation")
    assert done.returncode == 0, done.stderr
    assert "Aggregation (data): complete" in done.stdout
    shown = command("status", tmp_path)
    assert "Aggregation (data): complete" in shown.stdout
    (tmp_path / "config.yml").write_text("Aggregation:\n  statistics: [max, mode]\n")
    refused = command("run", tmp_path)
    assert refused.returncode == 2
    assert "unknown statistic 'mode'; known are count, sum, mean" in refused.stderr
    (tmp_path / "config.yml").write_text("Aggregation:\n  statistics: [max]\n")
    stale = command("run", tmp_path)
    assert stale.returncode == 1
    assert "config.statistics: ['mean', 'median'] -> ['max']" in stale.stderr
    assert command("run", tmp_path, "--overwrite").returncode == 0
