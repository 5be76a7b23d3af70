"""The window, from figures; and how memory is counted and granted."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scportrait_like.errors import ConfigError
from scportrait_like.run import memory
from scportrait_like.run.memory import MB, WORKER_BYTES, container_limit, memory_budget
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.runner import Resources, run_units
from scportrait_like.run.window import Window

from .test_failures import Sum


def window(budget: int, workers: int = 4, separate: bool = False, **options: Any) -> Window:
    """Units of 100 MB and 1 MB a row; 100 MB are taken before the first."""
    return Window(budget * MB, 100 * MB, workers, 64, 100 * MB, MB, separate, **options)


def test_enough_memory(caplog: Any) -> None:
    found = window(4000)
    assert (found.size, found.batch_size, found.tight) == (4, 64, False)
    assert not caplog.records


def test_batches_are_halved_first(caplog: Any) -> None:
    found = window(700)
    assert (found.size, found.batch_size) == (4, 16)
    assert found.per_unit * found.size <= found.room
    assert found.tight
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message == (
        "batches of 16 cells instead of 64: projected 116 MB a unit in flight; budget 700 MB, "
        "100 MB taken before the first"
    )


def test_then_workers_are_dropped(caplog: Any) -> None:
    found = window(450)
    assert found.size == 2
    assert 16 <= found.batch_size < 64
    assert found.per_unit * found.size <= found.room
    assert "2 workers instead of 4: projected" in caplog.text


def test_one_worker_gets_large_batches_again() -> None:
    found = window(300)
    assert (found.size, found.batch_size) == (1, 64)


def test_too_little_for_anything(caplog: Any) -> None:
    found = window(150)
    assert (found.size, found.batch_size, found.fits) == (1, 16, False)
    assert "may not hold a single unit" in caplog.text
    assert "Grant more memory_limit" in caplog.text
    assert found.admits(0, 10**12), "a run goes on, however tight"
    assert not found.admits(1, 0)


def test_processes_bring_their_imports() -> None:
    found = window(1400, separate=True)
    assert found.per_unit == WORKER_BYTES + 100 * MB + found.batch_size * MB
    assert found.size * found.per_unit <= found.room


def test_the_users_own_limit() -> None:
    assert window(4000, at_most=2).size == 2
    assert window(4000, at_most=9).size == 4


def test_calibration(caplog: Any) -> None:
    """More was measured than projected: as much is expected of all units to come."""
    caplog.set_level(logging.INFO)
    found = window(1000)
    assert (found.size, found.calibrated) == (4, False)
    found.calibrate(100 * MB + 4 * 400 * MB)
    assert found.calibrated
    assert found.size < 4
    assert found.per_unit * found.size <= found.room
    assert "calibration: baseline 100 MB, 400 MB measured a unit in flight" in caplog.text
    assert "workers instead of 4: measured" in caplog.text


def test_small_first_units_prove_nothing() -> None:
    found = window(1000)
    before = found.per_unit
    found.calibrate(101 * MB)
    assert (found.size, found.per_unit) == (4, before)


def test_a_unit_waits_for_what_is_really_taken() -> None:
    found = window(4000)
    assert found.admits(3, 3000 * MB)
    assert not found.admits(3, 3990 * MB)
    assert not found.admits(4, 0)


# A real run whose units are larger than their plan said


@dataclass(frozen=True)
class Hungry:
    """Holds 150 MB for a while."""

    def __call__(self, unit: Unit, out: Any, batch_size: int, check: Any) -> Mapping[str, float]:
        held = np.ones(150 * MB, np.uint8)
        for _ in range(5):
            check()
            time.sleep(0.1)
        out.put("values", held[:10])
        return {}


@pytest.mark.slow  # beside another test run, what they share counts half
def test_worker_processes_end_when_memory_shows_too_little(tmp_path: Path, caplog: Any) -> None:
    run = RunDirectory(tmp_path / ".data.run")
    run.start({})
    run.output_path.mkdir()
    units = [Unit(f"unit-{n}", 0, {}) for n in range(24)]
    plan = Plan(units, unit_bytes=MB)
    memory.release_freed()
    budget = memory.tree_memory() + 500 * MB
    budget = int(budget / (1 - memory.MARGIN))
    given = Resources("processes", "threads", workers=3, budget=budget, batch_size=10)
    sink = Sum(run.output_path)
    report = run_units(run, plan, Hungry(), sink, given)
    assert len(sink.seen) == report.computed == 24
    assert report.workers == report.window < 3
    assert "workers instead of 3: measured" in caplog.text


# Counting and granting


def hold(size: int, ready: Any, stop: Any) -> None:
    held = np.ones(size, np.uint8)
    ready.set()
    stop.wait(30)
    assert held[0] == 1


def test_memory_of_the_tree() -> None:
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    before = memory.tree_memory()
    child = context.Process(target=hold, args=(200 * MB, ready, stop))
    child.start()
    ready.wait(30)
    assert child.pid in memory.process_tree(os.getpid())
    assert 200 * MB < memory.tree_memory() - before < 500 * MB
    assert memory.process_memory(child.pid) > 200 * MB
    stop.set()
    child.join()
    assert memory.process_memory(child.pid) == 0
    assert child.pid not in memory.process_tree(os.getpid())


def test_grandchildren_count() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as child:
        for _ in range(100):
            if len(memory.process_tree(child.pid)) == 2:
                break
            time.sleep(0.1)
        assert len(memory.process_tree(child.pid)) == 2
        child.communicate(b"\n")


@pytest.mark.parametrize(
    ("given", "size"),
    [("4GB", 4 * 10**9), ("512 MiB", 512 << 20), (10**9, 10**9), ("1.5G", 15 * 10**8)],
)
def test_budget_as_granted(given: Any, size: int) -> None:
    assert memory_budget(given, 0.85) == size


@pytest.mark.parametrize("given", ["much", "-1GB", 0, True])
def test_no_budget(given: Any) -> None:
    with pytest.raises(ConfigError, match="memory_limit"):
        memory_budget(given, 0.85)


def test_budget_of_the_machine(monkeypatch: Any) -> None:
    monkeypatch.setattr(memory, "container_limit", lambda: 10**9)
    assert memory_budget(None, 0.5) == 5 * 10**8


def test_less_is_free_than_granted(caplog: Any) -> None:
    memory_budget("900TB", 0.85)
    assert "MB are free now" in caplog.text


def limits(folder: Path, membership: str, files: dict[str, str]) -> int | None:
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (folder / "self").write_text(membership + "\n")
    return container_limit(folder / "self", folder / "cgroup")


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/a/b", {"a/memory.max": "1000", "a/b/memory.max": "max"}, 1000),
        ("0::/a/b", {"a/memory.max": "1000", "a/b/memory.max": "500"}, 500),
        ("0::/", {"memory.max": "700"}, 700),
        ("0::/host/path/unseen", {"memory.max": "700"}, 700),
        ("4:cpu:/x\n3:memory:/x", {"memory/x/memory.limit_in_bytes": "900"}, 900),
        ("3:memory:/x", {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ("0::/a", {}, None),
    ],
)
def test_limit_of_the_container(
    tmp_path: Path, membership: str, files: dict[str, str], limit: int | None
) -> None:
    assert limits(tmp_path, membership, files) == limit


def test_no_container(tmp_path: Path) -> None:
    assert container_limit(tmp_path / "absent", tmp_path) is None
