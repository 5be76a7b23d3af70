"""The placer: hands finished units to the sink while the work goes on."""

from __future__ import annotations

import logging
import threading

from scportrait_like.run.durable import disk_errors
from scportrait_like.run.plan import Sink, Unit
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.unitfile import UnitReader

logger = logging.getLogger(__name__)


class Placer:
    """Hands finished units to the sink, in the plan's order, in a thread of its own."""

    def __init__(
        self,
        run: RunDirectory,
        units: list[Unit],
        sink: Sink,
        finished: set[str],
        flush_every: int | None,
    ) -> None:
        self._run, self._units, self._sink = run, units, sink
        self._done = set(finished)
        self._flush_every = flush_every
        self._turn = threading.Condition()
        self._aborted = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._place, name="placer")
        self._thread.start()

    def finished(self, unit: Unit) -> None:
        """Say that a unit is durable."""
        with self._turn:
            self._done.add(unit.name)
            self._turn.notify()

    def check(self) -> None:
        """Raise what the sink raised."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until the sink has taken every unit and is complete."""
        self._thread.join()
        self.check()

    def abort(self) -> None:
        """Stop after the unit at hand."""
        with self._turn:
            self._aborted = True
            self._turn.notify()
        self._thread.join()

    def _place(self) -> None:
        try:
            with disk_errors(self._run.output_path):
                for count, unit in enumerate(self._units, 1):
                    if not self._await(unit.name):
                        return
                    self._sink.add(unit, UnitReader(self._run.unit_file(unit.name)))
                    if self._flush_every and count % self._flush_every == 0:
                        self._sink.flush()
                        logger.info("%d of %d units in the output", count, len(self._units))
                self._sink.close()
        except BaseException as error:  # noqa: BLE001 - raised again in the parent's thread
            self._error = error

    def _await(self, unit: str) -> bool:
        with self._turn:
            self._turn.wait_for(lambda: self._aborted or unit in self._done)
            return not self._aborted
