"""What is said before a project's log may be written, kept until it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from scportrait_like.log import LOGGER


class Notes(logging.Handler):
    """Keeps what the package says while a project is set up, for its log file.

    Opening a folder writes nothing, the log included; the first call that writes hands it over.

    Attributes
    ----------
    records
        What was said and not handed over yet.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take down what is said while the body runs."""
        level = LOGGER.level
        LOGGER.setLevel(min(LOGGER.getEffectiveLevel(), logging.INFO))
        LOGGER.addHandler(self)
        try:
            yield
        finally:
            LOGGER.removeHandler(self)
            LOGGER.setLevel(level)

    def hand_over(self) -> None:
        """Give what was taken down to the handlers that are open now."""
        records, self.records = self.records, []
        for record in records:
            for handler in LOGGER.handlers:
                handler.handle(record)
