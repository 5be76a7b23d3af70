"""The memory law, measured from outside: windows of many channels, that cover each pixel often."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from aggregation.test_memory_law import tree_pss

SCRIPT = Path(__file__).with_name("measured.py")
EDGE, CHUNK, CHANNELS, CELL = 4096, 2048, 40, 32
MB = 1_000_000
# Processes bring their own imports.
ABOVE = {"threads": 500 * MB, "processes": 1300 * MB}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="PSS is Linux's"),
]


def write_image(folder: Path) -> None:
    """Image whose chunks are all one file; channel after channel links to it."""
    shape, chunks = (CHANNELS, 1, EDGE, EDGE), (1, 1, CHUNK, CHUNK)
    path = folder / "image.zarr"
    array = zarr.create_array(path, shape=shape, chunks=chunks, dtype="uint16")
    block = np.arange(CHUNK**2, dtype="uint32").reshape(CHUNK, CHUNK) % 1009
    array[0, 0, :CHUNK, :CHUNK] = block.astype("uint16")
    first = path / "c/0/0/0/0"
    for place in np.ndindex(CHANNELS, 1, EDGE // CHUNK, EDGE // CHUNK):
        other = path.joinpath("c", *map(str, place))
        other.parent.mkdir(parents=True, exist_ok=True)
        if not other.exists():
            os.link(first, other)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tiles of 40 channels, 16,384 cells of 32 x 32 pixels: no background."""
    folder = tmp_path_factory.mktemp("many")
    write_image(folder)
    array = zarr.create_array(
        folder / "mask.zarr", shape=(1, EDGE, EDGE), chunks=(1, CHUNK, CHUNK), dtype="uint32"
    )
    side = EDGE // CELL
    for row in range(0, EDGE, CHUNK):
        ids = 1 + np.arange(row // CELL * side, (row + CHUNK) // CELL * side).reshape(-1, side)
        array[0, row : row + CHUNK] = np.kron(ids, np.ones((CELL, CELL), int))
    return folder


@dataclass
class Measured:
    peak: int
    limit: int
    rows: int
    seconds: float
    unit_bytes: int
    window: int
    executor: str
    total: int

    def __str__(self) -> str:
        return (
            f"peak {self.peak // MB} MB, limit {self.limit // MB} MB, {self.rows} cells, "
            f"{self.unit_bytes // MB} MB a unit projected, {self.window} {self.executor}, "
            f"{self.seconds:.1f} s"
        )


def measure(folder: Path, size: int, remove_background: bool, executor: str) -> Measured:
    given: dict[str, Any] = {
        "folder": str(folder),
        "above": ABOVE[executor],
        "size": size,
        "remove_background": remove_background,
        "executor": executor,
    }
    paths = os.pathsep.join([str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), json.dumps(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    peak = 0

    def sample() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, tree_pss(process.pid))
            time.sleep(0.02)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
        sampler.join()
    assert process.returncode == 0, err[-3000:]
    found = Measured(peak, **json.loads(out.split("FOUND ")[1]))
    print(f"\n{executor}, windows of {size}, {'alone' if remove_background else 'all'}: {found}")
    return found


@pytest.mark.parametrize(
    ("size", "remove_background", "executor"),
    [
        (64, True, "threads"),
        (64, True, "processes"),
        (64, False, "threads"),
        (64, False, "processes"),
        (96, False, "threads"),
    ],
)
def test_limit(folder: Path, size: int, remove_background: bool, executor: str) -> None:
    found = measure(folder, size, remove_background, executor)
    assert found.rows == (EDGE // CELL) ** 2
    assert found.executor == executor
    boxes = found.rows * CHANNELS * 2 * (CELL if remove_background else size) ** 2
    assert boxes > ABOVE[executor], "the test shows nothing"
    assert found.peak < found.limit, str(found)
