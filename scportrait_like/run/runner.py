"""The runner: takes a plan's units through an executor to a sink, within the memory budget.

A step plans, the runner runs, the sink writes. Workers make each result durable themselves, so
nothing large travels between processes; a thread of the parent hands finished units to the sink in
the plan's order while the work goes on.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

from scportrait_like.errors import InputError, RunError, ScportraitLikeError, WorkerDiedError
from scportrait_like.run.durable import committed, disk_errors
from scportrait_like.run.executors import (
    Lane,
    choose_executor,
    is_separate,
    open_lane,
    start_worker,
    workers_of,
)
from scportrait_like.run.memory import MB, MemoryWatch, release_freed, tune_allocator
from scportrait_like.run.placer import Placer
from scportrait_like.run.plan import Plan, Sink, Task, Unit
from scportrait_like.run.progress import Progress
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.unitfile import UnitWriter
from scportrait_like.run.window import Window

logger = logging.getLogger(__name__)

_THREADS: Final = "threads"
_PROCESSES: Final = "processes"
# distributed's own name for "this task killed its workers"; importing it costs a second.
_KILLED_WORKER: Final = "KilledWorker"


@dataclass(frozen=True)
class Resources:
    """What a run may use. Nothing here changes a result.

    Attributes
    ----------
    executor
        An executor, the name of one, or None.
    prefers
        The name that long work is given to when `executor` is None.
    workers
        Workers to start.
    budget
        Bytes for the whole process tree.
    batch_size
        Most cells worked on at once inside a unit.
    at_most
        Most units in flight, or None.
    flush_every
        Finished units between two flushes of the output, or None.
    """

    executor: Executor | str | None
    prefers: str
    workers: int
    budget: int
    batch_size: int
    at_most: int | None = None
    flush_every: int | None = None


@dataclass
class RunReport:
    """What a run did.

    Attributes
    ----------
    computed, resumed
        Units worked on now, and units that lay finished.
    seconds
        Wall time.
    peak
        Most bytes (sum of PSS) that the process tree took.
    window, batch_size, workers, executor
        As they were at the end.
    parts
        Sums of what the units report of themselves: seconds by part, bytes, chunks decoded.
    """

    computed: int = 0
    resumed: int = 0
    seconds: float = 0.0
    peak: int = 0
    window: int = 0
    batch_size: int = 0
    workers: int = 0
    executor: str = ""
    parts: dict[str, float] = field(default_factory=dict)


def run_units(
    run: RunDirectory, plan: Plan, task: Task, sink: Sink, resources: Resources, what: str = ""
) -> RunReport:
    """Run all units that are not finished, and hand every unit to the sink.

    Parameters
    ----------
    run, plan, task, sink, resources
        What is done, and with what.
    what
        Name of the step, for the log; empty: a run without a project.

    Raises
    ------
    WorkerDiedError
        A worker process was killed; its units are named, finished ones stay.
    RunError
        A unit failed; the message names it.
    DiskFullError
        No space left; finished units stay.
    """
    began = time.perf_counter()
    said = f"{what}: " if what else ""
    if what:
        finished = len(run.finished())
        logger.info("%s: %d units, %d of them finished before", what, len(plan.units), finished)
    release_freed()
    choice = choose_executor(resources.executor, resources.workers, plan.seconds, resources.prefers)
    with MemoryWatch() as watch:
        window = _window(choice, plan, resources, watch.now)
        if choice == _PROCESSES and not window.fits:
            logger.warning(
                "%sworking in threads instead of processes, which take memory themselves", said
            )
            choice = _THREADS
            window = _window(choice, plan, resources, watch.now)
        tune_allocator(window.tight)
        try:
            lane = open_lane(choice, window.size, window.tight)
        except BaseException:
            sink.abort()
            raise
        report = RunReport(workers=min(window.size, lane.workers), executor=lane.name)
        _Run(run, plan, task, sink, lane, window, watch, report, resources.flush_every).go()
    report.seconds = time.perf_counter() - began
    report.peak, report.window, report.batch_size = watch.peak, window.size, window.batch_size
    logger.info(
        "%s%d units done (%d lay finished) in %.1f s by %d %s; window %d, batches of %d; "
        "peak %d MB of %d MB granted",
        said,
        report.computed + report.resumed,
        report.resumed,
        report.seconds,
        report.workers,
        report.executor,
        report.window,
        report.batch_size,
        report.peak // MB,
        resources.budget // MB,
    )
    if report.peak > resources.budget:
        logger.warning("%smore memory was taken than granted: see the figures above", said)
    return report


def _window(choice: Executor | str, plan: Plan, resources: Resources, baseline: int) -> Window:
    return Window(
        resources.budget,
        baseline,
        workers_of(choice, resources.workers),
        resources.batch_size,
        plan.unit_bytes,
        plan.row_bytes,
        is_separate(choice),
        resources.at_most,
    )


@dataclass(frozen=True)
class Orders:
    """What every unit of a run is told; small, and it pickles.

    Attributes
    ----------
    run_path
        Folder of the run.
    durable
        Whether its files outlive a power cut.
    mark
        The file whose absence means: stop.
    batch_size
        Cells worked on at once.
    parent
        Pid of the run.
    tight
        Memory is scarce.
    """

    run_path: Path
    durable: bool
    mark: Path
    batch_size: int
    parent: int
    tight: bool


@dataclass
class _Run:
    """The state of one run, in the parent."""

    run: RunDirectory
    plan: Plan
    task: Task
    sink: Sink
    lane: Lane
    window: Window
    watch: MemoryWatch
    report: RunReport
    flush_every: int | None
    flying: dict[Future[Mapping[str, float]], Unit] = field(default_factory=dict)

    def go(self) -> None:
        finished = self.run.finished()
        self.report.resumed = sum(unit.name in finished for unit in self.plan.units)
        try:
            mark = self.run.begin()
        except BaseException:
            self.lane.kill()
            self._abort_sink()
            raise
        placer = Placer(self.run, self.plan.units, self.sink, finished, self.flush_every)
        try:
            with Progress(len(self.plan.units), self.report.resumed) as progress:
                for _, stage in groupby(self.plan.units, key=lambda unit: unit.stage):
                    pending = [unit for unit in stage if unit.name not in finished]
                    self._run_stage(pending, mark, placer, progress)
            placer.finish()
        except BaseException as error:
            self._stop(mark)
            placer.abort()
            self._abort_sink()
            if _is_worker_death(error):
                raise self._worker_death() from error
            raise
        self.lane.close()

    def _run_stage(
        self, units: Iterable[Unit], mark: Path, placer: Placer, progress: Progress
    ) -> None:
        queue = deque(units)
        while queue or self.flying:
            self._shrink()
            while queue and not self._too_many and self._admits():
                unit = queue.popleft()
                self.flying[self._submit(unit, mark)] = unit
            done, _ = wait(self.flying, timeout=0.2, return_when=FIRST_COMPLETED)
            placer.check()
            for future in done:
                unit = self.flying[future]
                self._take(unit, future)
                del self.flying[future]
                placer.finished(unit)
                progress.step()

    def _admits(self) -> bool:
        return self.window.admits(len(self.flying), self.watch.now)

    @property
    def _too_many(self) -> bool:
        """Whether more worker processes were started than the calibrated window keeps busy."""
        return self.lane.name == _PROCESSES and self.lane.workers > self.window.size

    def _shrink(self) -> None:
        """Start fewer worker processes once none is busy: an idle one holds memory too."""
        if self._too_many and not self.flying:
            self.lane.close()
            self.lane = open_lane(_PROCESSES, self.window.size, self.window.tight)
            self.report.workers = self.lane.workers

    def _submit(self, unit: Unit, mark: Path) -> Future[Mapping[str, float]]:
        batch, tight = self.window.batch_size, self.window.tight
        orders = Orders(self.run.path, self.run.durable, mark, batch, os.getpid(), tight)
        return self.lane.executor.submit(execute, self.task, unit, orders)

    def _take(self, unit: Unit, future: Future[Mapping[str, float]]) -> None:
        try:
            parts = future.result()
        except ScportraitLikeError as error:
            if isinstance(error, InputError):
                self.run.note_refused()
            raise
        except Exception as error:
            if _is_worker_death(error):
                raise
            raise RunError(
                f"unit {unit.name} failed: {type(error).__name__}: {error}{self._kept}"
            ) from error
        for part, amount in parts.items():
            self.report.parts[part] = self.report.parts.get(part, 0) + amount
        self.report.computed += 1
        if self.report.computed >= self.window.size:
            self._calibrate()

    @property
    def _kept(self) -> str:
        """What a user may count on after a failure."""
        return ". Finished units are kept; the next run goes on from there" * self.run.durable

    def _calibrate(self) -> None:
        if not self.window.calibrated:
            self.watch.measure()
        if self.window.calibrate(self.watch.recent):
            # What was measured until now belongs to the larger window.
            self.watch.recent = 0

    def _stop(self, mark: Path) -> None:
        """End what is under way: queued units are cancelled, running ones told to stop."""
        mark.unlink(missing_ok=True)
        for future in self.flying:
            future.cancel()
        self.lane.kill()
        wait(self.flying, timeout=10)

    def _abort_sink(self) -> None:
        try:
            self.sink.abort()
        except Exception:
            logger.debug("the unfinished output could not be closed", exc_info=True)

    def _worker_death(self) -> WorkerDiedError:
        flying = {unit.name for unit in self.flying.values()}
        open_units = {name: pid for name, pid in self.run.started() if name in flying}
        for name in self.run.finished():
            open_units.pop(name, None)
        listed = ", ".join(f"{name} (pid {pid})" for name, pid in sorted(open_units.items()))
        return WorkerDiedError(
            "a worker process died (killed, or out of memory) with these units started and not "
            f"finished: {listed or 'none'}{self._kept}. If memory was the reason, run with fewer "
            "threads or a smaller memory_limit",
            units=tuple(sorted(open_units)),
        )


def _is_worker_death(error: BaseException) -> bool:
    return isinstance(error, BrokenExecutor) or type(error).__name__ == _KILLED_WORKER


def execute(task: Task, unit: Unit, orders: Orders) -> Mapping[str, float]:
    """Do one unit where the worker is, and make its result durable."""

    def check() -> None:
        if not orders.mark.exists():
            raise RunError(f"unit {unit.name} was stopped, since the run was")

    if not orders.run_path.is_dir():
        raise RunError(
            f"{socket.gethostname()}, where a worker runs, has no folder {orders.run_path}: all "
            "workers must see it under the same path (a call without a project takes the folder "
            "for temporary files: set TMPDIR to one that is shared)"
        )
    check()
    if os.getppid() == orders.parent:
        start_worker(orders.parent, orders.tight)
    run = RunDirectory(orders.run_path)
    began = time.perf_counter()
    with disk_errors(orders.run_path):
        run.note_start(unit.name)
        with committed(run.unit_file(unit.name), durable=orders.durable) as file:
            writer = UnitWriter(file)
            parts = dict(task(unit, writer, orders.batch_size, check))
            writer.close()
            worked = time.perf_counter()
    parts["seconds.work"] = worked - began
    parts["seconds.commit"] = time.perf_counter() - worked
    return parts
