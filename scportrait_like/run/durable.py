"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from scportrait_like.errors import DiskFullError

# No space left, or a quota is used up.
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" (or a quota) into a `DiskFullError` that names the place."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DiskFullError) or error.errno not in FULL:
            raise
        raise DiskFullError(
            f"no space left on the device while writing {path}. Nothing that was finished is lost: "
            "free some space and run the same call again, it goes on where it stopped"
        ) from error


@contextmanager
def committed(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name only when it is whole and on the disk.

    It is written under a temporary name that starts with a dot, flushed (unless `durable` is False:
    nobody will miss it after a power cut), and renamed. If the body raises, nothing is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
            if durable:
                sync_file(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    """Write JSON atomically, and unless told otherwise durably."""
    with committed(path, durable=durable) as file:
        file.write(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode())


def sync_file(path: Path) -> None:
    """Ask the system to put a file, or a folder's entries, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems refuse to flush a folder; they have nothing to flush then.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)
