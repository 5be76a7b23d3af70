"""However many statistics are asked for, every chunk of the image is decoded once."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

from scportrait_like.utils import RasterAggregator

from .cases import write_zarr
from .oracle import Array, check, expect

pytestmark = pytest.mark.usefixtures("small_tiles")
SIX = ("count", "sum", "mean", "var", "skew", "kurtosis")
QUANTILES = ("median", "q0.1", "q0.5", "q0.9")


class Opened:
    """Counts how often files below a folder are opened by this process, whoever opens them."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.counts: Counter[str] = Counter()

    def see(self, event: str, args: tuple[Any, ...]) -> None:
        if self.folder is None or event != "open":
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], (str, bytes, os.PathLike)) else ""
        if path.startswith(self.folder):
            self.counts[path[len(self.folder) :]] += 1

    @contextmanager
    def below(self, folder: Path) -> Iterator[Counter[str]]:
        self.counts = Counter()
        self.folder = f"{folder}/"
        try:
            yield self.counts
        finally:
            self.folder = None


@pytest.fixture(scope="session")
def opened() -> Opened:
    found = Opened()
    sys.addaudithook(found.see)  # it cannot be taken away: it does nothing outside `below`
    return found


def chunk_files(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("c/**/*") if path.is_file()}
    assert found
    return found


def pixels() -> tuple[Array, Array]:
    """Labels in every corner, and an image without a zero: no chunk is left out."""
    rng = np.random.default_rng(4)
    mask = np.kron(rng.integers(0, 400, (4, 20, 24)), np.ones((1, 8, 8), int)).astype("uint32")
    return mask, rng.integers(1, 60_000, (3, *mask.shape), "uint16")


CHUNKS = {
    "equal": ((1, 32, 32), (1, 1, 32, 32)),
    "different": ((1, 48, 64), (1, 1, 32, 32)),
    "channels together": ((1, 32, 32), (3, 1, 32, 48)),
    "channels by two": ((2, 32, 32), (2, 1, 32, 32)),
    "thick": ((1, 64, 64), (1, 4, 32, 32)),
    "planes": ((1, 160, 192), (1, 1, 160, 192)),
    "one": ((4, 160, 192), (3, 4, 160, 192)),
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("executor", ["inline", "threads"])
@pytest.mark.parametrize("statistics", [SIX, SIX + QUANTILES], ids=["six", "with quantiles"])
def test_decodes(
    opened: Opened,
    tmp_path: Path,
    chunks: tuple[tuple[int, ...], ...],
    executor: str,
    statistics: tuple[str, ...],
) -> None:
    mask, image = pixels()
    write_zarr(tmp_path / "mask.zarr", mask, chunks[0])
    write_zarr(tmp_path / "image.zarr", image, chunks[1])
    own = RasterAggregator(
        da.from_zarr(tmp_path / "mask.zarr"),
        da.from_zarr(tmp_path / "image.zarr"),
        run_on_gpu=False,
        executor=executor,
    )
    with opened.below(tmp_path) as counts:
        frames = own.aggregate_stats(statistics)
    files = chunk_files(tmp_path)
    images = {name for name in files if name.startswith("image.zarr")}
    decoded = {name: counts[name] for name in sorted(files)}
    assert {n: c for n, c in decoded.items() if n in images and c != 1} == {}
    most = 1 if statistics == SIX else 2
    assert {n: c for n, c in decoded.items() if n not in images and not 1 <= c <= most} == {}
    expected = expect(mask, image, statistics)
    for name, frame in zip(statistics, frames, strict=True):
        check(name, frame.drop(columns="cell_ID").to_numpy(), expected)


def test_area_and_center_read_no_image(opened: Opened, tmp_path: Path) -> None:
    mask, image = pixels()
    write_zarr(tmp_path / "mask.zarr", mask, (1, 32, 32))
    write_zarr(tmp_path / "image.zarr", image, (1, 1, 32, 32))
    own = RasterAggregator(
        da.from_zarr(tmp_path / "mask.zarr"), da.from_zarr(tmp_path / "image.zarr")
    )
    with opened.below(tmp_path) as counts:
        own.aggregate_area()
        own.center_of_mass()
        own.aggregate_stats(("count",))
    decoded = {name: counts[name] for name in chunk_files(tmp_path)}
    assert {n for n, c in decoded.items() if c and n.startswith("image.zarr")} == set()
    assert max(decoded.values()) <= 3


def test_graphs_compute_each_block_once(tmp_path: Path) -> None:
    """A dask graph that is no plain zarr: each block of it is made once."""
    mask, image = pixels()
    made: Counter[tuple[int, ...]] = Counter()

    def seen(block: Array, block_info: Any = None) -> Array:
        made[tuple(block_info[0]["chunk-location"])] += 1
        return block

    whole = da.from_array(image, (1, 1, 40, 64)).map_blocks(seen, dtype=image.dtype, meta=image[:0])
    made.clear()
    own = RasterAggregator(da.from_array(mask, (1, 40, 32)), whole, executor="threads")
    own.aggregate_stats(SIX + QUANTILES)
    assert len(made) == whole.npartitions
    assert set(made.values()) == {1}
