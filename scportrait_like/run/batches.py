"""Results of a unit's batches, kept before the unit is finished: slow work is resumed inside it.

A unit's own file appears when all of it is done. Meanwhile batches that took some time leave files
beside, one after the other, each complete or not there. They go with the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.run.durable import committed
from scportrait_like.run.unitfile import UnitReader, UnitWriter

# Results are written after so many seconds of work: what a kill may cost, and few enough writes.
SECONDS: Final = 2.0
_STOPS: Final = "stops"

Found = Mapping[str, NDArray[Any]]


class Batches:
    """The batches of one unit, from its first row on.

    Parameters
    ----------
    folder
        Where they are kept; None: a run that nobody resumes.
    unit
        Name of the unit.
    """

    def __init__(self, folder: Path | None, unit: str) -> None:
        self._folder, self._unit = folder, unit
        self._waiting: list[tuple[int, int, Found]] = []
        self._since = time.perf_counter()

    def kept(self) -> Iterator[tuple[int, Found]]:
        """Yield what was kept before, from the first row on: the row after it, arrays by name."""
        row = 0
        while self._folder is not None and self._path(self._folder, row).exists():
            held = UnitReader(self._path(self._folder, row))
            for number, stop in enumerate(np.array(held[_STOPS]).tolist()):
                prefix = f"{number}."
                names = [name for name in held if name.startswith(prefix)]
                yield stop, {name.removeprefix(prefix): np.array(held[name]) for name in names}
                row = stop

    def keep(self, start: int, stop: int, found: Found) -> None:
        """Keep a batch's results, now or with the next ones."""
        if self._folder is None:
            return
        self._waiting.append((start, stop, found))
        if time.perf_counter() - self._since >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._folder is None or not self._waiting:
            return
        self._folder.mkdir(exist_ok=True)
        with committed(self._path(self._folder, self._waiting[0][0])) as file:
            writer = UnitWriter(file)
            writer.put(_STOPS, np.array([stop for _, stop, _ in self._waiting]))
            for number, (_, _, found) in enumerate(self._waiting):
                for name, array in found.items():
                    writer.put(f"{number}.{name}", array)
            writer.close()
        self._waiting.clear()
        self._since = time.perf_counter()

    def _path(self, folder: Path, row: int) -> Path:
        return folder / f"{self._unit}.{row:08d}"


def in_batches(
    n: int, batch: int, batches: Batches, make: Callable[[slice], Found]
) -> Iterator[tuple[int, Found]]:
    """Make results of n rows, batch by batch, from where an earlier attempt stopped.

    Yields the number of each batch and its results, kept ones first. If `make` raises, what was
    made before is kept.
    """
    number = row = 0
    for stop, found in batches.kept():
        yield number, found
        number, row = number + 1, stop
    try:
        for start in range(row, n, batch):
            stop = min(start + batch, n)
            found = make(slice(start, stop))
            batches.keep(start, stop, found)
            yield number, found
            number += 1
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            batches.flush()
        raise
