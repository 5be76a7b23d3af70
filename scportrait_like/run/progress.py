"""Progress: a bar on a terminal, nothing elsewhere (the log has plain lines)."""

from __future__ import annotations

import sys
from types import TracebackType


class Progress:
    """Counts finished units.

    Parameters
    ----------
    total, done
        Units in all, and units that lay finished.
    """

    def __init__(self, total: int, done: int) -> None:
        from tqdm import tqdm

        quiet = not sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, unit="unit", leave=False, disable=quiet)

    def step(self) -> None:
        """One unit more is finished."""
        self._bar.update()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
