"""A saved map that a project applies: where it is looked for, and what stands in for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from scportrait_like import names
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.io.cluster_tables import counts_table
from scportrait_like.project import Project

from .clustering import CHANNELS, LABELS, SMALL, STEP, clustering_digests, make, write

FOLDER = f"{names.PIXEL_CLUSTERING_DIR}/data"


@pytest.fixture
def projects(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of a project that has trained a map, and of one that has applied it."""
    pixels = np.random.default_rng(3).integers(0, 200, (3, 60, 70)).astype(np.uint16)
    first = tmp_path / "first"
    make(first, pixels, None, {**SMALL, "preprocess": False}).cluster_pixels()
    write(tmp_path / "second", names.INPUT_IMAGE, pixels[:, ::-1], (1, 50, 50), CHANNELS)
    Project(tmp_path / "second", {STEP: {"model": "../first"}}).cluster_pixels()
    return first, tmp_path / "second"


def state_of(folder: Path) -> str:
    (status,) = Project(folder).status()
    return status.state


def test_settings_of_a_training_are_not_told(projects: tuple[Path, Path]) -> None:
    made = json.loads((projects[1] / FOLDER / names.RUN_FILE).read_text())
    assert not {"model", "channels", "n_clusters", "preprocess", "xdim"} & made["config"].keys()
    assert made["config"]["image"] == names.INPUT_IMAGE
    assert made["model"]["path"] == "../first"
    trained = json.loads((projects[0] / FOLDER / names.RUN_FILE).read_text())
    assert trained["config"]["n_clusters"] == SMALL["n_clusters"]
    assert trained["config"]["model"] is None


def test_a_map_that_is_gone(projects: tuple[Path, Path]) -> None:
    first, second = projects
    first.rename(first.with_name("elsewhere"))
    assert state_of(second) == "complete"
    store = Project(second).filehandler
    before, digests = store.element_path(LABELS[0]).stat().st_ino, clustering_digests(second)
    Project(second).run()
    assert store.element_path(LABELS[0]).stat().st_ino == before
    # What is missing is made of the copy.
    store.delete_element(LABELS[0])
    Project(second).run()
    assert state_of(second) == "complete"
    assert clustering_digests(second) == digests
    # Another path is another matter: it may be a mistake.
    other = Project(second, {STEP: {"model": "../elsewhere/no"}}, overwrite=True)
    assert other.status()[0].changes == ("the saved map ../elsewhere/no is not there",)
    with pytest.raises(MissingInputError, match="elsewhere/no"):
        other.cluster_pixels(overwrite=True)
    moved = Project(second, {STEP: {"model": "../elsewhere"}}, overwrite=True)
    assert moved.status()[0].state == "complete"


def test_where_it_is_looked_for(
    projects: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the project's folder first, then in the working directory."""
    first, second = projects
    saved, work = first / FOLDER / names.SOM_FILE, tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    project = Project(second, {STEP: {"model": "map.json"}}, overwrite=True)
    with pytest.raises(MissingInputError) as raised:
        project.cluster_pixels()
    said = str(raised.value)
    assert f"{second / 'map.json'} or {work / 'map.json'}" in said
    assert said.count(STEP) == 1
    shutil.copy(saved, work / "map.json")
    assert state_of(second) == "complete"
    (second / "map.json").write_text("{")
    with pytest.raises(InputError, match=str(second / "map.json")):
        project.cluster_pixels()


def test_a_file_that_is_no_text(projects: tuple[Path, Path]) -> None:
    _, second = projects
    (second / "image.tif").write_bytes(b"II*\0\xf4\xff")
    project = Project(second, {STEP: {"model": "image.tif"}}, overwrite=True)
    with pytest.raises(InputError, match=r"key model: .*image\.tif is no saved map") as raised:
        project.cluster_pixels()
    assert "codec" not in str(raised.value)


def test_the_commonest_metacluster() -> None:
    """None is 0, and of those that tie the lowest counts."""
    cells = np.array([[2, 2, 5, 5, 9], [1, 4, 3, 4, 3], [6, 5, 4, 4, 1]])
    table = counts_table(
        (cells[0], cells[1], cells[2]),
        np.array([2, 5, 7, 9], np.uint16),
        np.array([1, 2, 2, 3]),
        "mask",
        area=np.full(4, 20),
        centroid=np.zeros((4, 2)),
        region_key="region",
        instance_key="cell",
    )
    assert table.obs["metacluster"].tolist() == [1, 2, 0, 2]
    assert table.obs["pixels"].tolist() == [11, 8, 0, 1]
