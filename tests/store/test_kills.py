"""Processes killed while they write: what lies there reads, and holds the old or the new."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata

from scportrait_like import names
from scportrait_like.filehandler import FileHandler
from scportrait_like.io import placement

from . import killed
from .helpers import version_of

Killed = Callable[..., int]


@pytest.fixture
def run_killed(fork_server: ForkServerContext) -> Killed:
    """Run in a process of its own, killed after some seconds; None waits for its end."""

    def run(function: Callable[..., None], *args: Any, after: float | None) -> int:
        process = fork_server.Process(target=function, args=args)
        process.start()
        if after is not None:
            time.sleep(after)
            process.kill()
        process.join(60)
        # Nothing but the kill, or the end where there is one, may have ended it.
        assert process.exitcode == -signal.SIGKILL or (process.exitcode == 0 and after is None)
        return process.exitcode

    return run


def read_foreign(base: Path) -> Any:
    """As any reader of SpatialData would, with warnings of damage made errors."""
    return spatialdata.read_zarr(base / names.STORE)


def assert_repaired(base: Path, kept: dict[str, int]) -> None:
    """After a repair nothing is left over, all agree, and writing goes on."""
    handler = FileHandler(base)
    handler.repair()
    assert placement.leftovers(handler.path) == []
    assert not list(base.glob(".scratch-*"))
    assert handler.repair() == []
    foreign = read_foreign(base) if handler.path.exists() else spatialdata.SpatialData()
    assert set(handler.element_names()) == {name for _, name, _ in foreign.gen_elements()}
    for name, version in kept.items():
        assert version_of(foreign, name) == version
    killed.place(handler, "cells", 7)
    killed.place(handler, "rois", 7)
    assert version_of(handler.sdata, "cells") == version_of(read_foreign(base), "rois") == 7
    handler.delete_element("rois")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    handler = FileHandler(tmp_path / "project")
    for name in killed.NAMES:
        killed.place(handler, name, 1)
    return handler.directory


def possible(base: Path, name: str, before: int) -> set[int]:
    """The versions that may be there: the last one done, and the one begun."""
    noted = {}
    for note in ("done", "begun"):
        file = base / f"{name}.{note}"
        # The note itself may be cut short.
        text = file.read_text() if file.exists() else ""
        noted[note] = int(text) if text else before
        file.unlink(missing_ok=True)
    return set(noted.values())


def delays(count: int, longest: float, seed: int) -> Iterator[float]:
    yield from np.random.default_rng(seed).uniform(0.02, longest, count)


def check_first_loads(run_killed: Killed, base: Path, count: int) -> None:
    for seed, delay in enumerate(delays(count, 0.9, 1)):
        folder = base / str(seed)
        folder.mkdir(parents=True)
        run_killed(killed.first_loads, folder, seed, after=delay)
        for project in sorted(folder.iterdir())[-2:]:
            if (project / names.STORE).exists():
                sdata = read_foreign(project)
                assert all(version_of(sdata, name) == 1 for _, name, _ in sdata.gen_elements())
                assert "cells" in FileHandler(project).sdata
            assert_repaired(project, {})


def check_replacements(run_killed: Killed, base: Path, count: int, by_journal: bool) -> None:
    action = killed.replacements_by_journal if by_journal else killed.replacements
    versions = dict.fromkeys(killed.NAMES, 1)
    for seed, delay in enumerate(delays(count, 0.9, 2), start=1):
        run_killed(action, base, seed, after=delay)
        as_it_lies, ours = read_foreign(base), FileHandler(base).sdata
        for name in killed.NAMES:
            if by_journal and name not in as_it_lies:
                FileHandler(base).repair()
                as_it_lies = ours = read_foreign(base)
            there = version_of(as_it_lies, name)
            assert there in possible(base, name, before=versions[name])
            assert version_of(ours, name) == there
            versions[name] = there
        assert_repaired(base, {name: versions[name] for name in killed.NAMES[1:]})
        versions["cells"] = 7


def check_deletions(run_killed: Killed, base: Path, count: int) -> None:
    for seed, delay in enumerate(delays(count, 0.7, 3), start=1):
        run_killed(killed.deletions, base, seed, after=delay)
        as_it_lies = read_foreign(base)
        assert "cells" in as_it_lies
        versions = {name: version_of(as_it_lies, name) for _, name, _ in as_it_lies.gen_elements()}
        assert all(version_of(FileHandler(base).sdata, name) for name in versions)
        assert_repaired(base, {name: versions[name] for name in versions if name != "cells"})


def test_killed_first_load(run_killed: Killed, tmp_path: Path) -> None:
    check_first_loads(run_killed, tmp_path, 2)


def test_killed_replacement(run_killed: Killed, base: Path) -> None:
    check_replacements(run_killed, base, 2, by_journal=False)


def test_killed_replacement_by_journal(run_killed: Killed, base: Path) -> None:
    check_replacements(run_killed, base, 2, by_journal=True)


def test_killed_deletion(run_killed: Killed, base: Path) -> None:
    check_deletions(run_killed, base, 2)


@pytest.mark.slow
def test_killed_first_load_often(run_killed: Killed, tmp_path: Path) -> None:
    check_first_loads(run_killed, tmp_path, 12)


@pytest.mark.slow
@pytest.mark.parametrize("by_journal", [False, True])
def test_killed_replacement_often(run_killed: Killed, base: Path, by_journal: bool) -> None:
    check_replacements(run_killed, base, 12, by_journal)


@pytest.mark.slow
def test_killed_deletion_often(run_killed: Killed, base: Path) -> None:
    check_deletions(run_killed, base, 12)


def check_each_step(
    run_killed: Killed, base: Path, action: str, by_journal: bool, steps: range
) -> bool:
    """Kill at each of the steps of placing; True once a step lies beyond the end."""
    name = "centers" if action == "delete" else action
    for step in steps:
        run = (killed.killed_at_step, base, action, step, by_journal)
        if run_killed(*run, after=None) == 0:
            return True
        as_it_lies, ours = read_foreign(base), FileHandler(base).sdata
        if action != "delete" and not by_journal:
            assert version_of(as_it_lies, name) in (1, 2)
            assert version_of(ours, name) == version_of(as_it_lies, name)
        handler = FileHandler(base)
        handler.repair()
        assert not list(base.glob(".scratch-*"))
        assert set(read_foreign(base).labels) == {"cells"}
        if action == "delete":
            assert name not in handler or version_of(handler.sdata, name) == 1
        else:
            assert version_of(handler.sdata, name) in (1, 2)
        killed.place(handler, name, 1)
    return False


@pytest.mark.parametrize("action", ["centers", "delete"])
def test_killed_at_steps_of_placing(run_killed: Killed, base: Path, action: str) -> None:
    check_each_step(run_killed, base, action, False, range(0, 60, 11))


def test_killed_at_steps_of_placing_by_journal(run_killed: Killed, base: Path) -> None:
    check_each_step(run_killed, base, "centers", True, range(0, 60, 11))


@pytest.mark.slow
@pytest.mark.parametrize("by_journal", [False, True])
@pytest.mark.parametrize("action", ["cells", "intensities", "centers", "delete"])
def test_killed_at_each_step_of_placing(
    run_killed: Killed, base: Path, action: str, by_journal: bool
) -> None:
    # A table is many files, and one is like the other.
    stride = 5 if action == "intensities" else 1
    assert check_each_step(run_killed, base, action, by_journal, range(0, 500, stride))
