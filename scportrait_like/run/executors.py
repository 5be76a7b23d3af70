"""Where work runs: a registry of standard executors.

Each entry opens a `concurrent.futures.Executor`. Processes come from loky, which spawns: zarr and
numba run threads of their own, and a forked worker may hang.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from scportrait_like.errors import ConfigError
from scportrait_like.run.memory import tune_allocator

logger = logging.getLogger(__name__)


class InlineExecutor(Executor):
    """Runs each call at once, in the calling thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the call and return its finished future; Ctrl-C goes through."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is raised again by Future.result
            future.set_exception(error)
        return future


def _no_close() -> None:
    """Close nothing: the executor was handed in, or holds nothing."""


@dataclass(frozen=True)
class Lane:
    """An open executor, and what the runner must know of it.

    Attributes
    ----------
    executor
        Takes the work.
    workers
        Calls that it runs at once.
    name
        For the log.
    separate
        Workers are processes of their own, each with imports and kernels to load.
    close, kill
        Let the workers end, or end them now.
    """

    executor: Executor
    workers: int
    name: str
    separate: bool = False
    close: Callable[[], None] = _no_close
    kill: Callable[[], None] = _no_close


def _inline(_workers: int, _tight: bool) -> Lane:
    return Lane(InlineExecutor(), 1, "inline")


def _threads(workers: int, _tight: bool) -> Lane:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="unit")

    def end() -> None:
        pool.shutdown(wait=True, cancel_futures=True)

    return Lane(pool, workers, "threads", close=end, kill=end)


def _processes(workers: int, tight: bool) -> Lane:
    from loky.process_executor import ProcessPoolExecutor

    pool = ProcessPoolExecutor(
        max_workers=workers,
        initializer=start_worker,
        initargs=(os.getpid(), tight),
        # A worker whose unit is large is not leaking: loky would restart it above 300 MB of growth.
        env={"LOKY_MAX_MEMORY_LEAK_SIZE": str(1 << 40), "OMP_NUM_THREADS": "1"},
    )

    def end() -> None:
        # Results are on the disk by then; waiting for idle workers to leave takes a second.
        pool.shutdown(wait=True, kill_workers=True)

    return Lane(pool, workers, "processes", separate=True, close=end, kill=end)


def _dask(workers: int, _tight: bool) -> Lane:
    """Use the active client, or a local cluster of processes for the time of the run."""
    import distributed

    # Untyped for now: its classes carry no annotations.
    make_cluster: Any = distributed.LocalCluster
    make_client: Any = distributed.Client

    client = _active_client()
    if client is not None:
        return dask_lane(client)
    cluster = make_cluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
    )
    own = make_client(cluster)

    def end() -> None:
        own.close()
        cluster.close()

    lane = dask_lane(own)
    return Lane(lane.executor, lane.workers, "dask", separate=True, close=end, kill=end)


def dask_lane(client: Any) -> Lane:
    """Lane over a `distributed.Client`: equal calls are run each, and none is tried twice."""
    executor = client.get_executor(pure=False, retries=0)
    return Lane(executor, _client_threads(client), "dask", separate=True)


def _client_threads(client: Any) -> int:
    return max(1, int(sum(client.nthreads().values())))


def _active_client() -> Any:
    """Return the current `distributed.Client`, or None; distributed is not imported for that."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None


@dataclass(frozen=True)
class ExecutorKind:
    """An entry of the registry: how to open it, and whether its workers are processes."""

    open: Callable[[int, bool], Lane]
    separate: bool


EXECUTORS: Final[dict[str, ExecutorKind]] = {
    "inline": ExecutorKind(_inline, separate=False),
    "threads": ExecutorKind(_threads, separate=False),
    "processes": ExecutorKind(_processes, separate=True),
    "dask": ExecutorKind(_dask, separate=True),
}

# Below so many seconds of work on one core, starting processes costs more than it brings.
PROCESSES_FROM: Final = 30.0


def check_executor_name(name: str | None, where: str) -> None:
    """Raise `ConfigError` unless the name is None or registered."""
    if name is not None and name not in EXECUTORS:
        raise ConfigError(
            f"{where}: key executor: {name!r} is not allowed: known are {', '.join(EXECUTORS)}"
        )


def choose_executor(
    executor: Executor | str | None, workers: int, seconds: float, prefers: str = "threads"
) -> Executor | str:
    """Choose the executor of a run: what was given, else a dask client, else by estimate.

    Parameters
    ----------
    executor
        One handed in, the name of one, or None.
    workers
        Workers that may be started.
    seconds
        Estimate of the work on one core.
    prefers
        What long work is given to when nobody chose.
    """
    if executor is not None:
        return executor
    if _active_client() is not None:
        return "dask"
    return prefers if workers > 1 and seconds >= PROCESSES_FROM else "threads"


def is_separate(executor: Executor | str) -> bool:
    """Whether the workers are processes of their own."""
    if isinstance(executor, str):
        return EXECUTORS[executor].separate
    return not isinstance(executor, (ThreadPoolExecutor, InlineExecutor))


def kept_here(executor: Executor | str | None, why: str) -> Executor | str:
    """Executor for work that must stay in this process: threads, where the chosen one leaves it."""
    if executor is None:
        return "threads"
    if not is_separate(executor):
        return executor
    name = executor if isinstance(executor, str) else type(executor).__name__
    logger.warning("threads instead of %s: %s", name, why)
    return "threads"


def workers_of(executor: Executor | str, wanted: int) -> int:
    """Calls that a chosen executor will run at once.

    An executor or a cluster that was handed in keeps its own number; else what is wanted.
    """
    if executor == "inline":
        return 1
    if executor == "dask":
        client = _active_client()
        return wanted if client is None else _client_threads(client)
    if isinstance(executor, str):
        return wanted
    if isinstance(executor, InlineExecutor):
        return 1
    client = getattr(executor, "_client", None)  # of Client.get_executor()
    if client is not None and hasattr(client, "nthreads"):
        return _client_threads(client)
    own = getattr(executor, "_max_workers", None)
    return own if isinstance(own, int) else wanted


def open_lane(executor: Executor | str, workers: int, tight: bool = False) -> Lane:
    """Open a chosen executor.

    Parameters
    ----------
    executor
        From `choose_executor`.
    workers
        Workers to start; an executor that was handed in keeps its own number.
    tight
        Memory is scarce: workers give freed blocks back at once.
    """
    if isinstance(executor, str):
        return EXECUTORS[executor].open(workers, tight)
    count = workers_of(executor, workers)
    return Lane(executor, count, type(executor).__name__, separate=is_separate(executor))


def start_worker(parent: int, tight: bool) -> None:
    """Prepare a worker process: how it frees memory, and that it ends when its parent is gone.

    A loky worker whose parent was killed would live on and finish the queued units, beside the
    resumed run. Called again it does nothing.
    """
    global _watched_parent
    tune_allocator(tight)
    if _watched_parent != parent:
        _watched_parent = parent
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


_watched_parent = 0


def _watch_parent(parent: int) -> None:
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(0.3)
    os._exit(1)
