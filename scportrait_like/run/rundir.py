"""The run directory: what a run has finished, on disk.

::

    .data.run/
        run.json      the fingerprint: everything that can change the result
        plan/         the units and their look-up arrays
        units/        one file a finished unit
        batches/      finished batches of units that are not, where these take long
        journal.txt   a line for each start of a unit: its name and the worker's pid
        refused       where a unit found settings or an input that do not work
        running-*     while a run goes on; workers stop when theirs is gone
        output/       the output while it is being made

Done is what lies there. A unit is finished when its file has its name.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from scportrait_like import names
from scportrait_like.errors import IncompleteOutputError, StaleRunError
from scportrait_like.run.durable import write_json
from scportrait_like.run.plan import Plan

Fingerprint = dict[str, Any]

_PLAN: Final = "plan"
_CACHE_FILE: Final = "units_path.json"
_RUNNING: Final = "running-"


class RunDirectory:
    """One run's directory.

    Parameters
    ----------
    path
        Its place; it need not exist.
    durable
        False: it lasts no longer than this call, so nothing waits for the disk.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.durable = durable
        self.plan_path = path / _PLAN
        self.batches_path = path / names.BATCHES_DIR
        self.output_path = path / names.OUTPUT_DIR

    @property
    def units_path(self) -> Path:
        """Folder of the finished units: here, or where the run was told to keep them.

        It is removed with the run, so a file that was cut short, or came here with a copy of the
        folder and names another run's units, is not believed.
        """
        try:
            kept = json.loads((self.path / _CACHE_FILE).read_text())
        except (FileNotFoundError, ValueError):
            return self.path / names.UNITS_DIR
        if kept["run"] != str(self.path.resolve()):
            return self.path / names.UNITS_DIR
        return Path(kept["units"])

    def exists(self) -> bool:
        """Whether a run was started and not completed."""
        return (self.path / names.RUN_FILE).is_file()

    def fingerprint(self) -> Fingerprint | None:
        """Return the stored fingerprint, or None."""
        return read_fingerprint(self.path)

    def start(self, fingerprint: Fingerprint, cache: Path | None = None) -> None:
        """Make the directory for a new run; what lies there is thrown away.

        Parameters
        ----------
        fingerprint
            Everything that can change the result.
        cache
            Folder of its own for the finished units, perhaps on another disk.
        """
        self.remove()
        self.path.mkdir(parents=True)
        if cache is not None:
            kept = {"units": str(cache.resolve()), "run": str(self.path.resolve())}
            write_json(self.path / _CACHE_FILE, kept)
            shutil.rmtree(cache, ignore_errors=True)
        self.units_path.mkdir(parents=True)
        write_json(self.path / names.RUN_FILE, fingerprint, durable=self.durable)

    def has_plan(self) -> bool:
        """Whether the plan was stored whole."""
        return (self.plan_path / names.PLAN_FILE).is_file()

    def plan(self) -> Plan:
        """Return the stored plan."""
        return Plan.load(self.plan_path)

    def unit_file(self, unit: str) -> Path:
        """Where a unit's result lies once it is finished."""
        return self.units_path / unit

    def finished(self) -> set[str]:
        """Names of the finished units."""
        if not self.units_path.is_dir():
            return set()
        return {entry.name for entry in os.scandir(self.units_path) if entry.name[0] != "."}

    def note_start(self, unit: str) -> None:
        """Write into the journal that this process starts a unit (one atomic append)."""
        descriptor = os.open(self.path / names.JOURNAL_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, f"{unit} {os.getpid()}\n".encode())
        finally:
            os.close(descriptor)

    def started(self) -> list[tuple[str, int]]:
        """Each start of a unit in this run, resumes included: its name and the worker's pid."""
        try:
            lines = (self.path / names.JOURNAL_FILE).read_text().splitlines()
        except FileNotFoundError:
            return []
        # A full disk may have cut a line short.
        words = [line.split() for line in lines]
        return [(line[0], int(line[1])) for line in words if len(line) == 2 and line[1].isdigit()]

    def begin(self) -> Path:
        """Make the mark of a run that goes on; those of killed runs go, and so do their workers.

        A worker that outlived its run (on a cluster, say) looks for its own mark and stops. Ending
        a run takes the mark away, for which even a full disk has room.
        """
        for old in self.path.glob(f"{_RUNNING}*"):
            old.unlink()
        mark = self.path / f"{_RUNNING}{uuid.uuid4().hex}"
        mark.touch()
        return mark

    def note_refused(self) -> None:
        """Note that a unit has found what is wrong with the settings or the input."""
        (self.path / names.REFUSED_FILE).touch()

    def refused(self) -> bool:
        """Whether a unit has: such a run ends nowhere, so nobody loses it."""
        return (self.path / names.REFUSED_FILE).exists()

    def progress(self) -> tuple[int, int]:
        """Finished units and units in all; (0, 0) before the plan is stored."""
        if not self.has_plan():
            return 0, 0
        units = json.loads((self.plan_path / names.PLAN_FILE).read_text())["units"]
        return len(self.finished()), len(units)

    def clean(self) -> None:
        """Remove what a killed run left half-written."""
        self.units_path.mkdir(parents=True, exist_ok=True)
        for entry in self.units_path.glob(".*"):
            entry.unlink()
        shutil.rmtree(self.output_path, ignore_errors=True)

    def remove(self) -> None:
        """Remove the run; its fingerprint goes first, so that what is left is never resumed."""
        (self.path / names.RUN_FILE).unlink(missing_ok=True)
        if self.path.exists():
            # The system frees the blocks of a large file while it is unlinked: several at a time.
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(Path.unlink, map(self.unit_file, self.finished())))
            shutil.rmtree(self.units_path, ignore_errors=True)
            shutil.rmtree(self.path)


def read_fingerprint(folder: Path) -> Fingerprint | None:
    """Fingerprint of a folder of output or of a run, or None where there is none."""
    path = folder / names.RUN_FILE
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise IncompleteOutputError(
            f"{path} is damaged: {error}; delete it and run again"
        ) from None
    if not isinstance(content, dict):
        raise IncompleteOutputError(f"{path} is damaged: it holds no mapping")
    return content


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two fingerprints, one line a key."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += changes(before, after, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return found


def refuse_stale(what: str, differences: list[str], call: str) -> StaleRunError:
    """Make the error for a run or an output that was made from something else."""
    listed = "\n".join(f"  {line}" for line in differences)
    return StaleRunError(
        f"{what} was made with other settings or inputs:\n{listed}\n"
        f"To throw it away and start anew: {call}. To keep it, restore what changed.",
        changes=tuple(differences),
    )
