"""Mapping with a bounded number of calls in flight."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from scportrait_like.run.bounded import bounded_map


class Watched:
    """Work that counts what is under way, and what was started."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.started: list[int] = []
        self.running = 0
        self._lock = threading.Lock()

    def __call__(self, item: int) -> int:
        with self._lock:
            self.started.append(item)
            self.running += 1
        time.sleep(0.01 * (3 - item % 3))
        with self._lock:
            self.running -= 1
        if item == self.fail_at:
            raise ValueError(f"item {item}")
        return item * item


def test_results_come_in_order_and_few_are_ahead() -> None:
    work, ahead = Watched(), 0
    with ThreadPoolExecutor(4) as pool:
        results = []
        for result in bounded_map(pool, work, range(30), 3):
            results.append(result)
            ahead = max(ahead, len(work.started) - len(results))
    assert results == [item * item for item in range(30)]
    assert ahead <= 3


def test_after_an_error_nothing_runs_any_more() -> None:
    work = Watched(fail_at=5)
    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(ValueError, match="item 5"):
            list(bounded_map(pool, work, range(30), 6))
        assert work.running == 0
        started = len(work.started)
        time.sleep(0.1)
        assert len(work.started) == started < 15


def test_a_consumer_that_stops() -> None:
    work = Watched()
    with ThreadPoolExecutor(2) as pool:
        for result in (results := bounded_map(pool, work, range(30), 4)):
            if result == 4:
                break
        results.close()  # type: ignore[attr-defined]
        assert work.running == 0
        assert len(work.started) < 10


def test_items_are_taken_one_by_one() -> None:
    taken: list[int] = []

    def items() -> object:
        for item in range(1000):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(2) as pool:
        results = bounded_map(pool, abs, items(), 3)  # type: ignore[arg-type]
        next(results)
        assert len(taken) <= 5
        results.close()  # type: ignore[attr-defined]
