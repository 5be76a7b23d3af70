"""Processes killed at any moment: a plain re-run gives what an uninterrupted run gives."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from scportrait_like import datasets, names

from . import killed
from .helpers import digests
from .script import CONFIG, TILE, Script, kill_in_all


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_killed_a_few_times(
    large_store: Path, tmp_path: Path, expected: dict[str, str], executor: str
) -> None:
    config = {**CONFIG, "executor": executor}
    assert kill_in_all(3, tmp_path, large_store, config, expected)["kills"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_killed_twenty_times(
    large_store: Path, tmp_path: Path, expected: dict[str, str], executor: str
) -> None:
    config = {**CONFIG, "executor": executor, "max_inflight_result_batches": 2}
    done = kill_in_all(20, tmp_path, large_store, config, expected)
    print(executor, done)
    assert done["kills"] == 20
    assert done["finished before"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_killed_at_the_end(
    large_store: Path, tmp_path: Path, expected: dict[str, str], executor: str
) -> None:
    """All units are there; the output is being completed and put in its place."""
    script = Script(tmp_path, large_store, {**CONFIG, "executor": executor}, TILE)
    for pause in (0, 0.02, 0.05):
        script.start()
        while script.process.poll() is None:
            done, units = script.run.progress()
            if units and done == units:
                time.sleep(pause)
                break
            time.sleep(0.002)
        script.kill(group=True)
    report = script.finish()
    assert report["computed"] == 0
    assert digests(script.output) == expected


# Every change to the disk

Killed = Callable[..., int]


@pytest.fixture(scope="session")
def forked(fork_server: ForkServerContext) -> Killed:
    """Run a function in a process that has all imported; its exit code."""

    def run(function: Callable[..., Any], *args: Any) -> int:
        process = fork_server.Process(target=function, args=args)
        process.start()
        process.join(120)
        assert process.exitcode is not None
        return process.exitcode

    return run


SMALL = {"image_size": 32, "executor": "inline", "flush_every": 5}


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tissue.zarr"
    tissue = datasets.tissue((1, 200, 200), seed=6, chunks=(1, 100, 100))
    return tissue.write_store(path, multiscale=False, nuclei=True)


def check_steps(forked: Killed, store: Path, base: Path, steps: range) -> int:
    """Kill at each of the changes; the number of those that there are, or the last tried."""
    whole = base / "whole"
    assert forked(killed.work, whole, store, 100, SMALL) == 0
    expected = digests(whole / names.EXTRACTION_DIR / names.EXTRACTION_DATA)
    for step in steps:
        folder = base / str(step)
        code = forked(killed.killed_at_change, folder, store, 100, SMALL, killed.EXTRACTION, step)
        output = folder / names.EXTRACTION_DIR / names.EXTRACTION_DATA
        if code == 0:
            return step
        assert code == -signal.SIGKILL
        if output.exists():
            assert digests(output) == expected, f"an output that is not whole, at step {step}"
        assert forked(killed.work, folder, store, 100, SMALL) == 0, f"at step {step}"
        assert digests(output) == expected, f"at step {step}"
        hidden = [p.name for p in output.parent.iterdir() if p.name.startswith(".")]
        assert hidden == [], f"at step {step}"
    return steps.stop


def test_killed_at_some_changes(forked: Killed, tiny_store: Path, tmp_path: Path) -> None:
    check_steps(forked, tiny_store, tmp_path, range(75, 400, 61))


@pytest.mark.slow
def test_killed_at_many_changes(forked: Killed, tiny_store: Path, tmp_path: Path) -> None:
    steps = check_steps(forked, tiny_store, tmp_path, range(0, 1000, 4))
    print(steps, "changes to the disk")
    assert 50 < steps < 1000
