"""The step Featurization: its table against plain numpy, and what it refuses."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest

from scportrait_like import names
from scportrait_like.errors import (
    ConfigError,
    ElementExistsError,
    InputError,
    MissingInputError,
    ModelError,
    RunError,
    StaleRunError,
)
from scportrait_like.io.featurization_inputs import ImageWindows
from scportrait_like.io.ledger import read_ledger
from scportrait_like.models import PREFIXES, ModelSpec
from scportrait_like.project import Project
from scportrait_like.raster import featurizing, fitting, heads, tiles
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.steps import Featurization

from . import featurizing as featurizing_models
from .featurizing import (
    EXTRACTION,
    HERE,
    STEP,
    brightness,
    feature_digests,
    features_of,
    section,
    windows,
)
from .helpers import Array, write_raster
from .test_aggregation import with_sparse_ids

TILE = 100
SIZE = 16


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_EDGE", TILE)
    monkeypatch.setattr(featurizing, "UNIT_ROWS", 10)
    monkeypatch.setattr(featurizing, "_SMALLEST_UNIT", 1)


@pytest.fixture
def mask(labels: Array) -> Array:
    return with_sparse_ids(labels)


def make(folder: Path, image: Array, mask: Array, given: Any = None, **options: Any) -> Project:
    """Make a project with a section Featurization, and an extraction that keeps all cells."""
    folder.mkdir(parents=True, exist_ok=True)
    write_raster(folder, names.INPUT_IMAGE, image, (1, TILE, TILE), overwrite=True)
    write_raster(folder, names.SEG_CYTOSOL, mask, (TILE, TILE), overwrite=True)
    return Project(folder, config(given), **options)


def config(given: Any = None) -> dict[str, Any]:
    extraction = {"image_size": SIZE, "border": "pad", "threads": 1}
    return {STEP: given or {}, EXTRACTION: extraction}


def again(project: Project, given: Any, **options: Any) -> Project:
    """Open a project with another section, as a corrected script does."""
    opened = Project(project.project_location, config(given), overwrite=True, **options)
    opened.overwrite = False
    for step in opened.steps[STEP]:
        step.overwrite = False
    return opened


def states(project: Project) -> list[str]:
    return [status.state for step in project.steps[STEP] for status in step.status()]


def pictures_of(project: Project, name: str = names.EXTRACTION_DATA) -> tuple[Array, Array]:
    path = project.project_location / names.EXTRACTION_DIR / name / names.H5SC_FILE
    with h5py.File(path) as file:
        return file["obsm/single_cell_images"][:], file["obs/scportrait_cell_id"][:]


def ledger_of(project: Project, name: str = names.FEATURES) -> Any:
    path = project.project_location / names.FEATURIZATION_DIR / name / names.LEDGER_FILE
    return read_ledger(path)


PIXELS = {"model": f"{HERE}:pixels"}

# The table


@pytest.mark.parametrize("background", [False, True])
def test_windows_of_the_image(tmp_path: Path, image: Array, mask: Array, background: bool) -> None:
    given = section(
        **PIXELS, embedding_dimension=2 * 17 * 17, channels=["channel 2", "channel 0"]
    ) | {"remove_background": not background}
    project = make(tmp_path, image, mask, given)
    assert states(project) == ["absent"]
    project.featurize()
    assert states(project) == ["complete"]
    assert project.featurization_f.report.computed > 15
    table = features_of(project)
    wanted = windows(image[[2, 0]], mask, 17, background)
    np.testing.assert_array_equal(table.X, wanted.reshape(len(wanted), -1))
    assert table.X.dtype == np.float32
    ids = np.unique(mask[mask > 0])
    np.testing.assert_array_equal(table.obs[names.INSTANCE_KEY], ids)
    centres = [np.mean(np.nonzero(mask == i), axis=1)[::-1] for i in ids]
    np.testing.assert_allclose(table.obsm["spatial"], centres, rtol=1e-12)
    assert list(table.var_names[:2]) == ["embedding_0", "embedding_1"]
    about = table.uns["featurization"]
    assert (about["model"], about["diameter"], about["source"]) == (f"{HERE}:pixels", 17, "images")
    assert list(about["channels"]) == ["channel 2", "channel 0"]


@pytest.mark.parametrize(
    "compression", ["lzf", *(pytest.param(c, marks=pytest.mark.slow) for c in ("gzip", "none"))]
)
def test_pictures_of_the_extraction(
    tmp_path: Path, image: Array, mask: Array, compression: str
) -> None:
    given = {**PIXELS, "embedding_dimension": 2 * 40**2, "channels": ["channel 2", "channel 0"]}
    project = make(tmp_path, image, mask, given)
    whole = config(given)
    whole[EXTRACTION] |= {"compression": compression, "border": "discard", "image_size": 40}
    project = Project(tmp_path, whole, overwrite=True)
    project.run()
    pictures, ids = pictures_of(project)
    table = features_of(project)
    wanted = pictures[:, [3, 1]].astype(np.float32)
    np.testing.assert_array_equal(table.X, wanted.reshape(len(wanted), -1))
    np.testing.assert_array_equal(table.obs[names.INSTANCE_KEY], ids)
    centres = [np.mean(np.nonzero(mask == i), axis=1)[::-1] for i in ids.tolist()]
    np.testing.assert_allclose(table.obsm["spatial"], centres, rtol=1e-12)
    assert project.featurization_f.report.computed == -(-len(ids) // min(10, -(-len(ids) // 64)))
    # Every id of the extraction, with what became of it.
    ledger = ledger_of(project)
    before = read_ledger(project.extraction_f.output_path / names.LEDGER_FILE)
    for column in ("id", "state", "reason"):
        assert list(ledger[column]) == list(before[column]), column
    assert (ledger.state == "dropped").sum() > 3
    assert set(ledger.unit[ledger.state == "written"].str[:5]) == {"rows-"}


@pytest.mark.slow
def test_masks_of_the_pictures(tmp_path: Path, image: Array, mask: Array) -> None:
    given = {"model": f"{HERE}:masks", "embedding_dimension": SIZE**2}
    project = make(tmp_path, image, mask, given)
    project.run()
    pictures, _ = pictures_of(project)
    np.testing.assert_array_equal(
        features_of(project).X, (pictures[:, 0] > 0).reshape(len(pictures), -1)
    )


def test_two_masks(tmp_path: Path, image: Array, mask: Array, nuclei: Array) -> None:
    """By default each mask and where they differ is measured; the table annotates the cytosol."""
    nuclei = np.where(nuclei > 0, mask, 0).astype(mask.dtype)
    write_raster(tmp_path, names.SEG_NUCLEUS, nuclei, (TILE, TILE))
    project = make(tmp_path, image, mask)
    project.run()
    table = features_of(project)
    pictures, ids = pictures_of(project)
    shown = pictures.astype(np.float32)
    np.testing.assert_array_equal(table.obs[names.INSTANCE_KEY], ids)
    assert list(table.var_names[:3]) == [
        "nucleus_area",
        "cytosol_area",
        "cytosol_only_area",
    ]
    np.testing.assert_array_equal(table.X[:, 0], (shown[:, 0] > 0).sum(axis=(1, 2)))
    mean = table[:, "channel 1_mean_cytosol"].X[:, 0]
    wanted = [cell[3][cell[1] > 0].mean(dtype=float) for cell in shown]
    np.testing.assert_allclose(mean, wanted, rtol=1e-5)
    assert set(table.obs["region"]) == {names.SEG_CYTOSOL}


READER = """
import json, sys
import spatialdata
sdata = spatialdata.read_zarr(sys.argv[1])
table = sdata["features"]
joined = spatialdata.match_element_to_table(sdata, "seg_all_cytosol", "features")[1]
print(json.dumps([table.uns["spatialdata_attrs"], joined.n_obs, float(table.X.sum(dtype=float))]))
"""


def test_readable_by_spatialdata_elsewhere(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask, section(model="shape"))
    project.featurize()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READER, str(project.filehandler.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = features_of(project)
    keys = {"region": names.SEG_CYTOSOL, "region_key": "region"}
    assert json.loads(done.stdout.splitlines()[-1]) == [
        {**keys, "instance_key": "scportrait_cell_id"},
        len(np.unique(mask)) - 1,
        float(table.X.sum(dtype=float)),
    ]


def test_keys_of_the_config(tmp_path: Path, image: Array, mask: Array, nuclei: Array) -> None:
    given = section(
        image="other_image",
        labels="my_nuclei",
        model=f"{HERE}:brightness",
        model_kwargs={"scale": 0.5},
        name="bright",
        table_name="of_nuclei",
        region_key="where",
        instance_key="which",
    )
    write_raster(tmp_path, "other_image", image + 1, (1, 100, 100))
    write_raster(tmp_path, "my_nuclei", nuclei, (50, 100))
    project = make(tmp_path, image, mask, given)
    project.featurize()
    table = features_of(project, "of_nuclei")
    assert table.uns["spatialdata_attrs"] == {
        "region": "my_nuclei",
        "region_key": "where",
        "instance_key": "which",
    }
    np.testing.assert_array_equal(table.obs["which"], np.unique(nuclei[nuclei > 0]))
    brightest = windows(image + 1, nuclei, 17).reshape(table.n_obs, -1).max(axis=1)
    np.testing.assert_array_equal(table.X[:, 0], (brightest / 2).astype(np.float32))
    assert json.loads(table.uns["featurization"]["model_kwargs"]) == {"scale": 0.5}
    assert (tmp_path / "featurization" / "bright" / "run.json").exists()


@pytest.mark.parametrize(
    "source",
    [pytest.param(section(), marks=pytest.mark.slow), {}],
    ids=["images", "extraction"],
)
def test_a_fixed_batch_size(tmp_path: Path, image: Array, mask: Array, source: Any) -> None:
    model = {"model": f"{HERE}:batch_size", "batch_size": 3, "max_batch_size": 2}
    project = make(tmp_path, image, mask, {**source, **model})
    project.run()
    sizes = features_of(project).X[:, 0]
    assert sizes.max() == 3
    if not source:
        assert (sizes == 3).sum() >= len(sizes) - 2
    changed = again(project, {**source, **model, "max_batch_size": 1})
    assert states(changed) == ["complete"]
    default = again(project, {**source, **model, "batch_size": None, "max_batch_size": 2})
    default.featurize(overwrite=True)
    assert features_of(project).X.max() == 2


# Picks


def test_a_pick_from_images(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask, section(model="shape"))
    project.extract(partial=True, n_cells=12, seed=3)
    _, wanted = pictures_of(project, "partial_data_ncells_12_seed_3")
    project.featurize(12, "partial", 3)
    name = "partial_features_ncells_12_seed_3"
    table = features_of(project, name)
    np.testing.assert_array_equal(table.obs[names.INSTANCE_KEY], wanted)
    project.featurize()
    whole = features_of(project)
    rows = np.searchsorted(whole.obs[names.INSTANCE_KEY], wanted)
    np.testing.assert_array_equal(table.X, whole.X[rows])
    np.testing.assert_array_equal(table.obsm["spatial"], whole.obsm["spatial"][rows])
    ledger = ledger_of(project, name)
    np.testing.assert_array_equal(ledger.id, np.unique(mask[mask > 0]))
    assert set(ledger.id[ledger.state == "written"]) == set(wanted.tolist())
    assert set(ledger.state) == {"written", "not_selected"}
    assert [status.output for status in project.featurization_f.status()] == ["features", name]


def test_a_pick_that_was_extracted(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    call = r"project.extract\(partial=True, n_cells=12, seed=42\)"
    with pytest.raises(MissingInputError, match=f"extraction is absent; run {call}"):
        project.featurize(12, "partial")
    project.extract(partial=True, n_cells=12)
    project.featurize(12, "partial")
    name = "partial_features_ncells_12_seed_42"
    _, wanted = pictures_of(project, "partial_data_ncells_12_seed_42")
    np.testing.assert_array_equal(features_of(project, name).obs[names.INSTANCE_KEY], wanted)
    assert dict(ledger_of(project, name).state.value_counts()) == {
        "written": 12,
        "dropped": 0,
        "not_selected": len(np.unique(mask)) - 13,
    }


def test_a_pick_from_all_pictures(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    with pytest.raises(MissingInputError, match=r"absent; run project\.extract\(\)"):
        project.featurize(9)
    project.extract()
    project.featurize(9, partial_seed=5)
    _, ids = pictures_of(project)
    pick = np.random.default_rng(5).choice(len(ids), 9, replace=False)
    table = features_of(project, "features_ncells_9_seed_5")
    np.testing.assert_array_equal(table.obs[names.INSTANCE_KEY], ids[pick])
    ledger = ledger_of(project, "features_ncells_9_seed_5")
    assert (ledger.state == "not_selected").sum() == len(ids) - 9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((5, "some"), "data_type='some' is not allowed: give complete or partial"),
        ((-1,), "n_cells=-1 is not allowed"),
        ((2.5,), "n_cells=2.5 is not allowed: give a whole number"),
        (("5",), "n_cells='5' is not allowed: give a whole number"),
        ((True,), "n_cells=True is not allowed: give a whole number"),
        ((5, "complete", 1.0), "partial_seed=1.0 is not allowed: give a whole number"),
        ((0, "partial"), "data_type='partial' needs n_cells"),
        ((0, "complete", 4), "partial_seed=4 picks cells only with n_cells"),
        ((3, "partial", -4), "partial_seed -4 is not allowed"),
        ((10**6, "partial"), "n_cells=1000000, but mask seg_all_cytosol holds"),
    ],
    ids=str,
)
def test_wrong_arguments(
    tmp_path: Path, image: Array, mask: Array, arguments: Any, said: str
) -> None:
    project = make(tmp_path, image, mask, section(model="shape"))
    with pytest.raises(InputError, match=said):
        project.featurize(*arguments)
    assert states(project) == ["absent"]


# Config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "images"}, "key diameter: None .* source: images needs the edge"),
        ({"diameter": 20}, "key diameter: 20 .* pictures of a size of their own"),
        ({"remove_background": False}, "key remove_background: False .* no background"),
        (section(diameter=0), "key diameter: 0"),
        (section(diameter=8.5), "key diameter: 8.5"),
        ({"source": "files"}, "key source: 'files'"),
        ({"model": "mean"}, "key model: 'mean' .* registered are intensity_statistics"),
        ({"model_kwargs": [1]}, "key model_kwargs"),
        ({"batch_size": 0}, "key batch_size: 0"),
        ({"embedding_dimension": "12"}, "key embedding_dimension: '12'"),
        ({"models": "pca"}, "did you mean model"),
        ({"name": "a/b"}, "key name: 'a/b'"),
        ([{"name": "a"}, {"name": "b", "table_name": "a"}], "would both write table a"),
        ([{}, {"name": "b"}], "with a name of its own|each with a name"),
    ],
    ids=str,
)
def test_mistakes_in_the_config(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        Project(tmp_path / "p", config(given))
    assert STEP in str(raised.value)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "nowhere:model"}, "key model: .*'nowhere' cannot be imported"),
        ({"model": f"{HERE}:nothing"}, "key model: .*no 'nothing'"),
        ({"model": f"{HERE}:features_of"}, "key model: .*embedding_dimension"),
        ({"model": f"{HERE}:brightness", "model_kwargs": {"n": 1}}, "key model: .*no 'n'"),
        ({"model": f"{HERE}:pixels"}, "key embedding_dimension: .*give embedding_dimension"),
        ({"model": "shape", "embedding_dimension": 3}, "key embedding_dimension: .*not embed"),
        ({"channels": ["DAPI"]}, "key channels: DAPI not in the .*channel 0, channel 1"),
        ({"channels": ["channel 0", "channel 0"]}, "key channels: .*each channel once"),
        ({"model": "pca", "embedding_dimension": 900}, "key model_kwargs: .*pca"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "source",
    [section(), pytest.param({}, marks=pytest.mark.slow)],
    ids=["images", "extraction"],
)
def test_mistakes_that_only_the_run_sees(
    tmp_path: Path, image: Array, mask: Array, source: Any, given: Any, said: str
) -> None:
    project = make(tmp_path, image, mask, {**source, **given})
    if not source:
        project.extract()
    with pytest.raises((ConfigError, InputError), match=said) as raised:
        project.featurize()
    assert f"section {STEP}" in str(raised.value)
    assert states(project) == ["absent"]
    assert names.FEATURES not in project.filehandler


def test_an_empty_mask(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, np.zeros_like(mask), section())
    with pytest.raises(InputError, match=f"mask {names.SEG_CYTOSOL} is empty"):
        project.featurize()
    assert states(project) == ["absent"]


def test_no_section(tmp_path: Path) -> None:
    project = Project(tmp_path, {EXTRACTION: {}})
    assert project.featurization_f is None
    with pytest.raises(ConfigError, match=r"section Featurization is missing.*HDF5CellExtraction"):
        project.featurize()


def test_an_older_section_of_another_package(tmp_path: Path, image: Array, mask: Array) -> None:
    old = {"CellFeaturizer": {"batch_size": 900, "inference_device": "cpu"}}
    project = make(tmp_path, image, mask)
    extraction = {EXTRACTION: config()[EXTRACTION]}
    project = Project(tmp_path, {**old, **extraction}, overwrite=True)
    project.run()
    assert features_of(project).n_vars == 1 + 3 * 6
    log = (tmp_path / names.LOG_FILE).read_text()
    assert "section CellFeaturizer: step Featurization does it" in log
    both = Project(tmp_path, {**old, **config(section(name="b"))}, overwrite=True)
    assert list(both.steps) == [STEP, EXTRACTION]
    assert both.featurization_f.config.name == "b"


def test_a_list_makes_tables_side_by_side(tmp_path: Path, image: Array, mask: Array) -> None:
    given = [
        section(name="bright", model=f"{HERE}:brightness"),
        {"name": "stats"},
        section(name="form", model="shape", diameter=30),
    ]
    project = make(tmp_path, image, mask, given)
    project.run()
    assert [str(status) for status in project.status()][:3] == [
        "Featurization (bright): complete",
        "Featurization (stats): complete",
        "Featurization (form): complete",
    ]
    shapes = [features_of(project, name).shape for name in ("bright", "stats", "form")]
    assert [columns for _, columns in shapes] == [1, 19, 11]
    given[2] = section(name="form", model="shape", diameter=28)
    changed = again(project, given)
    assert states(changed) == ["complete", "complete", "stale"]
    changed.steps[STEP][2].process(overwrite=True)
    assert states(changed) == ["complete"] * 3


# With the extraction


def test_the_extraction_runs_before(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    assert list(project.steps) == [STEP, EXTRACTION]
    with pytest.raises(MissingInputError, match=r"absent; run project.extract\(\)"):
        project.run(STEP)
    with pytest.raises(MissingInputError, match=r"absent; run project.extract\(\)"):
        project.featurize()
    assert not project.featurization_f.directory.exists()
    project.run()
    assert states(project) == ["complete"]
    alone = again(project, section())
    assert alone.featurization_f.needs() == ()


def test_an_extraction_that_was_interrupted(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    step = project.extraction_f
    RunDirectory(step.directory / ".data.run").start(step.fingerprint({}))
    with pytest.raises(MissingInputError, match=r"interrupted; .*project\.extract\(\) again"):
        project.featurize()
    project.extract()
    project.featurize()
    assert states(project) == ["complete"]


def test_the_step_alone(tmp_path: Path, image: Array, mask: Array) -> None:
    make(tmp_path, image, mask).extract()
    by_itself = Featurization({"model": "shape"}, project_location=tmp_path)
    assert by_itself() == tmp_path / "featurization" / "features"
    windows_alone = Featurization(section(name="windows"), tmp_path / "elsewhere")
    assert windows_alone() == tmp_path / "elsewhere" / "windows"
    project = Project(tmp_path)
    assert features_of(project).shape[0] == features_of(project, "windows").shape[0]
    (project.extraction_f.output_path / names.H5SC_FILE).unlink()
    with pytest.raises(MissingInputError, match=r"absent; run project\.extract\(\) before"):
        by_itself(overwrite=True)


def test_another_extraction_makes_it_stale(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    project.run()
    whole = config()
    whole[EXTRACTION]["image_size"] = 20
    changed = Project(tmp_path, whole, overwrite=True)
    with pytest.raises(MissingInputError, match=r"is stale; make it anew with project.extract\("):
        changed.featurize()
    changed.extract(overwrite=True)
    assert states(changed) == ["stale"]
    with pytest.raises(StaleRunError, match=r"inputs\.extraction/data"):
        changed.featurize(overwrite=False)
    changed.featurize(overwrite=True)
    assert states(changed) == ["complete"]


def test_a_mask_that_was_replaced(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    project.extract()
    make(tmp_path, image, np.where(mask > 0, mask + 1, 0).astype(mask.dtype))
    with pytest.raises(MissingInputError, match="is stale"):
        Project(tmp_path).featurize()


def test_a_mask_that_is_named(tmp_path: Path, image: Array, mask: Array, nuclei: Array) -> None:
    """The table annotates it; it need not be the one that was extracted, if it has the cells."""
    write_raster(tmp_path, "others", mask, (50, 50))
    project = make(tmp_path, image, mask, {"labels": "others", "model": "shape"})
    project.run()
    assert set(features_of(project).obs["region"]) == {"others"}
    write_raster(tmp_path, "others", mask, (60, 60), overwrite=True)
    assert states(project) == ["stale"]
    unknown = again(project, {"labels": "nobody", "model": "shape"})
    with pytest.raises(MissingInputError, match="nobody"):
        unknown.featurize()


def test_pictures_of_another_package(tmp_path: Path, image: Array, mask: Array) -> None:
    """Without run.json and ledger: they are taken as they are."""
    project = make(tmp_path, image, mask)
    project.run()
    before = features_of(project)
    for name in (names.RUN_FILE, names.LEDGER_FILE):
        (project.extraction_f.output_path / name).unlink()
    assert states(project) == ["stale"]
    project.featurize(overwrite=True)
    np.testing.assert_array_equal(features_of(project).X, before.X)
    assert set(ledger_of(project).state) == {"written"}


def test_damaged_pictures(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask)
    project.extract()
    path = project.extraction_f.output_path / names.H5SC_FILE
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(Exception, match=r"is damaged.*project.extract\(overwrite=True\)"):
        project.featurize()


# What was made from something else


def change_image(project: Project, image: Array, mask: Array) -> Project:
    folder = project.project_location
    write_raster(folder, names.INPUT_IMAGE, image + 1, (1, TILE, TILE), overwrite=True)
    return Project(folder)


def change_model(project: Project, image: Array, mask: Array) -> Project:
    path = Path(sys.modules["model_of_mine"].__file__)
    path.write_text(path.read_text() + "\n# a remark\n")
    importlib.reload(sys.modules["model_of_mine"])
    return Project(project.project_location)


def change_kwargs(project: Project, image: Array, mask: Array) -> Project:
    return again(project, section(model="model_of_mine:brightness", model_kwargs={"scale": 3.0}))


MODEL = """
import numpy as np
from pathlib import Path

