"""Featurizations killed at any moment: run again they go on, to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from scportrait_like import names
from scportrait_like.project import Project

from .featurizing import STEP, feature_digests
from .script import Script, kill_often
from .test_aggregation_kills import tiled_store  # noqa: F401

SCRIPT = Path(__file__).with_name("killed_featurization.py")
TILE = 100
SOURCES = {
    "images": {"source": "images", "diameter": 32, "model": "pca", "embedding_dimension": 6},
    "extraction": {"model": "pca", "embedding_dimension": 6},
}


@dataclass
class FeatureScript(Script):
    """The script of `killed_featurization.py` for one project."""

    @property
    def output(self) -> Path:
        return self.folder / names.FEATURIZATION_DIR / names.FEATURES

    def digests(self) -> dict[str, str]:
        return feature_digests(self.folder)

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


def script_of(folder: Path, store: Path, source: str, **config: Any) -> FeatureScript:
    return FeatureScript(folder, store, {**SOURCES[source], "threads": 2, **config}, TILE, STEP)


Whole = Callable[[str], dict[str, str]]


@pytest.fixture(scope="session")
def whole(
    tiled_store: Path,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Whole:
    """What a featurization of a source makes that nobody kills."""

    @cache
    def made(source: str) -> dict[str, str]:
        script = script_of(tmp_path_factory.mktemp(source), tiled_store, source)
        assert script.finish()["computed"] > 60
        assert names.MODEL_FILE in script.digests()
        return script.digests()

    return made


@pytest.mark.slow
@pytest.mark.parametrize("source", ["images", "extraction"])
def test_interrupted_and_gone_on_with_others(
    tiled_store: Path,  # noqa: F811
    tmp_path: Path,
    whole: Whole,
    source: str,
) -> None:
    script = script_of(tmp_path, tiled_store, source)
    script.start()
    while script.process.poll() is None:
        done, units = script.run.progress()
        if units and done >= 0.3 * units:
            break
        time.sleep(0.003)
    script.kill(group=True)
    finished = len(script.run.finished())
    _, units = script.run.progress()
    assert 0.3 * units <= finished < units
    project = Project(tmp_path)
    (status,) = project.featurization_f.status()
    assert str(status) == f"{STEP} (features): interrupted, {finished} of {units} units"
    assert names.FEATURES not in project.filehandler
    assert not script.output.exists()
    script.config |= {"executor": "inline", "memory_limit": "1GB", "max_batch_size": 5}
    report = script.finish()
    assert (report["resumed"], report["computed"]) == (finished, units - finished)
    assert report["workers"] == 1
    assert script.digests() == whole(source)
    assert {status.state for status in Project(tmp_path).featurization_f.status()} == {"complete"}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_killed_often(
    tiled_store: Path,  # noqa: F811
    tmp_path: Path,
    whole: Whole,
    source: str,
    executor: str,
) -> None:
    """No finished unit is computed twice, which `kill_often` reads from the journal."""
    kills = 0
    for number in range(6):
        script = script_of(tmp_path / str(number), tiled_store, source, executor=executor)
        done = kill_often(script, 6 - kills, number, whole(source))
        kills += done["kills"]
        print(source, executor, done)
        if kills >= 6:
            break
    assert kills >= 6
