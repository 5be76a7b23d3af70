"""Images larger than the memory budget, and processes killed while they load."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import zarr

from scportrait_like.project import Project
from scportrait_like.run.memory import process_memory

Pixels = np.ndarray[Any, Any]
Check = Callable[..., Any]

pytestmark = pytest.mark.slow

SHAPE = (3, 16_000, 16_000)  # 1.5 GB of uint16
EXTRA = 400_000_000

LOAD = """
import sys
import dask.array as da, numpy as np, spatialdata, tifffile, zarr
from pathlib import Path
from scportrait_like.project import Project
from scportrait_like.run.memory import tree_memory
import scportrait_like.io.copying, scportrait_like.io.spatial, scportrait_like.io.tiff

folder, kind, source = sys.argv[1:]

def load(project, image):
    if kind == "lazy":
        lazy = da.map_blocks(
            lambda block_id=None: np.full((1, 2000, 2000), sum(block_id), np.uint16),
            chunks=((1,) * 3, (2000,) * 8, (2000,) * 8), dtype=np.uint16,
            meta=np.empty((0, 0, 0), np.uint16))
        project.load_input_from_dask(lazy if image else lazy[:, :100, :100], ["a", "b", "c"])
    elif kind == "zarr":
        array = da.from_zarr(source)
        project.load_input_from_dask(array if image else array[:, :100, :100], ["a", "b", "c"])
    else:
        crop = None if image else [(0, 100), (0, 100)]
        project.load_input_from_tif_files(source, ["a", "b", "c"], crop=crop)

# A first small load, so that all that is imported and compiled is there.
load(Project(folder + "/small"), False)
budget = tree_memory() + EXTRA
print(budget, flush=True)
load(Project(folder + "/large", memory_limit=budget), True)
""".replace("EXTRA", str(EXTRA))


def planes() -> Iterator[Pixels]:
    """Planes that compress to about half, without taking long to make."""
    band = np.random.default_rng(0).integers(0, 4096, (64, SHAPE[2]), np.uint16) & 0xFF0
    for _ in range(SHAPE[0]):
        yield np.tile(band, (SHAPE[1] // 64, 1))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("large")

    def make(kind: str) -> Path:
        path = folder / kind
        if kind == "zarr":
            array = zarr.create_array(path, shape=SHAPE, chunks=(1, 2000, 2000), dtype=np.uint16)
            noise = np.random.default_rng(0).integers(0, 4096, (2000, 2000), np.uint16)
            for channel, y, x in np.ndindex(3, 8, 8):
                part = np.roll(noise, channel + 8 * y + x)
                array[channel, 2000 * y : 2000 * (y + 1), 2000 * x : 2000 * (x + 1)] = part
        if kind.startswith("tiff"):
            options: dict[str, Any] = {"rowsperstrip": 64}
            if kind == "tiff-strips":
                options["compression"] = "zstd"
            ramp = np.arange(SHAPE[2], dtype=np.uint16)
            data = planes() if kind == "tiff-strips" else np.broadcast_to(ramp, SHAPE)
            tifffile.imwrite(
                path,
                data,
                shape=SHAPE,
                dtype=np.uint16,
                photometric="minisblack",
                bigtiff=True,
                **options,
            )
        return path

    return make


@pytest.mark.parametrize("kind", ["lazy", "zarr", "tiff-strips", "tiff-plain"])
def test_a_large_image_loads_within_its_budget(
    tmp_path: Path, sources: Callable[[str], Path], kind: str
) -> None:
    source = sources(kind)
    command = [sys.executable, "-c", LOAD, str(tmp_path), kind, str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        budget, peak = int(process.stdout.readline()), 0
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            tree = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(process_memory(one.pid) for one in tree))
            time.sleep(0.02)
    assert process.returncode == 0
    loaded = Project(tmp_path / "large").filehandler.open_array("input_image")
    assert loaded.shape == SHAPE
    if kind == "tiff-plain":
        np.testing.assert_array_equal(loaded[2, 9_000:9_010, ::7], [np.arange(16_000)[::7]] * 10)
    if kind == "zarr":
        there: Any = zarr.open_array(source)
        np.testing.assert_array_equal(loaded[1, 7_900:8_100], there[1, 7_900:8_100])
    print(
        f"{kind}: peak {(peak - budget + EXTRA) / 1e6:.0f} of {EXTRA / 1e6:.0f} MB above the base"
    )
    assert peak < budget


# Everything is imported once; each line that is read is a load in a process of its own.
SERVER = """
import os, sys
import dask.array as da, dask.dataframe, numba, numpy as np, pandas, spatialdata, zarr
import spatialdata.models
import scportrait_like.io.copying, scportrait_like.io.pyramids, scportrait_like.io.twins
from scportrait_like.project import Project