def brightness(batch, embedding_dimension=1, scale=2.0):
    found = scale * batch.reshape(len(batch), -1).max(axis=1, keepdims=True)
    return found.astype(np.float32)
"""
FAILING = MODEL.replace(
    "    return",
    "    if (found > {limit}).any():\n        raise ArithmeticError('no luck')\n    return",
)


@pytest.fixture
def own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "model_of_mine", raising=False)
    path = folder / "model_of_mine.py"
    path.write_text(MODEL)
    return path


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (change_image, "inputs.input_image"),
        pytest.param(change_kwargs, "config.model_kwargs", marks=pytest.mark.slow),
        (change_model, "model.code and weights"),
    ],
)
def test_stale(
    tmp_path: Path, image: Array, mask: Array, own_model: Path, change: Any, what: str
) -> None:
    first = make(tmp_path / "p", image, mask, section(model="model_of_mine:brightness"))
    first.featurize()
    before = feature_digests(tmp_path / "p")
    project = change(first, image, mask)
    (status,) = project.featurization_f.status()
    assert status.state == "stale"
    assert any(line.startswith(what) for line in status.changes), status
    with pytest.raises(StaleRunError, match=what) as raised:
        project.featurize()
    assert "project.featurize(overwrite=True)" in str(raised.value)
    assert feature_digests(tmp_path / "p") == before
    project.featurize(overwrite=True)
    assert states(project) == ["complete"]


def test_run_keys_do_not_make_it_stale(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask, section())
    project.featurize()
    other = again(
        project,
        section(threads=1, executor="inline", max_batch_size=7, accept_changed_model=True),
    )
    assert states(other) == ["complete"]


def test_a_model_that_is_gone(tmp_path: Path, image: Array, mask: Array, own_model: Path) -> None:
    project = make(tmp_path / "p", image, mask, section(model="model_of_mine:brightness"))
    project.featurize()
    own_model.unlink()
    del sys.modules["model_of_mine"]
    (status,) = Project(tmp_path / "p").featurization_f.status()
    assert status.state == "stale"
    assert status.changes[0].startswith("model.code and weights")


def test_a_table_that_was_deleted_is_made_again(tmp_path: Path, image: Array, mask: Array) -> None:
    project = make(tmp_path, image, mask, section())
    project.featurize()
    before = feature_digests(tmp_path)
    project.filehandler.delete_element(names.FEATURES)
    (status,) = project.featurization_f.status()
    assert (status.state, status.changes) == ("stale", ("table features is not in the store",))
    Project(tmp_path).featurize()
    assert feature_digests(tmp_path) == before


def test_a_foreign_table_is_kept(tmp_path: Path, image: Array, mask: Array) -> None:
    from spatialdata.models import TableModel

    project = make(tmp_path, image, mask, section())
    foreign = TableModel.parse(anndata.AnnData(np.full((2, 2), 7.0)))
    project.filehandler.write_element(names.FEATURES, foreign)
    with pytest.raises(ElementExistsError, match=r"'features' already.*table_name") as raised:
        project.featurize()
    assert "project.featurize(overwrite=True)" in str(raised.value)
    assert not project.featurization_f.directory.exists(), "refused before any work"
    project.featurize(overwrite=True)
    assert states(project) == ["complete"]


# Models that fail


@pytest.fixture
def failed(tmp_path: Path, image: Array, mask: Array, own_model: Path) -> Project:
    """An interrupted run: the model failed on a bright cell."""
    brightest = windows(image, mask, 17).reshape(len(np.unique(mask)) - 1, -1).max(axis=1)
    # In a tile near the end.
    centres = [np.mean(np.nonzero(mask == i), axis=1) for i in np.unique(mask[mask > 0])]
    late = np.array([y > 200 and x > 200 for y, x in centres])
    limit = np.sort(brightest[~late])[-1]
    image = image.copy()
    last = np.unique(mask[mask > 0])[np.flatnonzero(late)[-1]]
    image[0][mask == last] = limit + 100
    own_model.write_text(FAILING.format(limit=2 * limit + 100))
    given = section(model="model_of_mine:brightness", executor="inline", batch_size=1)
    project = make(tmp_path / "p", image, mask, given)
    with pytest.raises(ModelError, match=rf"model_of_mine:brightness.*\({last} to {last}\).*luck"):
        project.featurize()
    (status,) = project.featurization_f.status()
    assert status.state == "interrupted"
    assert 0 < status.done < status.units
    return project


def mend(own_model: Path) -> None:
    own_model.write_text(MODEL + "\n# it does not fail any more\n")
    del sys.modules["model_of_mine"]


def test_a_mended_model_is_told_and_starts_anew(failed: Project, own_model: Path) -> None:
    mend(own_model)
    project = Project(failed.project_location)
    (status,) = project.featurization_f.status()
    assert status.state == "stale"
    with pytest.raises(StaleRunError, match=r"interrupted run.*\n.*model\.code and w") as raised:
        project.featurize()
    assert "accept_changed_model: true in section Featurization" in str(raised.value)
    assert raised.value.changes[0].startswith("model.code and weights")
    project.featurize(overwrite=True)
    assert project.featurization_f.report.resumed == 0


def test_a_mended_model_goes_on_where_that_is_accepted(failed: Project, own_model: Path) -> None:
    done = failed.featurization_f.status()[0].done
    mend(own_model)
    given = {**failed.config[STEP], "accept_changed_model": True}
    project = Project(failed.project_location, config(given))
    project.featurize()
    assert project.featurization_f.report.resumed == done
    log = (project.project_location / names.LOG_FILE).read_text()
    assert "WARNING" in log
    assert f"{done} of" in log
    assert states(project) == ["complete"]
    image, mask = (project.filehandler.open_array(n)[:] for n in ("input_image", "seg_all_cytosol"))
    wanted = 2 * windows(image, mask, 17).reshape(len(np.unique(mask)) - 1, -1).max(axis=1)
    np.testing.assert_array_equal(features_of(project).X[:, 0], wanted.astype(np.float32))


def test_other_changes_are_not_accepted(failed: Project, own_model: Path) -> None:
    mend(own_model)
    given = {**failed.config[STEP], "accept_changed_model": True, "diameter": 19}
    with pytest.raises(StaleRunError, match=r"config\.diameter") as raised:
        again(failed, given).featurize()
    assert "accept_changed_model" not in str(raised.value)


# Models that are fitted


@pytest.mark.parametrize("source", [section(), {}], ids=["images", "extraction"])
def test_pca(tmp_path: Path, image: Array, mask: Array, source: Any) -> None:
    given = {**source, "model": "pca", "embedding_dimension": 4, "model_kwargs": {"sample": 50}}
    project = make(tmp_path / "a", image, mask, given)
    project.run()
    kept = tmp_path / "a" / "featurization" / "features" / names.MODEL_FILE
    with np.load(kept) as fitted:
        mean, components = fitted["mean"], fitted["components"]
    if source:
        shown = windows(image, mask, 17).reshape(-1, len(mean)).astype(float)
    else:
        shown = pictures_of(project)[0][:, 1:].reshape(-1, len(mean)).astype(float)
    rows = np.sort(np.random.default_rng(42).choice(len(shown), 50, replace=False))
    np.testing.assert_allclose(mean, shown[rows].mean(axis=0), rtol=1e-9, atol=1e-9)
    scale = np.abs(features_of(project).X).max()
    np.testing.assert_allclose(
        features_of(project).X, (shown - mean) @ components, atol=1e-5 * scale
    )
    other = make(tmp_path / "b", image, mask, {**given, "executor": "inline", "max_batch_size": 3})
    other.run()
    assert feature_digests(tmp_path / "b") == feature_digests(tmp_path / "a")


def test_a_fit_is_bounded_and_kept(
    tmp_path: Path, image: Array, mask: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SAMPLE_BYTES", 20 * 17 * 17 * 3 * 2)
    fits = []
    sample = ImageWindows.sample

    def counted(self: Any, plan: Any, rows: Any, masks: Any) -> Any:
        fits.append(len(rows))
        return sample(self, plan, rows, masks)

    monkeypatch.setattr(ImageWindows, "sample", counted)
    project = make(tmp_path, image, mask, section(model="pca", embedding_dimension=3))
    with monkeypatch.context() as patch:
        patch.setattr(heads, "embed", brightness)
        with pytest.raises(RunError, match="brightness"):
            project.featurize()
    assert states(project) == ["interrupted"]
    project.featurize()
    assert fits == [20], "a resumed run takes the fit that was stored"
    assert "fitted on 20 cells instead of" in (tmp_path / names.LOG_FILE).read_text()


def test_a_model_on_a_gpu_stays_in_one_process(
    tmp_path: Path, image: Array, mask: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelSpec, "on_gpu", property(lambda self: True))
    project = make(tmp_path, image, mask, section(executor="processes"))
    project.featurize()
    assert project.featurization_f.report.executor == "threads"
    log = (tmp_path / names.LOG_FILE).read_text()
    assert "threads instead of processes: model intensity_statistics runs on a GPU" in log


def test_only_a_run_fetches_weights(
    tmp_path: Path, image: Array, mask: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PREFIXES, "hub", f"{HERE}:make_fetched")
    monkeypatch.setattr(f"{HERE}.fetches", [])
    given = section(model="hub:some", model_kwargs={"download": True})
    project = make(tmp_path, image, mask, given)
    project.featurize()
    assert True in featurizing_models.fetches
    featurizing_models.fetches.clear()
    assert states(Project(tmp_path)) == ["complete"]
    assert set(featurizing_models.fetches) == {False}


def test_a_table_too_large_is_told(
    tmp_path: Path,
    image: Array,
    mask: Array,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    project = make(tmp_path, image, mask, section(**PIXELS, embedding_dimension=3 * 17 * 17))
    table = (len(np.unique(mask)) - 1) * 3 * 17 * 17 * 4
    for budget, told in ((2 * table, False), (2 * table - 1, True)):
        monkeypatch.setattr(Featurization, "budget", lambda self, budget=budget: budget)
        caplog.clear()
        project.featurization_f.plan({})
        assert ("cells x 867 features takes" in caplog.text) == told
