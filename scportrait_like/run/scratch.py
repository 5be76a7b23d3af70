"""Runs without a project: in a temporary run directory that goes with the call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from scportrait_like.run.plan import Plan, Sink, Task
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.runner import Resources, RunReport, run_units


def run_in_scratch(
    plan: Plan, make_task: Callable[[RunDirectory], Task], sink: Sink, resources: Resources
) -> RunReport:
    """Run a plan whose result is wanted now, and that nobody resumes.

    Units leave files as in a project, in the system's folder for temporary files (``TMPDIR``), but
    nothing waits for the disk.
    """
    with tempfile.TemporaryDirectory(prefix="scportrait-like-") as folder:
        run = RunDirectory(Path(folder) / "run", durable=False)
        run.start({})
        plan.save(run.plan_path, durable=False)
        return run_units(run, run.plan(), make_task(run), sink, resources)
