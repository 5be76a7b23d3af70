"""Steps: a user's own one, resumed, looked at, replaced; and the extraction standing alone."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_step import CountBright

from scportrait_like import names, step_registry
from scportrait_like.errors import (
    ConfigError,
    MissingInputError,
    ProjectError,
    RunError,
    StaleRunError,
    WorkerDiedError,
)
from scportrait_like.project import Project
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.steps.extraction import HDF5CellExtraction

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    CountBright.armed = ""


def counts(image: Array, threshold: int = 100) -> list[int]:
    return [int((channel > threshold).sum()) for channel in image]


def make(folder: Path, image: Array, section: str = "own_step:CountBright", **config: Any) -> Any:
    options = {key: config.pop(key) for key in ("overwrite", "executor") if key in config}
    project = Project(folder, {section: config}, **options)
    project.load_input_from_array(image)
    return project


def own(project: Project) -> CountBright:
    (found,) = project.steps["CountBright"]
    assert isinstance(found, CountBright)
    return found


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_named_by_module_and_class(tmp_path: Path, image: Array, executor: str) -> None:
    project = make(tmp_path, image, executor=executor)
    assert str(project.status()[0]) == "CountBright (data): absent"
    project.run()
    assert own(project).process() == counts(image)
    assert [status.state for status in project.status()] == ["complete"]
    assert (tmp_path / "count_bright" / "data" / "counts.txt").exists()
    log = (tmp_path / names.LOG_FILE).read_text()
    assert "CountBright" in log
    assert "is complete; nothing to do" in log


def test_named_by_entry_point(tmp_path: Path, image: Array, monkeypatch: Any) -> None:
    point = metadata.EntryPoint("CountBright", "own_step:CountBright", step_registry.STEP_GROUP)

    def entry_points(group: str, name: str | None = None) -> list[metadata.EntryPoint]:
        assert group == step_registry.STEP_GROUP
        return [point] if name in (None, "CountBright") else []

    monkeypatch.setattr(step_registry, "entry_points", entry_points)
    project = make(tmp_path, image, "CountBright", threshold=7)
    project.run("CountBright")
    assert own(project).process() == counts(image, 7)


def test_named_by_its_class(tmp_path: Path, image: Array) -> None:
    project = Project(tmp_path, {"CountBright": {"threshold": 3}}, featurization_f=CountBright)
    project.load_input_from_array(image)
    assert own(project).process() == counts(image, 3)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("own_step:Nothing", "step own_step:Nothing cannot be imported"),
        ("no_such_module:Step", "step no_such_module:Step cannot be imported"),
        ("own_step:CountSink", "own_step:CountSink is not a subclass of ProcessingStep"),
    ],
)
def test_no_such_step(tmp_path: Path, section: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Project(tmp_path / "project", {section: {}})
    assert not (tmp_path / "project").exists(), "a mistake leaves no trace"


def test_its_config_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"section CountBright: key threshhold: unknown key.*did"):
        Project(tmp_path / "project", {"own_step:CountBright": {"threshhold": 3}})


def test_resumed(tmp_path: Path, image: Array) -> None:
    project = make(tmp_path, image, executor="inline")
    CountBright.armed = "raise rows-00120"
    with pytest.raises(RunError, match="unit rows-00120 failed: ArithmeticError: no luck"):
        own(project).process()
    (status,) = project.status()
    assert str(status) == "CountBright (data): interrupted, 3 of 8 units"
    CountBright.armed = ""
    assert own(project).process() == counts(image)
    report = own(project).report
    assert report is not None
    assert (report.resumed, report.computed) == (3, 5)
    assert report.parts["pixels"] == image[:, 120:].size


def test_worker_that_dies(tmp_path: Path, image: Array) -> None:
    project = make(tmp_path, image, executor="processes", threads=2)
    CountBright.armed = "rows-00080"
    with pytest.raises(WorkerDiedError, match=r"rows-00080 \(pid \d+\)"):
        own(project).process()
    CountBright.armed = ""
    assert own(project).process() == counts(image)


def interrupt(project: Project) -> None:
    CountBright.armed = "raise rows-00120"
    with pytest.raises(RunError, match="no luck"):
        own(project).process(overwrite=True)
    CountBright.armed = ""


def test_changed_settings(tmp_path: Path, image: Array) -> None:
    """Stale is told, with what changed; only permission replaces."""
    assert own(make(tmp_path, image)).process() == counts(image)
    changed = make(tmp_path, image, threshold=9, overwrite=True)
    changed.overwrite = own(changed).overwrite = False
    (status,) = changed.status()
    assert status.state == "stale"
    assert status.changes == ("config.threshold: 100 -> 9",)
    with pytest.raises(StaleRunError, match=r"config\.threshold: 100 -> 9") as caught:
        own(changed).process()
    assert "overwrite=True" in str(caught.value)
    assert own(changed).process(overwrite=True) == counts(image, 9)


def test_changed_input(tmp_path: Path, image: Array) -> None:
    assert own(make(tmp_path, image)).process() == counts(image)
    project = Project(tmp_path, {"own_step:CountBright": {}}, overwrite=True)
    project.load_input_from_array(image // 2)
    (status,) = project.status()
    assert status.state == "stale"
    assert status.changes[0].startswith("inputs.input_image: ")
    assert own(project).process() == counts(image // 2), "Project(overwrite=True) permits it"


def test_run_keys_change_nothing(tmp_path: Path, image: Array) -> None:
    project = make(tmp_path, image, executor="inline")
    interrupt(project)
    again = make(
        tmp_path, image, threads=1, memory_limit="1GB", max_batch_size=5, cache=str(tmp_path / "c")
    )
    assert again.status()[0].state == "interrupted"
    assert own(again).process() == counts(image)
    report = own(again).report
    assert report is not None
    assert report.resumed == 3


def test_project_overwrite_keeps_what_still_matches(tmp_path: Path, image: Array) -> None:
    interrupt(make(tmp_path, image, executor="inline"))
    project = make(tmp_path, image, overwrite=True)
    assert own(project).process() == counts(image)
    report = own(project).report
    assert report is not None
    assert report.resumed == 3, "a resumable run is never thrown away by it"
    made = (tmp_path / "count_bright" / "data" / names.RUN_FILE).stat()
    again = make(tmp_path, image, overwrite=True)
    own(again).process()
    assert own(again).report is None, "nor a complete one"
    assert (tmp_path / "count_bright" / "data" / names.RUN_FILE).stat() == made
    own(again).process(overwrite=True)
    assert own(again).report is not None
    assert (tmp_path / "count_bright" / "data" / names.RUN_FILE).stat() != made


def test_interrupted_replacement(tmp_path: Path, image: Array) -> None:
    """While the new output is made, the old one lies there; both are told apart."""
    own(make(tmp_path, image)).process()
    changed = make(tmp_path, image, threshold=9, overwrite=True, executor="inline")
    interrupt(changed)
    (status,) = changed.status()
    assert (status.state, status.done) == ("interrupted", 3)
    counted = tmp_path / "count_bright" / "data" / "counts.txt"
    assert [int(line) for line in counted.read_text().split()] == counts(image)
    # Back to the old settings: that output is complete, and the other run is kept.
    back = make(tmp_path, image, overwrite=True)
    assert back.status()[0].state == "complete"
    assert own(back).process() == counts(image)
    assert own(back).report is None
    once_more = make(tmp_path, image, threshold=9, overwrite=True)
    assert own(once_more).process() == counts(image, 9)
    report = own(once_more).report
    assert report is not None
    assert report.resumed == 3


def test_folder_of_someone_else(tmp_path: Path, image: Array) -> None:
    project = make(tmp_path, image)
    (tmp_path / "count_bright" / "data").mkdir(parents=True)
    (tmp_path / "count_bright" / "data" / "counts.txt").write_text("1")
    with pytest.raises(ProjectError, match="was not made by this package"):
        own(project).process()
    assert own(project).process(overwrite=True) == counts(image)


def test_units_in_another_place(tmp_path: Path, image: Array) -> None:
    cache = tmp_path / "cache"
    project = make(tmp_path / "project", image, cache=str(cache), executor="inline")
    interrupt(project)
    (folder,) = cache.iterdir()
    assert len(list(folder.iterdir())) == 3
    assert project.status()[0].done == 3
    assert own(project).process() == counts(image)
    assert list(cache.iterdir()) == [], "nothing is left there"
    # The place is gone when the run goes on: its units are made again.
    interrupt(project)
    (folder,) = cache.iterdir()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    cache.rmdir()
    assert own(project).process() == counts(image)


def test_killed_before_the_run_was_removed(tmp_path: Path, image: Array) -> None:
    """The output has its name; the run directory is still there."""
    project = make(tmp_path, image)
    first = own(project)
    removed = RunDirectory.remove
    with pytest.MonkeyPatch.context() as patch:

        def remove(run: Any) -> None:
            if run.has_plan():
                raise KeyboardInterrupt
            removed(run)

        patch.setattr(RunDirectory, "remove", remove)
        with pytest.raises(KeyboardInterrupt):
            first.process()
    run = tmp_path / "count_bright" / ".data.run"
    assert run.exists()
    assert project.status()[0].state == "complete"
    assert own(project).process() == counts(image)
    assert own(project).report is None or own(project) is first
    assert not run.exists()


def test_status_and_looking_write_nothing(tmp_path: Path, image: Array) -> None:
    project = make(tmp_path, image, executor="inline")
    interrupt(project)

    def everything() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = everything()
    Project(tmp_path).status()
    str(Project(tmp_path))
    assert everything() == before


def test_no_input(tmp_path: Path) -> None:
    project = Project(tmp_path, {"own_step:CountBright": {}})
    with pytest.raises(MissingInputError, match="input_image"):
        own(project).process()


# The extraction alone, as its seed has it


def test_extraction_alone(loaded: Project, tmp_path: Path) -> None:
    folder = loaded.project_location
    config = {"HDF5CellExtraction": {"image_size": 32, "threads": 1}}
    alone = HDF5CellExtraction(config, folder / "extraction")
    path = alone()
    assert path == folder / "extraction" / "data" / names.H5SC_FILE
    assert path.exists()
    assert loaded.status()[0].state == "complete"
    plain = HDF5CellExtraction(config["HDF5CellExtraction"], project_location=folder)
    assert plain(partial=True, n_cells=5, seed=3).parent.name == "partial_data_ncells_5_seed_3"
    elsewhere = HDF5CellExtraction(config, tmp_path / "out", project_location=folder)
    assert elsewhere.process() == tmp_path / "out" / "data" / names.H5SC_FILE
    assert elsewhere.process().read_bytes() == path.read_bytes()
    with pytest.raises(ProjectError, match="give directory or project_location"):
        HDF5CellExtraction(config)


def test_extraction_alone_from_a_file(loaded: Project, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text("HDF5CellExtraction:\n  image_size: 32\n  threads: 1\n")
    directory = loaded.project_location / "extraction"
    assert HDF5CellExtraction(config, directory)().exists()
    config.write_text("name: x\n")
    with pytest.raises(ConfigError, match="section HDF5CellExtraction is missing"):
        HDF5CellExtraction(config, directory)
