"""A script in a process group of its own, to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from scportrait_like import names
from scportrait_like.run.rundir import RunDirectory

from .helpers import aggregation_digests, digests
from .killed import EXTRACTION

SCRIPT = Path(__file__).with_name("killed.py")
# Seconds of work in many units.
CONFIG = {"image_size": 96, "compression": "gzip", "threads": 2}
TILE = 175


@dataclass
class Script:
    """The script of `killed.py` for one project, run in a process group of its own."""

    folder: Path
    store: Path
    config: dict[str, Any]
    tile: int = 128
    step: str = EXTRACTION
    process: subprocess.Popen[str] | None = field(default=None, init=False)

    @property
    def output(self) -> Path:
        made = names.EXTRACTION_DIR if self.step == EXTRACTION else names.AGGREGATION_DIR
        return self.folder / made / names.EXTRACTION_DATA

    def digests(self) -> dict[str, str]:
        """Of all that the step made."""
        extraction = self.step == EXTRACTION
        return digests(self.output) if extraction else aggregation_digests(self.folder)

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.output.with_name(f".{self.output.name}.run"))

    def start(self) -> subprocess.Popen[str]:
        given = {
            "folder": str(self.folder),
            "store": str(self.store),
            "config": self.config,
            "tile": self.tile,
            "step": self.step,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self.process

    def finish(self) -> dict[str, Any]:
        process = self.process if self.process and self.process.poll() is None else self.start()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-3000:]
        report: dict[str, Any] = json.loads(out.split("REPORT ")[1])
        return report

    def await_starts(self, more: int, patience: float = 60) -> None:
        """Wait until so many more units were started than were before (or the end)."""
        assert self.process is not None
        before, end = len(self.run.started()), time.monotonic() + patience
        while len(self.run.started()) < before + more and time.monotonic() < end:
            if self.process.poll() is not None:
                return
            time.sleep(0.005)

    def kill(self, group: bool) -> None:
        """SIGKILL to all, or to the parent alone; then nothing of it lives on for long."""
        assert self.process is not None
        kin = kin_of(self.process.pid)
        if group:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.communicate()
        assert_gone(kin, seconds=5)


def kin_of(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def assert_gone(processes: list[psutil.Process], seconds: float) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    alive = [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not alive, f"still there after {seconds} s: {alive}"


def kill_often(script: Script, count: int, seed: int, expected: dict[str, str]) -> dict[str, int]:
    """Kill at random moments, half of them the parent alone; then let it end."""
    rng = np.random.default_rng(seed)
    # A worker process first loads its kernels.
    longest = 0.5 if script.config["executor"] == "threads" else 2.0
    finished: set[str] = set()
    starts, lost, kills = 0, 0, 0
    for number in range(count):
        script.start()
        if number % 4:
            script.await_starts(1)
            time.sleep(rng.uniform(0, longest))
        else:
            time.sleep(rng.uniform(0.3, 3))
        if script.process.poll() is not None:
            break
        script.kill(group=bool(number % 2))
        kills += 1
        journal = [unit for unit, _ in script.run.started()]
        again = [unit for unit in journal[starts:] if unit in finished]
        assert again == [], "a finished unit was computed again"
        if script.run.exists():
            finished, starts = script.run.finished(), len(journal)
            lost = starts - len(finished)
    left = len(finished)
    report = script.finish()
    if report["computed"] + report["resumed"]:
        assert report["resumed"] == left
    assert script.digests() == expected
    assert not script.run.path.exists()
    assert not [p for p in script.output.parent.iterdir() if p.name.startswith(".")]
    return {"kills": kills, "in flight at kills, computed twice": lost, "finished before": left}


def kill_in_all(
    count: int,
    folder: Path,
    store: Path,
    config: dict[str, Any],
    expected: dict[str, str],
    tile: int = TILE,
    step: str = EXTRACTION,
) -> dict[str, int]:
    """Kill so many times; where a project is complete before, go on with a fresh one."""
    done: Counter[str] = Counter()
    for number in range(count):
        script = Script(folder / str(number), store, config, tile, step)
        done.update(kill_often(script, count - done["kills"], count + number, expected))
        if done["kills"] >= count:
            break
    return dict(done)
