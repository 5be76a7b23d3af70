"""What every call that writes into a project does around its work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from scportrait_like import names
from scportrait_like.errors import ProjectError
from scportrait_like.filehandler import FileHandler
from scportrait_like.log import log_to
from scportrait_like.run.durable import FULL, disk_errors
from scportrait_like.run.lock import project_lock


@contextmanager
def writing(filehandler: FileHandler, doing: str, debug: bool = False) -> Iterator[None]:
    """Make the project's folder, hold its lock, write its log, and repair its store.

    Parameters
    ----------
    filehandler
        Of the project.
    doing
        What for, as a second process is told.
    debug
        Log everything, to stderr too.

    Raises
    ------
    ProjectLockedError
        Another process works in the folder.
    ProjectError
        It cannot be made or written.
    DiskFullError
        No space left.
    """
    folder = filehandler.directory
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise ProjectError(f"{folder} cannot be made: {error}") from error
        with project_lock(folder, doing), log_to(folder / names.LOG_FILE, debug):
            filehandler.repair()
            yield
