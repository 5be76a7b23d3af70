"""Progress: a bar on a terminal, now and then a line in the log elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Final

logger = logging.getLogger(__name__)

# Seconds between two lines of the log.
_PAUSE: Final = 30.0


class Progress:
    """Counts finished parts of a work.

    Parameters
    ----------
    total, done
        Parts in all, and parts that lay finished.
    part
        What one is called.
    """

    def __init__(self, total: int, done: int = 0, part: str = "unit") -> None:
        from tqdm import tqdm

        self._total, self._done, self._part = total, done, part
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, unit=part, leave=False)
        self._said = time.monotonic()

    def step(self) -> None:
        """One part more is finished."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        if time.monotonic() - self._said > _PAUSE:
            self._said = time.monotonic()
            logger.info("%d of %d %ss", self._done, self._total, self._part)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
