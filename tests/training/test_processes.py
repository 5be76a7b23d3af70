"""Streams in other processes: forked while files are open, and spawned."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from scportrait_like.project import Project
from scportrait_like.training import InstanceStream

from .conftest import DIAMETER
from .forked import digest

TESTS = Path(__file__).parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_while_files_are_open(project: Project, h5sc: Path) -> None:
    script: list[Any] = [TESTS / "forked.py", h5sc, project.project_location, DIAMETER]
    done = subprocess.run(
        [sys.executable, *map(str, script)], capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert "the same everywhere" in done.stdout


def read_part(stream: InstanceStream, part: int) -> bytes:
    return digest(stream.part(part, 2))


def test_spawned(project: Project, h5sc: Path) -> None:
    streams = [
        InstanceStream(h5sc, batch_size=5),
        InstanceStream(project, diameter=DIAMETER, batch_size=5),
    ]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for stream in streams:
            for part in range(2):
                there = pool.submit(read_part, stream, part)
                assert there.result(60) == digest(stream.part(part, 2))


def test_a_worker_imports_only_what_it_needs(project: Project, h5sc: Path) -> None:
    """What a pickled stream brings into a process."""
    code = """
import pickle, sys
stream = pickle.loads(bytes.fromhex(sys.argv[1]))
next(iter(stream))
print(*sys.modules)
assert not {"spatialdata", "dask", "pandas", "matplotlib", "torch"} & set(sys.modules)
"""
    import pickle

    for stream in (InstanceStream(h5sc), InstanceStream(project, diameter=DIAMETER)):
        argument = pickle.dumps(stream).hex()
        done = subprocess.run(
            [sys.executable, "-c", code, argument], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
