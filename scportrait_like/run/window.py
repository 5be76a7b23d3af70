"""How many units may be in flight: calibrated against RAM.

Before the first unit the plan's projection decides; after the first wave, what was measured does.
A unit is in flight from its submission until its result is durable.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from scportrait_like.run.memory import MARGIN, MB, SCARCE, WORKER_BYTES

logger = logging.getLogger(__name__)

_SMALLEST_BATCH: Final = 16
# What was learnt is learnt anew when so much more is measured.
_NOTABLE: Final = 1.05


@dataclass
class Window:
    """Units that may run at once, and the batch size, such that the budget is kept.

    Attributes
    ----------
    budget, baseline
        Bytes granted, and bytes taken before the first unit.
    workers
        Workers wanted.
    batch_size
        Cells worked on at once inside a unit.
    unit_bytes, row_bytes
        Projected memory of a unit in flight, and of one cell of its batch.
    separate
        Each worker is a process and brings its own imports.
    at_most
        The user's own limit on units in flight, or None.
    calibrated
        Whether the first wave was measured.
    """

    budget: int
    baseline: int
    workers: int
    batch_size: int
    unit_bytes: int
    row_bytes: int
    separate: bool
    at_most: int | None = None

    def __post_init__(self) -> None:
        self.size = min(self.workers, self.at_most or self.workers)
        self.calibrated = False
        self._factor = 1.0
        self._fit("projected")

    @property
    def per_unit(self) -> int:
        """Bytes of one unit in flight, by the best knowledge so far."""
        work = self.unit_bytes + self.row_bytes * self.batch_size
        return max(1, int(work * self._factor) + (WORKER_BYTES if self.separate else 0))

    @property
    def room(self) -> int:
        """Bytes for units in flight."""
        return int(self.budget * (1 - MARGIN)) - self.baseline

    @property
    def fits(self) -> bool:
        """Whether there is room for one unit at least."""
        return self.per_unit <= self.room

    @property
    def tight(self) -> bool:
        """Whether freed memory must go back to the system at once for the budget to be kept."""
        return self.budget < SCARCE or 2 * self.per_unit * self.size > self.room

    def _fit(self, how: str) -> None:
        """Halve the batches, then drop workers, until the room suffices; say so."""
        wanted, batch = self.size, self.batch_size
        while (
            self.row_bytes
            and self.per_unit * self.size > self.room
            and self.batch_size > _SMALLEST_BATCH
        ):
            self.batch_size = max(self.batch_size // 2, _SMALLEST_BATCH)
        self.size = max(1, min(self.size, self.room // self.per_unit))
        # With fewer workers there may be room for larger batches again.
        if self.size < wanted and self.fits:
            spare = self.room // self.size - self.per_unit
            rows = int(spare / (self.row_bytes * self._factor)) if self.row_bytes else batch
            self.batch_size = min(batch, self.batch_size + rows)
        figures = (
            f"{how} {self.per_unit // MB} MB a unit in flight; budget {self.budget // MB} MB, "
            f"{self.baseline // MB} MB taken before the first"
        )
        if self.batch_size < batch:
            logger.warning("batches of %d cells instead of %d: %s", self.batch_size, batch, figures)
        if self.size < wanted:
            logger.warning("%d workers instead of %d: %s", self.size, wanted, figures)
        if not self.fits:
            logger.warning(
                "the memory budget may not hold a single unit: %s. Grant more memory_limit, or "
                "load the image in smaller chunks",
                figures,
            )

    def calibrate(self, peak: int) -> bool:
        """Learn from a wave: `peak` is the most the process tree took in it.

        Called again as the run goes on: workers may start late, and later units may be larger.

        Returns
        -------
        bool
            Whether the window or the batches became smaller.
        """
        before = self.size, self.batch_size
        measured = (peak - self.baseline) / self.size
        work = measured - (WORKER_BYTES if self.separate else 0)
        projected = self.per_unit
        factor = work / max(1, self.unit_bytes + self.row_bytes * self.batch_size)
        if self.calibrated and factor <= self._factor * _NOTABLE:
            return False
        self.calibrated = True
        # A first wave may be of small units: what was projected stands unless more was measured.
        self._factor = max(self._factor, factor)
        self._fit("measured")
        logger.info(
            "calibration: baseline %d MB, %d MB measured a unit in flight (%d projected), "
            "budget %d MB; window %d units, batches of %d cells",
            self.baseline // MB,
            measured // MB,
            projected // MB,
            self.budget // MB,
            self.size,
            self.batch_size,
        )
        return before != (self.size, self.batch_size)

    def admits(self, flying: int, now: int) -> bool:
        """Whether one more unit may start, with so many in flight and so many bytes taken now.

        One always may when none is in flight: a run goes on, however tight the budget.
        """
        if flying == 0:
            return True
        # The last look at what is really taken, for units that are larger than the first ones.
        reserve = 0 if self.separate else int(self.per_unit * 0.5)
        return flying < self.size and now + reserve <= self.budget
