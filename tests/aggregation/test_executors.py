"""Every executor gives the same bits, floats included, as long as the tiles are the same."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import dask.array as da
import numpy as np
import pytest

from scportrait_like import datasets
from scportrait_like.utils import RasterAggregator

from .cases import write_zarr
from .oracle import STATISTICS, check, expect

pytestmark = pytest.mark.usefixtures("small_tiles")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Mask and image on disk: float32, so that the order of sums would show."""
    folder = tmp_path_factory.mktemp("tissue")
    made = datasets.tissue((3, 240, 200), seed=3, ids="sparse")
    rng = np.random.default_rng(1)
    image = (made.read_image() * rng.random((3, 240, 200))).astype("float32")
    write_zarr(folder / "image.zarr", image[:, None], (1, 1, 40, 40))
    write_zarr(folder / "mask.zarr", made.read_labels()[None], (1, 40, 40))
    return da.from_zarr(folder / "mask.zarr"), da.from_zarr(folder / "image.zarr")


def aggregated(inputs: tuple[Any, Any], executor: Any) -> list[bytes]:
    aggregator = RasterAggregator(*inputs, run_on_gpu=False, executor=executor)
    frames = aggregator.aggregate_stats(STATISTICS)
    return [frame.to_numpy().tobytes() for frame in frames]


@pytest.fixture(scope="module")
def inline(inputs: tuple[Any, Any]) -> list[bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scportrait_like.raster.tiles.TILE_EDGE", 16)
        return aggregated(inputs, "inline")


def test_inline_is_right(inputs: tuple[Any, Any]) -> None:
    mask, image = inputs
    expected = expect(mask.compute(), image.compute(), STATISTICS)
    frames = RasterAggregator(mask, image, executor="inline").aggregate_stats(STATISTICS)
    for name, frame in zip(STATISTICS, frames, strict=True):
        check(name, frame.drop(columns="cell_ID").to_numpy(), expected)


@pytest.mark.parametrize("executor", [None, "threads", "processes"])
def test_by_name(inputs: tuple[Any, Any], inline: list[bytes], executor: str | None) -> None:
    for _ in range(1 if executor == "processes" else 3):
        assert aggregated(inputs, executor) == inline


def test_handed_in_threads(inputs: tuple[Any, Any], inline: list[bytes]) -> None:
    with ThreadPoolExecutor(5) as pool:
        assert aggregated(inputs, pool) == inline
        assert pool.submit(int, "7").result() == 7, "it is still its owner's"


@pytest.mark.slow
def test_handed_in_spawned_processes(inputs: tuple[Any, Any], inline: list[bytes]) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        assert aggregated(inputs, pool) == inline


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_dask_client(client: Any, inputs: tuple[Any, Any], inline: list[bytes]) -> None:
    assert aggregated(inputs, None) == inline
    assert aggregated(inputs, "dask") == inline
    assert aggregated(inputs, client.get_executor()) == inline
    assert sum(client.nthreads().values()) == 2, "it is still its owner's"


@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_arrays_of_this_process(
    client: Any, inputs: tuple[Any, Any], inline: list[bytes], executor: str
) -> None:
    """Pixels that lie in this process's memory, and graphs, reach the workers too."""
    mask = da.from_array(inputs[0].compute(), (1, 40, 40))
    image = inputs[1].map_blocks(np.negative).map_blocks(np.negative)
    assert aggregated((mask, image), executor) == inline
