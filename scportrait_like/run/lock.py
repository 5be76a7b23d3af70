"""The project's lock: one writer at a time, and it does not outlive its owner.

The system holds it (flock) and drops it when the owner ends, however it ends. Who holds it stands
beside it, for the message to the second one.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from scportrait_like import names
from scportrait_like.errors import ProjectError, ProjectLockedError
from scportrait_like.run.durable import FULL


@contextmanager
def project_lock(folder: Path, doing: str) -> Iterator[None]:
    """Hold a project folder's lock.

    Parameters
    ----------
    folder
        The project folder; it must exist.
    doing
        What for, as a second process is told ("HDF5CellExtraction").

    Raises
    ------
    ProjectLockedError
        Another process, or another thread of this one, works in the folder.
    ProjectError
        The folder cannot be written.
    """
    path = folder / names.LOCK_FILE
    note = folder / f"{names.LOCK_FILE}.owner"
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise ProjectLockedError(
            f"another process works in {folder}: {_owner(note)}. Wait until it ends, or stop it; "
            "the lock goes with its owner"
        ) from None
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ProjectError(f"the project folder {folder} cannot be written: {error}") from error
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "doing": doing}
        with suppress(OSError):  # it is for a message only, and a full disk has no room for it
            note.write_text(json.dumps(owner))
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _owner(note: Path) -> str:
    with suppress(OSError, ValueError, KeyError):
        owner = json.loads(note.read_text())
        return f"{owner['doing']}, process {owner['pid']} on {owner['host']}"
    return "its owner is not known"
