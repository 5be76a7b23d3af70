"""Aggregations killed at any moment: run again they go on, to the same bits."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from scportrait_like import datasets, names
from scportrait_like.project import Project

from . import killed
from .helpers import aggregation_digests
from .script import Script, kill_in_all
from .test_kills import Killed, forked, tiny_store  # noqa: F401

STEP = "Aggregation"
CONFIG = {"statistics": ["mean", "var", "median", "q0.9"], "threads": 2}
TILE = 50


@pytest.fixture(scope="session")
def tiled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 330 cells in 256 tiles of 50 pixels: many units, and most cells cross tiles."""
    path = tmp_path_factory.mktemp("tiled") / "tissue.zarr"
    tissue = datasets.tissue((2, 800, 800), seed=6, chunks=(1, TILE, TILE))
    return tissue.write_store(path, multiscale=False, nuclei=True)


@pytest.fixture(scope="session")
def whole(tiled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an aggregation that nobody kills makes."""
    script = Script(tmp_path_factory.mktemp("whole"), tiled_store, CONFIG, TILE, STEP)
    assert script.finish()["computed"] > 256
    return script.digests()


def script_of(folder: Path, store: Path, **config: Any) -> Script:
    return Script(folder, store, {**CONFIG, **config}, TILE, STEP)


def kill_when(script: Script, share: float) -> None:
    """Kill it once so much of the units is finished."""
    script.start()
    while script.process.poll() is None:
        done, units = script.run.progress()
        if units and done >= share * units:
            break
        time.sleep(0.005)
    script.kill(group=True)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_killed_often(
    tiled_store: Path, tmp_path: Path, whole: dict[str, str], executor: str
) -> None:
    """No finished unit is computed twice, which `kill_in_all` reads from the journal."""
    config = {**CONFIG, "executor": executor}
    done = kill_in_all(12, tmp_path, tiled_store, config, whole, TILE, STEP)
    print(executor, done)
    assert done["kills"] == 12
    assert done["finished before"] > 0


@pytest.mark.slow
def test_interrupted_and_gone_on_with_fewer_workers(
    tiled_store: Path, tmp_path: Path, whole: dict[str, str]
) -> None:
    script = script_of(tmp_path, tiled_store)
    kill_when(script, 0.4)
    finished = len(script.run.finished())
    _, units = script.run.progress()
    assert 0.4 * units <= finished < units
    project = Project(tmp_path)
    (status,) = project.status()
    said = f"Aggregation (data): interrupted, {finished} of {units} units"
    assert str(status) == said
    assert names.INTENSITIES not in project.filehandler
    assert not script.output.exists()
    journal = len(script.run.started())
    script.config = {**CONFIG, "executor": "inline", "threads": 1}
    report = script.finish()
    assert (report["resumed"], report["computed"]) == (finished, units - finished)
    assert report["workers"] == 1
    assert journal >= finished
    assert script.digests() == whole
    assert [status.state for status in Project(tmp_path).status()] == ["complete"]


@pytest.mark.slow
def test_a_changed_config_does_not_go_on(tiled_store: Path, tmp_path: Path) -> None:
    """An interrupted run of other settings is refused, and kept for those it was begun with."""
    script = script_of(tmp_path, tiled_store)
    kill_when(script, 0.3)
    finished = script.run.finished()
    script.config = {**CONFIG, "statistics": ["max"]}
    refused = script.start()
    _, said = refused.communicate(timeout=100)
    assert refused.returncode != 0
    assert "another config" in said
    assert "Aggregation.statistics" in said
    assert script.run.finished() == finished


@pytest.mark.slow
def test_killed_at_the_end(tiled_store: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    """All units are there; the table is being merged and put in its place."""
    script = script_of(tmp_path, tiled_store)
    for pause in (0, 0.03, 0.1):
        kill_when(script, 1)
        time.sleep(pause)
    report = script.finish()
    assert report["computed"] == 0
    assert script.digests() == whole


# Every change to the disk while the table is placed

SMALL = {"statistics": ["mean", "median"], "executor": "inline"}


def check_placing(run: Killed, store: Path, base: Path, changes: range) -> int:
    """Kill at changes to the disk from the first one that has to do with the table.

    Returns the number of changes that there are, or the last that was tried.
    """
    folder = base / "whole"
    assert run(killed.work, folder, store, 100, SMALL, STEP) == 0
    expected = aggregation_digests(folder)
    for change in changes:
        folder = base / str(change)
        code = run(
            killed.killed_at_change, folder, store, 100, SMALL, STEP, change, names.INTENSITIES
        )
        if code == 0:
            return change
        assert code == -signal.SIGKILL
        project = Project(folder)
        (status,) = project.status()
        output = project.aggregation_f.output_path
        if output.exists():
            assert aggregation_digests(folder) == expected, f"not whole, at change {change}"
        else:
            assert status.state == "interrupted", f"at change {change}"
            assert status.done == status.units, f"at change {change}"
        assert run(killed.work, folder, store, 100, SMALL, STEP) == 0, f"at change {change}"
        assert aggregation_digests(folder) == expected, f"at change {change}"
        assert [status.state for status in Project(folder).status()] == ["complete"]
        hidden = [path.name for path in output.parent.iterdir() if path.name.startswith(".")]
        assert hidden == [], f"at change {change}"
    return changes.stop


@pytest.mark.slow
def test_killed_at_some_changes(
    forked: Killed,  # noqa: F811
    tiny_store: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    check_placing(forked, tiny_store, tmp_path, range(15, 800, 225))


@pytest.mark.slow
def test_killed_at_many_changes(
    forked: Killed,  # noqa: F811
    tiny_store: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    changes = check_placing(forked, tiny_store, tmp_path, range(0, 1200, 12))
    print(changes, "changes to the disk while the table is placed")
    assert 50 < changes < 1200
