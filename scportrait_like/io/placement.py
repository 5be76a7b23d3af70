"""Folders and files that appear under their names only when complete.

What is to appear is written into a *scratch folder* beside its target (the same file system),
flushed, and renamed. An existing folder is exchanged in one system call where the system can, else
by two renames under a journal. So a process that is killed at any moment leaves the old state or
the new one, and beside it at most a scratch folder, which `clear_leftovers` removes.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from scportrait_like.errors import ProjectError
from scportrait_like.run.durable import disk_errors, sync_file

SCRATCH: Final = ".scratch-"
_JOURNAL: Final = "journal.json"
_OLD: Final = "old"

_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

# Scratch folders in use by this process: a repair beside an open writer must leave them alone.
_in_use: set[Path] = set()


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" into `DiskFullError` and "not allowed" into `ProjectError`."""
    with disk_errors(path):
        try:
            yield
        except OSError as error:
            if error.errno in _FORBIDDEN:
                raise ProjectError(
                    f"{path} cannot be written: {error.strerror} ({error.filename}). "
                    "Check the owner and the permissions of the project folder.",
                    path=str(path),
                ) from error
            raise


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A scratch folder beside `target`, removed at the end of the block, come what may."""
    folder = target.parent / f"{SCRATCH}{target.name}-{os.getpid()}-{uuid4().hex[:12]}"
    _in_use.add(folder)
    try:
        folder.mkdir(parents=True)
        yield folder
    finally:
        _in_use.discard(folder)
        _replay_journal(folder)
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a scratch folder; what cannot be removed is left to the next repair.

    When zarr fails to write one chunk, the threads that write the others go on for a moment, and
    may put a file into a folder that is being removed.
    """
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def leftovers(target: Path) -> list[Path]:
    """Scratch folders that killed processes left beside `target`, in order of their names."""
    if not target.parent.is_dir():
        return []
    ours = re.compile(re.escape(f"{SCRATCH}{target.name}-") + r"\d+-[0-9a-f]+")
    found = (path for path in target.parent.iterdir() if ours.fullmatch(path.name))
    return sorted(path for path in found if path not in _in_use)


def clear_leftovers(target: Path) -> list[Path]:
    """Finish what killed processes had begun beside `target`, remove and return their scratch.

    The caller must hold the project's lock: the scratch folders of another process that still
    lives look the same.
    """
    found = leftovers(target)
    for folder in found:
        _replay_journal(folder)
        _remove(folder)
    return found


def place_folder(
    new: Path, target: Path, scratch: Path, hide: Callable[[], object] | None = None
) -> None:
    """Rename the flushed folder `new` to `target`; one that is there takes the place of `new`.

    Parameters
    ----------
    new
        A folder on the same file system, flushed.
    target
        Where it belongs; its parent exists.
    scratch
        The scratch folder.
    hide
        Called before the two renames of a system that cannot exchange: until they are done a
        reader may find nothing at `target`, so what lists it should not.
    """
    if not target.exists():
        new.rename(target)
    elif not exchange(new, target):
        _exchange_by_journal(new, target, scratch, hide)
    sync_file(target.parent)
    sync_file(new.parent)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one atomic step; False where the system cannot."""
    at_cwd, rename_exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or a libc without it
        return False
    if renameat2(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), rename_exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # the file system cannot
        return False
    raise OSError(code, os.strerror(code), str(second))


def _exchange_by_journal(
    new: Path, target: Path, scratch: Path, hide: Callable[[], object] | None
) -> None:
    """Two renames; whoever finds the journal and no target finishes them."""
    record = {
        "new": os.path.relpath(new, scratch),
        "target": os.path.relpath(target, scratch),
    }
    journal = scratch / _JOURNAL
    journal.write_text(json.dumps(record), encoding="utf-8")
    sync_file(journal)
    sync_file(scratch)
    if hide is not None:
        hide()
    target.rename(scratch / _OLD)
    new.rename(target)


def _replay_journal(scratch: Path) -> None:
    """Put the new folder, else the old one, to the name that two cut-short renames left empty."""
    journal = scratch / _JOURNAL
    try:
        record = json.loads(journal.read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # none, or cut short: nothing was renamed
        return
    target = Path(os.path.normpath(scratch / record["target"]))
    if target.exists():
        return
    for source in (scratch / record["new"], scratch / _OLD):
        if source.exists():
            source.rename(target)
            sync_file(target.parent)
            return


def replace_file(path: Path, content: str, scratch: Path) -> None:
    """Write a text file beside the others and rename it to `path`."""
    temporary = scratch / f"{uuid4().hex[:12]}-{path.name}"
    temporary.write_text(content, encoding="utf-8")
    sync_file(temporary)
    temporary.replace(path)
    sync_file(path.parent)


def flush_tree(folder: Path) -> None:
    """Flush all files and folders below `folder`, and itself.

    The file system commits what is asked for at the same time together, hence the threads.
    """
    paths = [Path(root) / name for root, _, files in os.walk(folder) for name in files]
    paths += [Path(root) for root, _, _ in os.walk(folder, topdown=False)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(sync_file, paths):
            pass


def remove_folder(target: Path, scratch: Path) -> None:
    """Make a folder vanish in one step: it is renamed into the scratch, which is removed."""
    with suppress(FileNotFoundError):
        target.rename(scratch / _OLD)
        sync_file(target.parent)
