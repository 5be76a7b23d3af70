"""Calling commands, and a step of a user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from scportrait_like.cli import app

PROGRAM = str(Path(sys.executable).with_name("scportrait-like"))

# A step of the user's own, in a file of the project folder; it sleeps, fails, or counts.
OWN_STEP = """
import time
from scportrait_like.config import StepConfig
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.step import ProcessingStep

class CountConfig(StepConfig):
    seconds: float = 0.0
    fail: bool = False

def work(unit, out, batch_size, check):
    seconds, fail = unit.what["seconds"], unit.what["fail"]
    for _ in range(10):
        check()
        time.sleep(seconds / 10)
    if fail:
        raise RuntimeError("the moon is full")
    return {}

class Names:
    def __init__(self, path):
        self.path, self.units = path, []
    def add(self, unit, result):
        self.units.append(unit.name)
    def flush(self): ...
    def close(self):
        (self.path / "units.txt").write_text("\\n".join(self.units))
    def abort(self): ...

class Count(ProcessingStep):
    Config = CountConfig
    folder = "count"
    def process(self, overwrite=None):
        return self.execute({}, overwrite)
    def inputs(self):
        return ("input_image",)
    def plan(self, call):
        what = {"seconds": self.config.seconds, "fail": self.config.fail}
        return Plan([Unit(f"u{k}", 0, what) for k in range(40)], unit_bytes=1)
    def task(self, plan, run):
        return work
    def sink(self, plan, output, call):
        return Names(output)
"""


def call(*words: str | Path) -> Result:
    """Call a command in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def start(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Start a command as a process; its output is no terminal."""
    line = [PROGRAM, *map(str, words)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)


def configure(folder: Path, **values: object) -> None:
    lines = "".join(f"  {key}: {value}\n" for key, value in values.items())
    (folder / "config.yml").write_text(f"count_step:Count:\n  executor: threads\n{lines}")
