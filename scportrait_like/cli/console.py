"""What a command tells its user: lines of the log, one clear line on failure, an exit code."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import typer

from scportrait_like import names
from scportrait_like.errors import (
    ConfigError,
    ElementExistsError,
    InputError,
    MissingInputError,
    ProjectLockedError,
    ScportraitLikeError,
)
from scportrait_like.log import LOGGER, log_to

FAILED: Final = 1
WRONG_USE: Final = 2
INTERRUPTED: Final = 130

_WRONG_USE: Final = (ConfigError, InputError, MissingInputError, ElementExistsError)


@contextmanager
def telling(
    directory: Path, again: str, debug: bool = False, *, log: bool = True, bar: bool = False
) -> Iterator[None]:
    """Show the log while the body runs; turn what it raises into a line and an exit code.

    Parameters
    ----------
    directory
        The project folder, whose log gets the details of a failure.
    again
        What to do after an interruption.
    debug
        Show the traceback too.
    log
        Whether the log may be written.
    bar
        Whether a bar shows the progress on a terminal, so that lines are needed elsewhere only.
    """
    try:
        with _log_on_stderr(debug, bar):
            yield
    except KeyboardInterrupt:
        _say(f"interrupted; what was finished is kept. To go on: {again}")
        raise typer.Exit(INTERRUPTED) from None
    except _WRONG_USE as error:
        _fail(error, debug)
        raise typer.Exit(WRONG_USE) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - the last to hear of it
        kept = log and not isinstance(error, ProjectLockedError) and _keep(error, directory)
        _fail(error, debug, f" (details: {directory / names.LOG_FILE})" if kept else "")
        raise typer.Exit(FAILED) from None


@contextmanager
def _log_on_stderr(debug: bool, bar: bool) -> Iterator[None]:
    """Show the lines of the log, beside a bar the warnings only."""
    if debug:  # the project shows them itself
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING if bar and sys.stderr.isatty() else logging.INFO)
    handler.setFormatter(_Lines())
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)


class _Lines(logging.Formatter):
    """The message alone; of warnings and worse, the level before it."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.levelno < logging.WARNING:
            return message
        return f"{record.levelname.lower()}: {message}"


def _keep(error: Exception, directory: Path) -> bool:
    """Write the traceback into the project's log, where there is a project."""
    if not directory.is_dir():
        return False
    with suppress(OSError), log_to(directory / names.LOG_FILE):
        LOGGER.error("%s", error, exc_info=error)
        return True
    return False


def _fail(error: Exception, debug: bool, where: str = "") -> None:
    if debug:
        traceback.print_exception(error)
    named = "" if isinstance(error, ScportraitLikeError) else f"{type(error).__name__}: "
    _say(f"error: {named}{error}{where}")


def _say(line: str) -> None:
    typer.echo(line, err=True)
