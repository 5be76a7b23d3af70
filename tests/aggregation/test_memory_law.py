"""The memory law, measured from outside: it does not grow with labels x tiles."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

SCRIPT = Path(__file__).with_name("measured.py")
EDGE, CHUNK, CHANNELS = 2048, 128, 3
N_TILES = (EDGE // CHUNK) ** 2
MB = 1_000_000
ABOVE = 200 * MB
# Of a label in a tile: its geometry, and sums and moments of three channels.
PARTIAL_BYTES = 8 * (11 + 3 * 6)
SIX = ["sum", "mean", "count", "var", "kurtosis", "skew"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="PSS is Linux's"),
]


def linked(path: Path, block: Any, shape: tuple[int, ...], n_channels: int | None = None) -> None:
    """A zarr array whose chunks are all one file a channel."""
    chunks = (1,) * (len(shape) - 2) + (CHUNK, CHUNK)
    array = zarr.create_array(path, shape=shape, chunks=chunks, dtype=block.dtype)
    corner = (slice(None),) * (len(shape) - 2) + (slice(CHUNK), slice(CHUNK))
    array[corner] = block
    for channel in range(n_channels or 1):
        lead = (str(channel), "0") if n_channels else ("0",)
        first = path.joinpath("c", *lead, "0", "0")
        for y, x in np.ndindex(EDGE // CHUNK, EDGE // CHUNK):
            other = path.joinpath("c", *lead, str(y), str(x))
            other.parent.mkdir(parents=True, exist_ok=True)
            if not other.exists():
                os.link(first, other)


def write_image(folder: Path) -> None:
    rng = np.random.default_rng(0)
    block = rng.integers(0, 4000, (CHANNELS, 1, CHUNK, CHUNK), "uint16")
    linked(folder / "image.zarr", block, (CHANNELS, 1, EDGE, EDGE), CHANNELS)


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16,384 labels, a pixel of each in each of 256 tiles: the partials take a gigabyte."""
    folder = tmp_path_factory.mktemp("everywhere")
    write_image(folder)
    rng = np.random.default_rng(1)
    block = (1 + rng.permutation(CHUNK**2)).reshape(1, CHUNK, CHUNK).astype("uint32")
    linked(folder / "mask.zarr", block, (1, EDGE, EDGE))
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """262,144 labels of 4 x 4 pixels, each in one tile: the result is large, a tile is small."""
    folder = tmp_path_factory.mktemp("many")
    write_image(folder)
    array = zarr.create_array(
        folder / "mask.zarr", shape=(1, EDGE, EDGE), chunks=(1, CHUNK, CHUNK), dtype="uint32"
    )
    side = CHUNK // 4
    block = np.kron(np.arange(1, side**2 + 1).reshape(side, side), np.ones((4, 4), int))
    for number, (y, x) in enumerate(np.ndindex(EDGE // CHUNK, EDGE // CHUNK)):
        part = np.s_[0, y * CHUNK : (y + 1) * CHUNK, x * CHUNK : (x + 1) * CHUNK]
        array[part] = block + number * side**2
    return folder


def tree_pss(pid: int) -> int:
    """Sum of PSS of a process and its descendants, from the kernel's own files."""
    found, total = [pid], 0
    for process in found:
        with suppress(OSError, ProcessLookupError, TypeError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += 1024 * int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])
    return total


@dataclass
class Measured:
    peak: int
    limit: int
    result: int
    rows: int
    seconds: float
    checks: list[float]

    def __str__(self) -> str:
        return (
            f"peak {self.peak // MB} MB, limit {self.limit // MB} MB, result "
            f"{self.result // MB} MB, {self.rows} rows, {self.seconds:.1f} s"
        )


def measure(
    folder: Path, above: int, statistics: list[str], executor: str = "threads", tile: int = CHUNK
) -> Measured:
    given = {
        "folder": str(folder),
        "above": above,
        "statistics": statistics,
        "executor": executor,
        "tile": tile,
    }
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), json.dumps(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0

    def sample() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, tree_pss(process.pid))
            time.sleep(0.02)

    sampler = threading.Thread(target=sample)
    sampler.start()
    out, err = process.communicate(timeout=600)
    sampler.join()
    assert process.returncode == 0, err[-3000:]
    found = Measured(peak, **json.loads(out.split("FOUND ")[1]))
    print(f"\n{folder.name}, {executor}, tiles of {tile}, {len(statistics)} statistics: {found}")
    return found


def check(found: Measured) -> None:
    # The figures of all labels, and the frames that are made of them.
    assert found.peak < found.limit + 2 * found.result, str(found)


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_labels_in_every_tile(everywhere: Path, executor: str) -> None:
    found = measure(everywhere, ABOVE, SIX, executor)
    assert found.rows == CHUNK**2
    assert found.rows * N_TILES * PARTIAL_BYTES > 4 * ABOVE, "the test shows nothing"
    assert found.checks[2] == EDGE**2 + found.rows * (found.rows + 1) // 2  # counts, and the ids
    check(found)


def test_many_labels(many: Path) -> None:
    found = measure(many, ABOVE, SIX)
    assert found.rows == (EDGE // 4) ** 2
    check(found)


def test_with_quantiles(everywhere: Path) -> None:
    """The median of labels whose pixels lie in every tile."""
    found = measure(everywhere, ABOVE, ["mean", "median", "q0.1"])
    assert found.rows == CHUNK**2
    check(found)


def test_more_tiles_take_no_more(everywhere: Path) -> None:
    few = measure(everywhere, 2 * ABOVE, SIX, tile=8 * CHUNK)
    more = measure(everywhere, 2 * ABOVE, SIX, tile=CHUNK)
    assert more.peak < few.peak + 100 * MB, f"{few}; {more}"
    np.testing.assert_allclose(more.checks, few.checks, rtol=1e-12)
