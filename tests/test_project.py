"""The project folder: its config, its lock, and that looking writes nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from scportrait_like.config import StepConfig
from scportrait_like.errors import (
    ConfigError,
    InputError,
    MissingInputError,
    ProjectError,
    ProjectLockedError,
    StoreError,
)
from scportrait_like.project import Project
from scportrait_like.step import ProcessingStep
from scportrait_like.steps.extraction import HDF5CellExtraction

Pixels = np.ndarray[Any, Any]
NAMES = ["DNA", "CD45", "CD3"]
EXTRACTION = {"HDF5CellExtraction": {"image_size": 32, "threads": 1}}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """All that lies in a folder, with sizes and times of change."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        stat = path.lstat()
        found[str(path.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns)
    return found


# The config


def test_a_file_is_copied_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "my.yml"
    path.write_text("# ours\nHDF5CellExtraction:\n  image_size: 32  # small\n", encoding="utf-8")
    project = Project(tmp_path / "p", str(path))
    assert project.config_path.read_bytes() == path.read_bytes()
    assert (
        Project(tmp_path / "p").config
        == project.config
        == {"HDF5CellExtraction": {"image_size": 32}}
    )


def test_without_a_config_there_are_no_steps(tmp_path: Path) -> None:
    project = Project(tmp_path / "p")
    assert project.config == {}
    assert project.status() == []
    assert not (tmp_path / "p").exists()
    with pytest.raises(ConfigError, match="section HDF5CellExtraction is missing"):
        project.extract()


@pytest.mark.parametrize("how", ["same", "mapping", "own", "none", "reordered"])
def test_the_same_config_again_does_nothing(tmp_path: Path, how: str) -> None:
    path = tmp_path / "my.yml"
    path.write_text("name: x\nHDF5CellExtraction:\n  image_size: 32\n")
    project = Project(tmp_path / "p", path)
    before = tree(tmp_path / "p")
    again: Any = {
        "same": path,
        "mapping": {"name": "x", "HDF5CellExtraction": {"image_size": 32}},
        "own": project.config_path,
        "none": None,
        "reordered": {"HDF5CellExtraction": {"image_size": 32}, "name": "x"},
    }[how]
    assert Project(tmp_path / "p", again).extraction_f is not None
    assert tree(tmp_path / "p") == before


def test_another_config_is_refused_with_what_differs(project: Project) -> None:
    other = {"HDF5CellExtraction": {"image_size": 64, "border": "pad"}, "name": "other"}
    before = tree(project.project_location)
    with pytest.raises(ProjectError) as caught:
        Project(project.project_location, other)
    text = str(caught.value)
    assert text.startswith(f"{project.project_location} has another config:\n")
    assert "HDF5CellExtraction.image_size: 32 -> 64\n" in text
    assert "HDF5CellExtraction.border: None -> 'pad'\n" in text
    assert "name: None -> 'other'\n" in text
    assert "threads" not in text
    assert "Pass overwrite=True" in text
    assert tree(project.project_location) == before
    replaced = Project(project.project_location, other, overwrite=True)
    assert Project(project.project_location).config == replaced.config == other


def test_run_keys_may_differ(project: Project) -> None:
    run_keys = {"image_size": 32, "memory_limit": "4GB", "max_batch_size": 50, "debug": False}
    Project(project.project_location, {"HDF5CellExtraction": run_keys})
    assert Project(project.project_location).config == {"HDF5CellExtraction": run_keys}


def test_a_mistake_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Project(tmp_path / "p", {"HDF5CellExtraction": {"image_size": 33}})
    assert not (tmp_path / "p").exists()


def test_a_damaged_stored_config_is_named(project: Project) -> None:
    project.config_path.write_text("A: [1\n")
    with pytest.raises(ConfigError, match=r"config.yml, line 2"):
        Project(project.project_location)


def test_the_working_directory_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Pixels
) -> None:
    monkeypatch.chdir(tmp_path)
    project = Project("p", EXTRACTION)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    project.load_input_from_array(image)
    assert (tmp_path / "p" / "scportrait.sdata").is_dir()


def test_the_memory_limit_of_the_settings_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Pixels
) -> None:
    from scportrait_like import settings
    from scportrait_like.errors import MemoryBudgetError

    monkeypatch.setattr(settings, "memory_limit", "20MB")
    with pytest.raises(MemoryBudgetError, match="of the 20 MB granted"):
        Project(tmp_path / "p").load_input_from_array(image)
    Project(tmp_path / "p", memory_limit="8GB").load_input_from_array(image)


