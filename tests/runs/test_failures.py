"""A worker that dies, Ctrl-C, a full disk: a clear error, nothing lost, and a re-run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from scportrait_like import names
from scportrait_like.errors import DiskFullError, ProjectLockedError, RunError, WorkerDiedError
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.runner import Resources, run_units

from .helpers import digests
from .script import CONFIG, TILE, Script, assert_gone, kin_of


@dataclass(frozen=True)
class Work:
    """Counts to ten a unit; unit `victim` kills its process where the file `armed` is."""

    armed: Path
    how: str = "kill"
    victim: int = 3

    def __call__(self, unit: Unit, out: Any, batch_size: int, check: Any) -> Mapping[str, float]:
        number = unit.what["number"]
        if number == self.victim and self.armed.exists():
            self.fail()
        time.sleep(0.02)
        check()
        out.put("values", np.arange(10) + number)
        return {"units": 1.0}

    def fail(self) -> None:
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "raise":
            raise LookupError("no such thing")
        if self.how == "interrupt":
            raise KeyboardInterrupt


class Sum:
    """Writes the sum of the values, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen, self.aborted = folder, [], False

    def add(self, unit: Unit, result: Any) -> None:
        self.seen.append(int(result["values"].sum()))

    def flush(self) -> None: ...

    def close(self) -> None:
        (self.folder / "sums.txt").write_text(" ".join(map(str, self.seen)))

    def abort(self) -> None:
        self.aborted = True


