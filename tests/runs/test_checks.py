"""Mistakes of a later mapping or step are found before the first one runs, and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_step import CountBright

from scportrait_like import names
from scportrait_like.config import StepConfig
from scportrait_like.errors import (
    ConfigError,
    ElementExistsError,
    InputError,
    MissingInputError,
    ModelError,
    ScportraitLikeError,
    StaleRunError,
)
from scportrait_like.project import Project

from .featurizing import EXTRACTION, HERE, STEP, feature_digests, features_of, section
from .helpers import Array, write_raster
from .test_featurization import again, config, make, states

AGGREGATION = "Aggregation"
BRIGHT = section(name="good", model=f"{HERE}:brightness")
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "dimension": ({"model": "pca"}, "key embedding_dimension: model pca: give"),
    "other dimension": ({"model": "shape", "embedding_dimension": 3}, "key embedding_dimension"),
    "channels": ({"channels": ["DAPI"]}, "key channels: DAPI not in the .*channel 0, channel 1"),
    "model": ({"model": "nowhere:model"}, "key model: .*'nowhere' cannot be imported"),
    "weights": ({"model": "torch:/none.pt"}, "key model: .*none.pt"),
    "kwargs": ({"model": "pca", "model_kwargs": {"n": 1}}, "key model: .*no 'n'"),
    "labels": ({"labels": "nobody"}, "nobody"),
    "table of another": ({"table_name": "input_image"}, "names one of the images"),
    "table name": ({"table_name": "a b"}, "'a b'"),
    "columns": ({"region_key": "_index"}, "_index"),
}


def begun(project: Project) -> list[str]:
    """Steps with anything in their folders."""
    return [
        step.name for listed in project.steps.values() for step in listed if step.directory.exists()
    ]


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("source", [section(), {}], ids=["images", "extraction"])
def test_a_mistake_costs_no_work(
    tmp_path: Path, image: Array, labels: Array, mistake: str, source: Any
) -> None:
    given, said = MISTAKES[mistake]
    make(tmp_path, image, labels)
    whole = {AGGREGATION: {}, **config([BRIGHT, {**source, **given, "name": "bad"}])}
    project = Project(tmp_path, whole, overwrite=True)
    with pytest.raises(ScportraitLikeError, match=said) as raised:
        project.run()
    assert f"section {STEP} (bad)" in str(raised.value)
    assert begun(project) == []
    if source:
        with pytest.raises(type(raised.value), match=said):
            project.featurize()
        assert begun(project) == []


def test_sizes(tmp_path: Path, image: Array, labels: Array) -> None:
    write_raster(tmp_path, "smaller", labels[:-10], (100, 100))
    given = [BRIGHT, section(name="bad", labels="smaller")]
    project = make(tmp_path, image, labels, given)
    for call in (project.featurize, project.run):
        with pytest.raises(InputError, match=r"section Featurization \(bad\): mask smaller is"):
            call()
        assert begun(project) == []


def test_a_list_of_aggregations(tmp_path: Path, image: Array, labels: Array) -> None:
    make(tmp_path, image, labels)
    given = [{"name": "good"}, {"name": "bad", "labels": "nobody"}]
    project = Project(tmp_path, {AGGREGATION: given}, overwrite=True)
    for call in (project.aggregate, project.run):
        with pytest.raises(MissingInputError, match=r"section Aggregation \(bad\): .*nobody"):
            call()
        assert begun(project) == []


def test_a_foreign_table(tmp_path: Path, image: Array, labels: Array) -> None:
    from anndata import AnnData
    from spatialdata.models import TableModel

    project = make(tmp_path, image, labels, [BRIGHT, section(name="bad")])
    foreign = TableModel.parse(AnnData(np.full((2, 2), 7.0)))
    project.filehandler.write_element("bad", foreign)
    with pytest.raises(ElementExistsError, match=r"\(bad\).*Project\(\.\.\., overwrite=True\)"):
        project.run()
    assert begun(project) == []
    assert states(Project(tmp_path)) == ["absent", "absent"]
    Project(tmp_path, overwrite=True).featurize()
    assert states(Project(tmp_path)) == ["complete", "complete"]


def test_a_mistake_of_the_call(tmp_path: Path, image: Array, labels: Array) -> None:
    project = make(tmp_path, image, labels, [BRIGHT, {"name": "pictures"}])
    with pytest.raises(MissingInputError, match=r"\(pictures\).*partial=True, n_cells=5, seed=42"):
        project.featurize(5, "partial")
    assert begun(project) == []


def test_keys_of_a_list_name_the_mapping(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"section Featurization \(bad\): key diameter: 0 "):
        Project(tmp_path / "p", config([BRIGHT, section(name="bad", diameter=0)]))


class MakeLabels(CountBright):
    """A step that puts labels into the store."""

    Config = StepConfig
    folder = "make_labels"

    def process(self, overwrite: bool | None = None) -> None:
        pixels = self.filehandler.open_array(names.SEG_CYTOSOL)[:]
        write_raster(self.project_location, "made", pixels, (100, 100), overwrite=True)


def test_what_a_step_before_makes(tmp_path: Path, image: Array, labels: Array) -> None:
    """It is absent before the run, which is no mistake."""
    make(tmp_path, image, labels)
    given = [
        section(name="a", model="shape", labels="made"),
        {"name": "b", "labels": "made", "model": "pca", "embedding_dimension": 2},
    ]
    own = f"{__name__}:MakeLabels"
    steps = {own: {}, AGGREGATION: {"labels": "made"}, **config(given)}
    project = Project(tmp_path, steps, overwrite=True)
    for call in (project.featurize, lambda: project.run([STEP, EXTRACTION])):
        with pytest.raises(MissingInputError, match=r"\(a\): labels made are not in the project"):
            call()
    project.run()
    assert states(project) == ["complete", "complete"]


# What is said of a list


def test_replacing_leaves_the_others(tmp_path: Path, image: Array, labels: Array) -> None:
    given = [BRIGHT, section(name="form", model="shape")]
    project = make(tmp_path, image, labels, given)
    project.featurize()
    before = feature_digests(tmp_path, "form")
    changed = again(project, [BRIGHT, section(name="form", model="shape", diameter=15)])
    with pytest.raises(StaleRunError) as raised:
        changed.featurize()
    said = str(raised.value)
    assert said.startswith("section Featurization (form): ")
    assert "start anew: Project(..., overwrite=True).featurize()." in said
    assert raised.value.changes == ("config.diameter: 17 -> 15",)
    untouched = changed.steps[STEP][0].output_path / names.RUN_FILE
    made = untouched.stat()
    Project(tmp_path, overwrite=True).featurize()
    assert untouched.stat() == made
    assert states(Project(tmp_path)) == ["complete", "complete"]
    assert feature_digests(tmp_path, "form") != before


def test_a_pick_is_replaced_alike(tmp_path: Path, image: Array, labels: Array) -> None:
    project = make(tmp_path, image, labels, [BRIGHT, section(name="b", model="shape")])
    step = project.steps[STEP][1]
    call = {"data_type": "complete", "n_cells": 9, "seed": 1}
    wanted = "featurize(data_type='complete', n_cells=9, partial_seed=1"
    assert step.replacing(call) == f"Project(..., overwrite=True).{wanted})"
    alone = make(tmp_path / "alone", image, labels, BRIGHT)
    assert alone.featurization_f.replacing(call) == f"project.{wanted}, overwrite=True)"


def test_failures_name_the_mapping(tmp_path: Path, image: Array, labels: Array) -> None:
    given = [BRIGHT, section(name="bad", model=f"{HERE}:batch_size", embedding_dimension=2)]
    project = make(tmp_path, image, labels, given)
    with pytest.raises(ModelError, match=r"^section Featurization \(bad\): .*batch_size"):
        project.run()
    log = (tmp_path / names.LOG_FILE).read_text()
    assert "runner: Featurization (good): " in log
    assert "Featurization (bad): " in log
    assert " units done " in log
    assert all(f"{STEP} (" in line for line in log.splitlines() if "units done" in line)


# Labels and pictures that do not fit


@pytest.mark.parametrize("table", ["nuclei", None])
def test_labels_that_lack_cells(tmp_path: Path, image: Array, labels: Array, table: Any) -> None:
    """The table annotates labels that hold all its cells."""
    lacking = np.where(labels == labels.max(), 0, labels).astype(labels.dtype)
    write_raster(tmp_path, "nuclei", lacking, (100, 100))
    if table is None:  # the cytosol lacks a cell that has a nucleus
        write_raster(tmp_path, names.SEG_NUCLEUS, labels, (100, 100))
        project = make(tmp_path, image, lacking, {"model": "shape"})
        project.run()
        assert set(features_of(project).obs["region"]) == {names.SEG_NUCLEUS}
        return
    project = make(tmp_path, image, labels, {"labels": table, "model": "shape"})
    with pytest.raises(InputError, match=rf"1 of \d+ cells that labels nuclei.*{labels.max()}:"):
        project.run()
    assert states(project) == ["absent"]
    assert "nuclei" in project.filehandler


def test_pictures_of_no_cell(tmp_path: Path, image: Array, labels: Array) -> None:
    edge = np.zeros_like(labels)
    edge[:3, :3], edge[-3:, -3:] = 5, 9
    make(tmp_path, image, edge)
    whole = config({"model": "shape"})
    whole[EXTRACTION] |= {"border": "discard", "image_size": 40}
    project = Project(tmp_path, {**whole, AGGREGATION: {}}, overwrite=True)
    said = r"holds no cell: .*dropped all 2 of the mask \(border\)\. .*border: pad"
    with pytest.raises(InputError, match=said):
        project.run()
    assert states(project) == ["absent"]
    assert project.extraction_f.status()[0].state == "complete"
    project.aggregate()
    whole[EXTRACTION] |= {"border": "pad"}
    Project(tmp_path, whole, overwrite=True).run()
    assert states(Project(tmp_path)) == ["complete"]
