"""Loaded models of this process, and the one thread that calls those on a GPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from scportrait_like.models._adapters import Adapter, Model
from scportrait_like.models._functions import FunctionModel

T = TypeVar("T")

# Models that a process keeps.
_KEPT: Final = 4
# Batches that wait for the GPU while it works on one.
_WAITING: Final = 2

_models: dict[str, Model] = {}
_loading = threading.Lock()


def load_once(adapter: Adapter) -> Model:
    """Return the model of an adapter, loaded at the first call of the process.

    Tasks are unpickled for each unit, so it is kept by the adapter's identity.
    """
    if isinstance(adapter, FunctionModel):  # nothing to load, and two lambdas look alike
        return adapter.load()
    with _loading:
        key = adapter.identity
        if key not in _models:
            while len(_models) >= _KEPT:
                del _models[next(iter(_models))]  # the oldest
            _models[key] = adapter.load()
        return _models[key]


class OneThread:
    """Does the calls of several threads in one of its own, in order of arrival.

    Parameters
    ----------
    waiting
        Calls that may wait; more callers are held back until there is room.
    """

    def __init__(self, waiting: int = _WAITING) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._room = threading.BoundedSemaphore(1 + waiting)

    def call(self, work: Callable[[], T]) -> T:
        """Do some work there, and wait for its result."""
        with self._room:
            return self._pool.submit(work).result()


# It starts its thread at the first call.
gpu_thread = OneThread()


def _after_fork() -> None:
    # Threads are not there in a forked child, and a lock may be held there for ever.
    global gpu_thread, _loading
    gpu_thread, _loading = OneThread(), threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
