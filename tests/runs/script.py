"""A script in a process group of its own, to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from scportrait_like import names
from scportrait_like.run.rundir import RunDirectory

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
    process: subprocess.Popen[str] | None = field(default=None, init=False)

    @property
    def output(self) -> Path:
        return self.folder / names.EXTRACTION_DIR / names.EXTRACTION_DATA

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.output.with_name(f".{self.output.name}.run"))

    def start(self) -> subprocess.Popen[str]:
        given = {
            "folder": str(self.folder),
            "store": str(self.store),
            "config": self.config,
            "tile": self.tile,
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