UNITS = [Unit(f"unit-{n:03d}", n // 8, {"number": n}) for n in range(16)]
SUMS = " ".join(str(45 + 10 * n) for n in range(16))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / ".data.run")
    run.start({"made": "by a test"})
    run.output_path.mkdir()
    return run


def resources(executor: Any = "processes", **options: Any) -> Resources:
    given = {"workers": 2, "budget": 8 << 30, "batch_size": 10, **options}
    return Resources(executor, "threads", **given)


def go(run: RunDirectory, task: Any, given: Resources) -> Any:
    run.clean()
    run.output_path.mkdir()
    sink = Sum(run.output_path)
    report = run_units(run, Plan(UNITS), task, sink, given)
    assert (run.output_path / "sums.txt").read_text() == SUMS
    return report


def check_death(run: RunDirectory, task: Work, executor: Any) -> WorkerDiedError:
    task.armed.touch()
    with pytest.raises(WorkerDiedError, match=r"unit-003 \(pid \d+\)") as caught:
        go(run, task, resources(executor))
    assert "unit-003" in caught.value.units
    assert "fewer threads or a smaller memory_limit" in str(caught.value)
    assert not set(caught.value.units) & run.finished()
    task.armed.unlink()
    return caught.value


def test_killed_process(run: RunDirectory, tmp_path: Path) -> None:
    check_death(run, Work(tmp_path / "armed"), "processes")
    before = run.finished()
    report = go(run, Work(tmp_path / "armed"), resources("processes", workers=1))
    assert report.resumed == len(before)
    assert report.computed == 16 - len(before)
    assert report.workers == 1


def test_goes_on_by_another_executor(run: RunDirectory, tmp_path: Path) -> None:
    check_death(run, Work(tmp_path / "armed"), "processes")
    go(run, Work(tmp_path / "armed"), resources("threads", budget=1 << 30))


def test_killed_process_of_an_executor_handed_in(run: RunDirectory, tmp_path: Path) -> None:
    from loky import get_reusable_executor

    check_death(run, Work(tmp_path / "armed"), get_reusable_executor(2))
    pool = get_reusable_executor(2)
    try:
        go(run, Work(tmp_path / "armed"), resources(pool))
    finally:
        pool.shutdown(kill_workers=True)


@pytest.mark.slow
def test_killed_dask_worker(run: RunDirectory, tmp_path: Path) -> None:
    """Distributed tries a unit that kills its worker three times again, then gives up."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        check_death(run, Work(tmp_path / "armed"), "dask")
        assert go(run, Work(tmp_path / "armed"), resources("dask")).executor == "dask"


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_unit_that_fails(run: RunDirectory, tmp_path: Path, executor: str) -> None:
    task = Work(tmp_path / "armed", "raise")
    task.armed.touch()
    with pytest.raises(RunError, match=r"unit unit-003 failed: LookupError: no such thing"):
        go(run, task, resources(executor))
    task.armed.unlink()
    report = go(run, task, resources(executor))
    assert report.resumed >= 1
    assert report.computed == 16 - report.resumed


class Failing(Sum):
    """Fails while the output is made."""

    def add(self, unit: Unit, result: Any) -> None:
        if unit.name == "unit-005":
            raise OSError(28, "No space left on device")
        super().add(unit, result)


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_sink_that_fails(run: RunDirectory, tmp_path: Path, executor: str) -> None:
    sink = Failing(run.output_path)
    with pytest.raises(DiskFullError, match="goes on where it stopped"):
        run_units(run, Plan(UNITS), Work(tmp_path / "no"), sink, resources(executor))
    assert sink.aborted
    assert "placer" not in {thread.name for thread in threading.enumerate()}
    assert not [
        p
        for p in kin_of(os.getpid())
        if "loky" in " ".join(p.cmdline()) and "resource_tracker" not in " ".join(p.cmdline())
    ]
    report = go(run, Work(tmp_path / "no"), resources(executor))
    assert report.resumed >= 5


def test_journal_cut_short(run: RunDirectory) -> None:
    run.note_start("unit-000")
    with (run.path / names.JOURNAL_FILE).open("a") as file:
        file.write("unit-0")
    assert run.started() == [("unit-000", os.getpid())]


@pytest.mark.parametrize(
    "executor", [pytest.param("inline", marks=pytest.mark.slow), "threads", "processes"]
)
def test_ctrl_c(tmp_path: Path, large_store: Path, expected: Any, executor: str) -> None:
    """As a terminal sends it: to the whole process group."""
    script = Script(tmp_path, large_store, {**CONFIG, "executor": executor}, TILE)
    process = script.start()
    script.await_starts(4)
    kin = kin_of(process.pid)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode in (-signal.SIGINT, 1, 130)
    assert "KeyboardInterrupt" in err
    assert_gone(kin, seconds=5)
    assert script.run.exists()
    finished = len(script.run.finished())
    assert script.finish()["resumed"] == finished
    assert digests(script.output) == expected


def test_second_process(tmp_path: Path, large_store: Path) -> None:
    """It is refused while the first one works; the lock does not outlive its owner."""
    from scportrait_like.project import Project

    script = Script(tmp_path, large_store, {**CONFIG, "executor": "threads"}, TILE)
    process = script.start()
    script.await_starts(3)
    second = Project(tmp_path)
    message = rf"HDF5CellExtraction, process {process.pid} on .*the lock goes with its owner"
    with pytest.raises(ProjectLockedError, match=message):
        second.extract()
    (status,) = second.status()
    assert status.state == "interrupted", "looking is free"
    script.kill(group=True)
    finished = len(script.run.finished())
    second.extract()
    assert second.extraction_f.report.resumed == finished


@pytest.mark.slow
def test_killed_worker_of_a_script(tmp_path: Path, large_store: Path, expected: Any) -> None:
    script = Script(tmp_path, large_store, {**CONFIG, "executor": "processes"}, TILE)
    process = script.start()
    script.await_starts(5)
    victim = script.run.started()[-1][1]
    psutil.Process(victim).kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "WorkerDiedError: a worker process died" in err
    finished = len(script.run.finished())
    assert finished
    # Fewer workers, less memory, another executor: run keys, so the run goes on.
    config = {**CONFIG, "executor": "threads", "threads": 1, "memory_limit": "2GB"}
    script = Script(tmp_path, large_store, config, TILE)
    assert script.finish()["resumed"] == finished
    assert digests(script.output) == expected


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 10 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=10m", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@pytest.mark.parametrize(
    "executor", [pytest.param("inline", marks=pytest.mark.slow), "threads", "processes"]
)
def test_full_disk(
    small_disk: Path, large_store: Path, monkeypatch: Any, capfd: Any, executor: str
) -> None:
    """Full while units are written, again while the output is; each time a little more space."""
    from scportrait_like.raster import tiles

    monkeypatch.setattr(tiles, "TILE_EDGE", TILE)
    project = projected(small_disk / "project", large_store, {**CONFIG, "executor": executor})
    finished, messages = 0, list[str]()
    for size in (10, 14, 18, 22, 26, 30, 40, 60):
        resize(small_disk, f"{size}m")
        try:
            project.extract()
        except DiskFullError as error:
            messages.append(str(error))
        else:
            break
        (status,) = project.status()
        assert status.state in ("interrupted", "absent")
        assert status.done >= finished, "something finished was lost"
        finished = status.done
    assert len(messages) >= 2
    assert all("free some space and run the same call again" in line for line in messages)
    assert project.status()[0].state == "complete"
    assert "Traceback" not in capfd.readouterr().err


def projected(folder: Path, store: Path, config: dict[str, Any]) -> Any:
    from scportrait_like.project import Project

    project = Project(folder, {"HDF5CellExtraction": config})
    project.filehandler.path.symlink_to(store, target_is_directory=True)
    return project


def test_full_disk_in_the_log(small_disk: Path, capfd: Any) -> None:
    """The log itself has no room: no traceback for each line, and no other error."""
    import logging

    from scportrait_like.log import LOGGER, log_to

    with log_to(small_disk / names.LOG_FILE):
        (small_disk / "filler").write_bytes(b"")
        with pytest.raises(OSError, match="No space"):
            (small_disk / "filler").write_bytes(bytes(20 << 20))
        for _ in range(200):
            logging.getLogger("scportrait_like.test").info("x" * 10_000)
    assert "Traceback" not in capfd.readouterr().err
    assert not LOGGER.handlers
