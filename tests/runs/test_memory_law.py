"""The memory law, measured from outside: the process tree stays below what was granted."""

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

import h5py
import numpy as np
import pytest
import zarr

from scportrait_like import datasets, names
from scportrait_like.filehandler import FileHandler

SCRIPT = Path(__file__).with_name("measured.py")
EDGE, TILE, CHANNELS = 16384, 2048, 5
MB = 1_000_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="PSS is Linux's"),
]


@pytest.fixture(scope="session")
def huge_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 x 16384 x 16384 uint16 (2.7 GB) and 150,000 cells: one tile's pixels, linked 64 times."""
    folder = tmp_path_factory.mktemp("huge")
    tile = datasets.tissue((CHANNELS, TILE, TILE), seed=4)
    image, labels = tile.read_image(), tile.read_labels()
    handler = FileHandler(folder)
    shape, chunks = (CHANNELS, EDGE, EDGE), (1, TILE, TILE)
    with handler.raster_writer(
        names.INPUT_IMAGE, "images", shape, "uint16", chunks=chunks, pyramid=False
    ) as writer:
        writer.write((slice(None), slice(TILE), slice(TILE)), image)
    array = handler.array_path(names.INPUT_IMAGE)
    for channel in range(CHANNELS):
        first = array / "c" / str(channel) / "0" / "0"
        for y, x in np.ndindex(EDGE // TILE, EDGE // TILE):
            other = array / "c" / str(channel) / str(y) / str(x)
            other.parent.mkdir(exist_ok=True)
            if not other.exists():
                os.link(first, other)
    with handler.raster_writer(
        names.SEG_CYTOSOL, "labels", shape[1:], "uint32", chunks=chunks[1:], pyramid=False
    ) as writer:
        for number, (y, x) in enumerate(np.ndindex(EDGE // TILE, EDGE // TILE)):
            region = np.s_[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
            writer.write(region, np.where(labels > 0, labels + 10_000 * number, 0))
    assert zarr.open_array(array, mode="r")[4, -1, -1] == image[4, -1, -1]
    return handler.path


def tree_pss(pid: int) -> int:
    """Sum of PSS of a process and its descendants, from the kernel's own files."""
    found, total = [pid], 0
    for process in found:
        with suppress(OSError, ProcessLookupError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                text = (thread / "children").read_text()
                found += map(int, text.split())
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += 1024 * int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])
    return total


@dataclass
class Measured:
    limit: int
    peak: int
    own_peak: int
    workers: int
    seconds: float
    log: str

    def __str__(self) -> str:
        return (
            f"limit {self.limit // MB} MB, peak {self.peak // MB} MB (own measure "
            f"{self.own_peak // MB} MB), {self.workers} workers, {self.seconds:.1f} s"
        )


def measure(
    folder: Path, store: Path, above: int, config: dict[str, Any], script: Path = SCRIPT
) -> Measured:
    folder.mkdir()
    (folder / names.STORE).symlink_to(store, target_is_directory=True)
    given = {"folder": str(folder), "above": above, "config": config}
    process = subprocess.Popen(
        [sys.executable, str(script), json.dumps(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0

    def sample() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, tree_pss(process.pid))
            time.sleep(0.05)

    sampler = threading.Thread(target=sample)
    sampler.start()
    out, err = process.communicate(timeout=900)
    sampler.join()
    assert process.returncode == 0, err[-3000:]
    own, workers, _, _, seconds = re.search(r"PEAK (.*)", out)[1].split()
    limit = int(re.search(r"LIMIT (\d+)", out)[1])
    log = (folder / names.LOG_FILE).read_text()
    found = Measured(limit, peak, int(own), int(workers), float(seconds), log)
    print(f"\n{config.get('executor')}, {above // MB} MB above imports: {found}")
    for line in log.splitlines():
        if "run.window" in line or "units done" in line:
            print("   ", line[24:])
    return found


def check(found: Measured, folder: Path) -> None:
    assert found.peak < found.limit, str(found)
    image_bytes = 2 * CHANNELS * EDGE * EDGE
    assert image_bytes > 2 * found.limit
    # What a user looks for afterwards.
    assert re.search(r"calibration: baseline \d+ MB, -?\d+ MB measured a unit in flight", found.log)
    assert re.search(r"window \d+ units?, batches of \d+", found.log)
    assert re.search(r"by \d (threads|processes); .*peak \d+ MB of \d+ MB granted", found.log)
    with h5py.File(folder / "extraction" / "data" / names.H5SC_FILE) as file:
        assert len(file["obs/scportrait_cell_id"]) > 100_000


@pytest.mark.parametrize("above", [800, 250], ids="{} MB".format)
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_peak_stays_below_the_limit(
    huge_store: Path, tmp_path: Path, executor: str, above: int
) -> None:
    config = {"image_size": 64, "threads": 2, "executor": executor}
    folder = tmp_path / "project"
    found = measure(folder, huge_store, above * MB, config)
    check(found, folder)
    if above == 250:
        assert re.search(r"WARNING.*(instead of|may not hold)", found.log)
    if above == 800:
        assert found.workers == 2