def test_names_of_folders_that_mean_something_elsewhere(
    tmp_path: Path, image: Pixels, labels: Pixels
) -> None:
    folder = tmp_path / "Gewebe #1 %20 & ü=x"
    folder.mkdir()
    tifffile.imwrite(folder / "im[1]*?.tif", image, tile=(64, 64), photometric="minisblack")
    project = Project(folder / "p#2", EXTRACTION)
    project.load_input_from_tif_files(folder / "im[1]*?.tif", NAMES)
    project.load_labels(labels)
    project.extract()
    assert project.h5sc.n_obs > 10
    other = Project(folder / "q")
    other.load_input_from_sdata(project.filehandler.path, "input_image", None, "seg_all_cytosol")
    assert set(other.sdata.labels) == {"seg_all_cytosol"}


# Classes of steps


class Mine(HDF5CellExtraction):
    """A step of the user's own."""


def test_a_class_of_ones_own(tmp_path: Path) -> None:
    project = Project(tmp_path / "p", {"Mine": {"image_size": 32}}, extraction_f=Mine)
    assert type(project.extraction_f) is Mine
    assert list(project.steps) == ["Mine"]


def test_a_class_named_in_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "its_step.py").write_text(
        "from scportrait_like.steps.extraction import HDF5CellExtraction\n"
        "class Own(HDF5CellExtraction):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    project = Project(tmp_path / "p", {"its_step:Own": {"image_size": 32}})
    assert list(project.steps) == ["Own"]
    assert project.steps["Own"][0].config.image_size == 32  # type: ignore[attr-defined]


@pytest.mark.parametrize("argument", ["segmentation_f", "selection_f"])
def test_segmentation_and_selection_are_refused(tmp_path: Path, argument: str) -> None:
    with pytest.raises(InputError, match=f"{argument}=.*load_labels"):
        Project(tmp_path / "p", EXTRACTION, **{argument: Mine})


@pytest.mark.parametrize(
    "argument", ["extraction_f", "featurization_f", "aggregation_f", "pixel_clustering_f"]
)
@pytest.mark.parametrize("given", [5, "HDF5CellExtraction", dict, StepConfig])
def test_what_is_no_step_is_refused(tmp_path: Path, argument: str, given: Any) -> None:
    with pytest.raises(InputError, match=f"{argument}=.* is not allowed: give a class of"):
        Project(tmp_path / "p", EXTRACTION, **{argument: given})


def test_the_seeds_order_of_arguments(tmp_path: Path) -> None:
    project = Project(tmp_path / "p", EXTRACTION, None, HDF5CellExtraction, None, None, True, False)
    assert isinstance(project.extraction_f, ProcessingStep)
    assert (project.overwrite, project.debug) == (True, False)


# Folders that cannot be written


@pytest.mark.parametrize("place", ["/proc/project", "/dev/null/project"])
def test_places_where_nothing_can_be_made(place: str) -> None:
    with pytest.raises(ProjectError, match=rf"{place} cannot be made"):
        Project(place, EXTRACTION)


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("x")
    with pytest.raises(ProjectError, match="cannot be made"):
        Project(tmp_path / "p", EXTRACTION)


def _as_nobody(folder: Path, image: Pixels, said: Any) -> None:
    os.setgid(65534)
    os.setuid(65534)
    for config in (EXTRACTION, None):
        try:
            Project(folder, config).load_input_from_array(image)
        except ProjectError as error:
            said.put(str(error))
        else:
            said.put("no error")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_folder_of_somebody_elses(image: Pixels) -> None:
    import tempfile

    context = multiprocessing.get_context("fork")
    said = context.Queue()
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "p"
        folder.mkdir()
        process = context.Process(target=_as_nobody, args=(folder, image, said))
        process.start()
        texts = [said.get(timeout=60) for _ in range(2)]
        process.join()
    for text in texts:
        assert text.startswith(f"the project folder {folder} cannot be written: ")
        assert "Permission denied" in text


def test_a_store_that_is_none(tmp_path: Path, image: Pixels) -> None:
    project = Project(tmp_path / "p", EXTRACTION)
    store = tmp_path / "p" / "scportrait.sdata"
    store.mkdir()
    (store / "notes.txt").write_text("mine")
    for call in (lambda: project.load_input_from_array(image), project.extract):
        with pytest.raises(
            StoreError, match=r"scportrait.sdata is not a zarr store: it holds notes"
        ):
            call()
    assert (store / "notes.txt").read_text() == "mine"


# Looking


def test_looking_writes_nothing(loaded: Project) -> None:
    loaded.extract()
    # A cell more in the log or a lock taken would show.
    before = tree(loaded.project_location)
    again = Project(loaded.project_location)
    assert [str(status) for status in again.status()] == ["HDF5CellExtraction (data): complete"]
    assert "input_image" in repr(again)
    assert again.h5sc.obsm["single_cell_images"].shape[0] > 10
    assert set(again.sdata.images) == {"input_image"}
    assert again.extraction_f is not None
    assert again.extraction_f.output_path.name == "data"
    assert tree(loaded.project_location) == before


def test_looking_at_nothing_writes_nothing(tmp_path: Path, project: Project) -> None:
    before = tree(project.project_location)
    again = Project(project.project_location)
    assert [status.state for status in again.status()] == ["absent"]
    assert len(list(again.sdata.gen_elements())) == 0
    with pytest.raises(MissingInputError, match=r"single_cells.h5sc is not there; run project"):
        _ = again.h5sc
    assert tree(project.project_location) == before


def test_another_image_makes_the_output_stale(loaded: Project, image: Pixels) -> None:
    loaded.extract()
    loaded.load_input_from_array(image + 1, NAMES, overwrite=True)
    (status,) = loaded.status()
    assert status.state == "stale"
    assert any("input_image" in line for line in status.changes)


def test_overwrite_of_the_project_keeps_what_still_matches(loaded: Project, image: Pixels) -> None:
    output = loaded.extract()
    before = output.stat().st_ino
    again = Project(loaded.project_location, EXTRACTION, overwrite=True)
    again.load_input_from_array(image, NAMES)
    assert again.extract() == output
    assert output.stat().st_ino == before


# The lock

HOLD = """
import sys, time
import numpy as np
from scportrait_like.project import Project

class Slow:
    shape, dtype, ndim = (1, 300, 300), np.dtype("uint8"), 3
    def __getitem__(self, key):
        print("reading", flush=True)
        time.sleep(600)

import dask.array as da
p = Project(sys.argv[1])
meta = np.empty((0, 0, 0), "uint8")
slow = da.from_array(Slow(), chunks=(1, 300, 300), name=False, meta=meta)
p.load_input_from_dask(slow, ["DNA"])
"""


def hold(project: Project) -> subprocess.Popen[str]:
    """Start a process that is loading into the project, and does not get done."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(project.project_location)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    return process


def test_a_second_process_is_refused_and_the_lock_goes_with_its_owner(
    project: Project, image: Pixels, labels: Pixels
) -> None:
    other = hold(project)
    try:
        calls: list[Callable[[], Any]] = [
            lambda: project.load_input_from_array(image),
            lambda: project.load_labels(labels),
            project.extract,
            lambda: Project(project.project_location, {"Other": {}}, overwrite=True),
        ]
        for call in calls:
            with pytest.raises(ProjectLockedError) as caught:
                call()
            assert f"loading, process {other.pid} on " in str(caught.value)
        # Looking needs no lock.
        assert [status.state for status in Project(project.project_location).status()] == ["absent"]
        assert not project.filehandler.element_names()
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    started = time.monotonic()
    project.load_input_from_array(image)
    assert time.monotonic() - started < 10
    assert "input_image" in project.filehandler
    left = [path.name for path in project.project_location.iterdir() if "scratch" in path.name]
    assert left == []


def test_the_lock_of_this_process_is_released_after_an_error(
    project: Project, image: Pixels
) -> None:
    with pytest.raises(InputError):
        project.load_labels(np.zeros((30, 30), np.uint8))
    project.load_input_from_array(image)
    assert not (project.project_location / ".lock.owner").exists()


# A folder made by scPortrait

PEER = Path(__file__).parent / "peers"


@pytest.fixture
def scportraits_folder(
    tmp_path: Path, image: Pixels, labels: Pixels, nuclei: Pixels
) -> tuple[Path, Project]:
    """A project folder as scPortrait 1.8 leaves it, from files of ours."""
    made = Project(tmp_path / "made", EXTRACTION)
    made.load_input_from_array(image, NAMES)
    made.load_labels(nuclei, "nucleus")
    made.load_labels(labels)
    made.extract()
    return made.project_location, made


def test_a_folder_that_another_program_made(
    scportraits_folder: tuple[Path, Project], image: Pixels
) -> None:
    folder, made = scportraits_folder
    rows = made.h5sc.n_obs
    # scPortrait writes no revision, index, ledger or fingerprint.
    for path in [folder / "extraction/data/run.json", folder / "extraction/data/ledger.parquet"]:
        path.unlink()
    for file in (folder / ".index").iterdir():
        file.unlink()
    for file in (folder / "scportrait.sdata").glob("*/*/zarr.json"):
        content = json.loads(file.read_text())
        content["attributes"].pop("scportrait_like", None)
        file.write_text(json.dumps(content))
    for name in ("processing.log", "benchmarking.csv"):
        (folder / "extraction" / name).write_text("x")
    before = tree(folder)
    project = Project(folder)
    assert project.h5sc.n_obs == rows
    assert [status.state for status in project.status()] == ["absent"]
    assert tree(folder) == before
    with pytest.raises(
        ProjectError, match=r"was not made by this package.*extract\(overwrite=True\)"
    ):
        project.extract()
    project.load_input_from_array(image, NAMES)  # the same pixels
    path = project.extract(overwrite=True)
    assert path.is_file()
    assert project.h5sc.n_obs == rows
    assert [status.state for status in project.status()] == ["complete"]


def test_a_star_in_the_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="takes a \\* in a path for a pattern"):
        Project(tmp_path / "a*b")
