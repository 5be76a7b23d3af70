"""Logging: the package's logger, and a project's log file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

LOGGER: Final = logging.getLogger("scportrait_like")
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _LogFile(logging.FileHandler):
    """A log file that a full disk does not disturb: what has no room in it is left out."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def log_to(path: Path, debug: bool = False) -> Iterator[None]:
    """Append what the package says to a file while the body runs, and to stderr when debugging."""
    handlers: list[logging.Handler] = [_LogFile(path, encoding="utf-8", delay=True)]
    if debug:
        handlers.append(logging.StreamHandler(sys.stderr))
    level = LOGGER.level
    LOGGER.setLevel(logging.DEBUG if debug else logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        LOGGER.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()
        LOGGER.setLevel(level)
