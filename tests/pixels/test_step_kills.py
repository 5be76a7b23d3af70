"""Pixel clusterings killed in every stage: run again they go on, to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runs import killed
from runs.script import Script, kill_often
from runs.test_kills import Killed, forked  # noqa: F401

from scportrait_like import datasets, names
from scportrait_like.filehandler import FileHandler
from scportrait_like.project import Project

from .clustering import LABELS, SMALL, STEP, TABLES, clustering_digests

SCRIPT = Path(__file__).with_name("killed_clustering.py")
TILE = 100
CONFIG = {**SMALL, "threads": 2}


@dataclass
class ClusteringScript(Script):
    """The script of `killed_clustering.py` for one project."""

    @property
    def output(self) -> Path:
        return self.folder / names.PIXEL_CLUSTERING_DIR / "data"

    def digests(self) -> dict[str, str]:
        return clustering_digests(self.folder)

    def start(self) -> subprocess.Popen[str]:
        given = {"folder": str(self.folder), "store": str(self.store)}
        given |= {"config": self.config, "tile": self.tile}
        tests = str(Path(__file__).parent.parent)
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": tests},
        )
        return self.process

    def kill_in(self, stage: str) -> None:
        """Kill it once it has started a unit of a stage, which then is not finished before."""
        self.start()
        before = len(self.run.started())
        while self.process.poll() is None:
            started = [unit for unit, _ in self.run.started()[before:]]
            if any(unit == stage or unit.startswith(f"{stage}-") for unit in started):
                break
            time.sleep(0.001)
        self.kill(group=True)


def script_of(folder: Path, store: Path, **config: Any) -> ClusteringScript:
    return ClusteringScript(folder, store, {**CONFIG, **config}, TILE, STEP)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 cells in 25 tiles of 100 pixels."""
    path = tmp_path_factory.mktemp("tiled") / "tissue.zarr"
    tissue = datasets.tissue((3, 500, 500), seed=6, chunks=(1, TILE, TILE))
    return tissue.write_store(path, multiscale=False, nuclei=True)


@dataclass
class Whole:
    digests: dict[str, str]
    stages: list[str]
    units: int


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What a clustering that nobody kills makes, and its stages."""
    script = script_of(tmp_path_factory.mktemp("whole"), store)
    report = script.finish()
    project = Project(script.folder)
    (step,) = project.steps[STEP]
    units = step.plan({}).units
    stages = list(dict.fromkeys(unit.what["stage"] for unit in units))
    assert report["resumed"] == 0
    return Whole(script.digests(), stages, report["computed"])


def check_interrupted(script: ClusteringScript) -> None:
    """Nothing of it is seen, and the status tells how far it is."""
    there = FileHandler(script.folder)
    assert not {*LABELS, *TABLES} & set(there.element_names())
    assert not script.output.exists()
    (status,) = Project(script.folder).status()
    assert (status.state, status.done) == ("interrupted", len(script.run.finished()))


@pytest.mark.parametrize(
    "stages", [["draw", "assign"], pytest.param(None, marks=pytest.mark.slow)], ids=["two", "every"]
)
def test_killed_in_stages(
    store: Path, tmp_path: Path, whole: Whole, stages: list[str] | None
) -> None:
    """One project, killed in each stage in turn; each run goes on from the one before."""
    script = script_of(tmp_path, store)
    assert {"survey", "percentiles", "draw", "weigh", "train", "assign"} < set(whole.stages)
    stages = stages or whole.stages
    done = 0
    for stage in stages:
        script.kill_in(stage)
        finished = len(script.run.finished())
        assert finished >= done, "a finished unit was lost"
        done = finished
        check_interrupted(script)
    journal = len(script.run.started())
    script.config = {**script.config, "executor": "inline", "memory_limit": "2GB"}
    report = script.finish()
    assert (report["resumed"], report["computed"]) == (done, whole.units - done)
    assert report["workers"] == 1
    # Units in flight at a kill were computed twice, finished ones never: two a kill at most.
    assert journal - done <= 2 * len(stages)
    assert script.digests() == whole.digests
    assert [status.state for status in Project(tmp_path).status()] == ["complete"]
    assert not [path for path in script.output.parent.iterdir() if path.name.startswith(".")]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".scratch")]


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_killed_often(store: Path, tmp_path: Path, whole: Whole, executor: str) -> None:
    """No finished unit is computed twice, which `kill_often` reads from the journal."""
    kills = 0
    for number in range(8):
        script = script_of(tmp_path / str(number), store, executor=executor)
        done = kill_often(script, 8 - kills, number, whole.digests)
        kills += done["kills"]
        print(executor, done)
        if kills >= 8:
            break
    assert kills >= 8


def check_placing(run: Killed, store: Path, base: Path, changes: range) -> int:
    """Kill at changes to the disk from the first one of the labels on."""
    small = {**SMALL, "executor": "inline", "preprocess": False}
    work = (store, 250, small, STEP)
    whole = base / "whole"
    assert run(killed.work, whole, *work) == 0
    expected = clustering_digests(whole)
    for change in changes:
        folder = base / str(change)
        code = run(killed.killed_at_change, folder, *work, change, names.PIXEL_CLUSTERS)
        if code == 0:
            return change
        assert code == -signal.SIGKILL
        project = Project(folder)
        (status,) = project.status()
        if project.pixel_clustering_f.output_path.exists():
            assert clustering_digests(folder) == expected, f"not whole, at change {change}"
        else:
            assert status.state == "interrupted", f"at change {change}"
        assert run(killed.work, folder, *work) == 0, f"at change {change}"
        assert clustering_digests(folder) == expected, f"at change {change}"
        assert [status.state for status in Project(folder).status()] == ["complete"]
        hidden = [path.name for path in folder.rglob(".scratch*")]
        assert hidden == [], f"at change {change}"
    return changes.stop


@pytest.mark.slow
def test_killed_while_elements_are_placed(
    forked: Killed,  # noqa: F811
    store: Path,
    tmp_path: Path,
) -> None:
    changes = check_placing(forked, store, tmp_path, range(10, 2600, 240))
    print(changes, "changes to the disk while the labels and tables are written and placed")
    assert 1000 < changes < 2600
