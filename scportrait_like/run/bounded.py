"""Mapping over an executor with a bounded number of calls in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def bounded_map(
    executor: Executor, work: Callable[[Item], Result], items: Iterable[Item], window: int
) -> Iterator[Result]:
    """Map like `Executor.map`, but submit no more than `window` calls ahead of the consumer.

    Results come in the order of the items. If one fails or the consumer stops, what was not
    started is cancelled, and what runs is waited for.
    """
    flying: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(flying) >= window:
                yield flying.popleft().result()
            flying.append(executor.submit(work, item))
        while flying:
            yield flying.popleft().result()
    finally:
        wait([future for future in flying if not future.cancel()])
