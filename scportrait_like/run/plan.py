"""A plan: the units of a run, and the arrays that they look things up in.

It is stored in the run directory before any work, and a resumed run reads it back. So units never
change under finished work, whatever the memory, the workers or the batch size of the resume.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.run.durable import sync_file, write_json
from scportrait_like.run.unitfile import UnitReader, UnitWriter


@dataclass(frozen=True)
class Unit:
    """One piece of work whose result becomes durable as a whole.

    Attributes
    ----------
    name
        Unique in its run, usable as a file name.
    stage
        Units of a stage start when all of the stage before are durable.
    what
        What the work function needs to find its region: plain JSON, small.
    """

    name: str
    stage: int = 0
    what: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Units and what they share.

    Attributes
    ----------
    units
        In the order in which the sink takes them.
    arrays
        Shared look-up arrays; workers read them through memory maps.
    facts
        Plain JSON for the work and the sink.
    unit_bytes
        Projected memory of the largest unit, without its batch.
    row_bytes
        Projected memory of one cell of a batch.
    seconds
        Rough estimate of the work on one core, to choose between threads and processes.
    """

    units: list[Unit]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    unit_bytes: int = 64 << 20
    row_bytes: int = 0
    seconds: float = 0.0

    def save(self, directory: Path, *, durable: bool = True) -> None:
        """Store the plan; ``plan.json`` comes last and so marks it whole."""
        directory.mkdir(exist_ok=True)
        for name, array in self.arrays.items():
            np.save(directory / f"{name}.npy", array)
            if durable:
                sync_file(directory / f"{name}.npy")
        content = {
            "units": [[unit.name, unit.stage, dict(unit.what)] for unit in self.units],
            "arrays": list(self.arrays),
            "facts": self.facts,
            "unit_bytes": self.unit_bytes,
            "row_bytes": self.row_bytes,
            "seconds": self.seconds,
        }
        write_json(directory / names.PLAN_FILE, content, durable=durable)

    @classmethod
    def load(cls, directory: Path) -> Plan:
        """Read a stored plan; the arrays are memory maps."""
        content = json.loads((directory / names.PLAN_FILE).read_text())
        return cls(
            [Unit(name, stage, what) for name, stage, what in content["units"]],
            load_arrays(directory, content["arrays"]),
            content["facts"],
            content["unit_bytes"],
            content["row_bytes"],
            content["seconds"],
        )


def load_arrays(directory: Path, arrays: list[str]) -> dict[str, NDArray[Any]]:
    """Memory maps of a stored plan's arrays (an empty array cannot be mapped and is read)."""
    found = {}
    # numpy parses a header with `ast`, which two threads of Python 3.11 must not do at once.
    with _parsing:
        for name in arrays:
            path = directory / f"{name}.npy"
            try:
                found[name] = np.load(path, mmap_mode="r")
            except ValueError:
                found[name] = np.load(path)
    return found


_parsing = threading.Lock()


class Task(Protocol):
    """The work: a top-level function or a frozen dataclass with ``__call__``, so that it pickles.

    It reads what it needs by itself, streams its result into the writer, and works through a unit
    in batches of at most `batch_size` rows, with ``check()`` between them: it raises when the run
    was interrupted.
    """

    def __call__(
        self, unit: Unit, out: UnitWriter, batch_size: int, check: Callable[[], None]
    ) -> Mapping[str, float]:
        """Do one unit; return figures of it (seconds by part, bytes), which the run adds up."""


class Sink(Protocol):
    """Takes finished units in the plan's order and makes the output of them."""

    def add(self, unit: Unit, result: UnitReader) -> None:
        """Take one unit's result."""

    def flush(self) -> None:
        """Bring to the disk what was taken so far."""

    def close(self) -> None:
        """Complete the output, after the last unit."""

    def abort(self) -> None:
        """Let go of open files; the output is thrown away."""
