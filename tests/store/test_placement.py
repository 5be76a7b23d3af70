"""Folders placed, exchanged, and put right after a cut."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from scportrait_like.errors import DiskFullError, ProjectError
from scportrait_like.io import placement

from .helpers import names_in


def folder(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(content)
    return path


def content(path: Path) -> str:
    return (path / "file").read_text()


class CannotExchange:
    """A libc whose file system does not know the exchange."""

    def __init__(self, code: int) -> None:
        self.code = code

    def renameat2(self, *_: object) -> int:
        ctypes.set_errno(self.code)
        return -1


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: CannotExchange(errno.EINVAL))


def test_exchange(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "ä", "a"), folder(tmp_path / "b", "b")
    if not placement.exchange(a, b):
        pytest.skip("this file system cannot exchange")
    assert (content(a), content(b)) == ("b", "a")
    with pytest.raises(FileNotFoundError):
        placement.exchange(a, tmp_path / "none")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_exchange_unknown_to_the_file_system(monkeypatch: Any, tmp_path: Path, code: int) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: CannotExchange(code))
    assert not placement.exchange(tmp_path / "a", tmp_path / "b")


def test_exchange_unknown_to_the_system(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    assert not placement.exchange(tmp_path / "a", tmp_path / "b")


def place(tmp_path: Path) -> list[str]:
    """Place "new" at ``target``; return what was hidden."""
    hidden: list[str] = []
    target = tmp_path / "target"
    with placement.scratch_folder(target) as scratch:
        new = folder(scratch / "new", "new")
        placement.flush_tree(new)
        placement.place_folder(new, target, scratch, hide=lambda: hidden.append("hidden"))
    assert not list(tmp_path.glob(".scratch-*"))
    return hidden


def test_placed_where_nothing_is(tmp_path: Path) -> None:
    assert place(tmp_path) == []
    assert content(tmp_path / "target") == "new"


def test_placed_over_an_old_one(tmp_path: Path) -> None:
    folder(tmp_path / "target", "old")
    assert place(tmp_path) == []
    assert content(tmp_path / "target") == "new"


def test_placed_by_journal(tmp_path: Path, without_exchange: None) -> None:
    folder(tmp_path / "target", "old")
    assert place(tmp_path) == ["hidden"]
    assert content(tmp_path / "target") == "new"


def test_the_old_one_returns_if_the_new_one_cannot_come(
    tmp_path: Path, without_exchange: None, monkeypatch: Any
) -> None:
    folder(tmp_path / "target", "old")
    rename = Path.rename

    def fails_for_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            self.joinpath("file").unlink()
            self.rmdir()
            raise OSError(errno.EIO, "broken disk")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_new)
    with pytest.raises(OSError, match="broken disk"):
        place(tmp_path)
    assert content(tmp_path / "target") == "old"
    assert not list(tmp_path.glob(".scratch-*"))


def abandoned(tmp_path: Path, *parts: str, target: bool) -> Path:
    """A scratch folder as a killed process left it between its steps."""
    if target:
        folder(tmp_path / "target", "target")
    scratch = tmp_path / f"{placement.SCRATCH}target-1-abc"
    scratch.mkdir()
    for part in parts:
        folder(scratch / part, part)
    journal = {"new": "new", "target": "../target"}
    (scratch / "journal.json").write_text(json.dumps(journal))
    return scratch


@pytest.mark.parametrize(
    ("parts", "target", "expected"),
    [
        (["new"], True, "target"),  # nothing renamed yet
        (["new", "old"], False, "new"),  # the old one gone, the new one not there
        (["old"], True, "target"),  # both renamed
        (["old"], False, "old"),
    ],
)
def test_journal_replayed(tmp_path: Path, parts: list[str], target: bool, expected: str) -> None:
    scratch = abandoned(tmp_path, *parts, target=target)
    assert placement.leftovers(tmp_path / "target") == [scratch]
    assert placement.clear_leftovers(tmp_path / "target") == [scratch]
    assert content(tmp_path / "target") == expected
    assert names_in(tmp_path) == ["target"]


def test_journal_cut_short(tmp_path: Path) -> None:
    scratch = abandoned(tmp_path, "new", target=True)
    (scratch / "journal.json").write_text('{"new": "n')
    placement.clear_leftovers(tmp_path / "target")
    assert content(tmp_path / "target") == "target"
    assert names_in(tmp_path) == ["target"]


def test_scratch_in_use_is_no_leftover(tmp_path: Path) -> None:
    other = tmp_path / f"{placement.SCRATCH}target-other-1-abc"
    other.mkdir()
    with placement.scratch_folder(tmp_path / "target") as scratch:
        assert placement.clear_leftovers(tmp_path / "target") == []
        assert scratch.exists()
    assert names_in(tmp_path) == [other.name]


def test_errors_explained(tmp_path: Path) -> None:
    for code, kind in [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EACCES, ProjectError),
        (errno.EROFS, ProjectError),
        (errno.EIO, OSError),
    ]:
        with pytest.raises(kind) as caught, placement.write_errors(tmp_path):
            raise OSError(code, os.strerror(code), "file")
        assert type(caught.value) is kind
        assert kind is OSError or str(tmp_path) in str(caught.value)


def test_folders_that_cannot_be_flushed(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, "not for folders")

    monkeypatch.setattr(os, "fsync", refuse)
    placement.flush_tree(folder(tmp_path / "a", "a"))