image, labels = np.load(sys.argv[1]), np.load(sys.argv[2])
for line in sys.stdin:
    folder, turned = line.split()
    pid = os.fork()
    if pid == 0:
        pixels = image[::-1] if turned == "turned" else image
        project = Project(folder, {"HDF5CellExtraction": {"image_size": 32}})
        lazy = da.from_array(pixels, chunks=(1, 64, 64))
        project.load_input_from_dask(lazy, ["DNA", "CD45", "CD3"], overwrite=True)
        project.load_labels(labels, overwrite=True)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Loads:
    """Starts loads and kills them."""

    def __init__(self, folder: Path, image: Pixels, labels: Pixels) -> None:
        np.save(folder / "image.npy", image)
        np.save(folder / "labels.npy", labels)
        files = [str(folder / "image.npy"), str(folder / "labels.npy")]
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER, *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, kill_after: float | None = None, turned: bool = False) -> bool:
        """Load; whether it came to its end."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{folder} {'turned' if turned else 'plain'}\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        code = int(self._server.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        return code == 0

    def close(self) -> None:
        self._server.communicate()


@pytest.fixture
def loads(tmp_path: Path, image: Pixels, labels: Pixels) -> Iterator[Loads]:
    made = Loads(tmp_path, image, labels)
    yield made
    made.close()


def test_a_killed_load_is_completed_by_the_same_script(
    tmp_path: Path,
    image: Pixels,
    labels: Pixels,
    loads: Loads,
    check_image: Check,
    check_labels: Check,
) -> None:
    loads.run(tmp_path / "first")  # the caches are warm now
    started = time.monotonic()
    assert loads.run(tmp_path / "second")
    whole = time.monotonic() - started
    draw, states = random.Random(5), set()
    for number in range(6):
        folder = tmp_path / f"p{number}"
        for _ in range(4):
            loads.run(folder, draw.uniform(0, 0.8 * whole))
            # Whatever was there when it was killed reads, and is whole.
            there = Project(folder).filehandler.element_names()
            states.add(tuple(sorted(there)))
            assert {name for _, name, _ in Project(folder).sdata.gen_elements()} == set(there)
            if "input_image" in there:
                check_image(Project(folder), image, ["DNA", "CD45", "CD3"])
        assert loads.run(folder)
        project = Project(folder)
        check_image(project, image, ["DNA", "CD45", "CD3"])
        check_labels(project, labels)
        assert [p.name for p in folder.iterdir() if p.name.startswith(".scratch")] == []
        assert len(list((folder / ".index").iterdir())) == 1
    assert len(states) > 1  # it was killed in the midst of loading


def test_a_killed_replacement_leaves_the_old_or_the_new(
    tmp_path: Path, image: Pixels, loads: Loads, check_image: Check
) -> None:
    folder, draw = tmp_path / "p", random.Random(6)
    loads.run(folder)
    turned = True
    for _ in range(12):
        loads.run(folder, draw.uniform(0.1, 1), turned)
        there = Project(folder).filehandler.open_array("input_image")[:]
        assert any(np.array_equal(there, pixels) for pixels in (image, image[::-1]))
        turned = np.array_equal(there, image)
    assert loads.run(folder, turned=True)
    check_image(Project(folder), image[::-1], ["DNA", "CD45", "CD3"])
