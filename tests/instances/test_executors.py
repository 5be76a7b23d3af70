"""The same bits by any executor, in any batches, under any limit; each cell once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

from scportrait_like.raster.instance_runs import InstanceRun
from scportrait_like.raster.sources import source_of

from .cases import odd_labels, odd_pixels, write_zarr
from .oracle import Note, check, shown

pytestmark = pytest.mark.usefixtures("small_tiles")
SHAPE = (2, 39, 50)
SIZE = 18
Inputs = tuple[Any, Any, Path]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Mask and image, and the folder of zarr arrays that hold them."""
    rng = np.random.default_rng(8)
    mask, image = odd_labels(rng, SHAPE, "uint32"), odd_pixels(rng, (3, *SHAPE), "float32")
    folder = tmp_path_factory.mktemp("arrays")
    write_zarr(folder / "mask", mask, (1, 16, 16))
    write_zarr(folder / "image", image, (1, 1, 16, 16))
    return mask, image, folder


def compare(inputs: Inputs, executor: Any, remove_background: bool = True, **options: Any) -> None:
    mask, image, folder = inputs
    options = {"executor": executor, "remove_background": remove_background, **options}
    found = shown(folder / "mask", folder / "image", SIZE, **options)
    check(found, mask, image, SIZE, remove_background)


@pytest.mark.parametrize("remove_background", [True, False], ids=["alone", "all"])
@pytest.mark.parametrize("executor", [None, "inline", "threads"])
def test_by_name(inputs: Inputs, executor: str | None, remove_background: bool) -> None:
    for _ in range(1 if executor == "inline" else 2):
        compare(inputs, executor, remove_background)


def test_handed_in_threads(inputs: Inputs) -> None:
    with ThreadPoolExecutor(5) as pool:
        compare(inputs, pool)
        compare(inputs, pool, remove_background=False)
        assert pool.submit(int, "7").result() == 7, "it is still its owner's"


def test_processes(inputs: Inputs) -> None:
    """Arrays on the disk, and arrays of this process."""
    compare(inputs, "processes", remove_background=False)
    mask, image, _ = inputs
    part = da.from_array(np.pad(image, 1), 9)[(slice(1, -1),) * 4]
    check(shown(mask, part, SIZE, executor="processes"), mask, image, SIZE)


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


@pytest.mark.slow
def test_dask_client(client: Any, inputs: Inputs) -> None:
    compare(inputs, None)
    compare(inputs, "dask", remove_background=False)
    compare(inputs, client.get_executor())
    mask, image, _ = inputs
    graph = da.from_array(image, 20).map_blocks(np.negative).map_blocks(np.negative)
    check(shown(mask, graph, SIZE, executor="dask"), mask, image, SIZE)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 1000, None])
def test_batches(inputs: Inputs, batch_size: int | None) -> None:
    compare(inputs, "threads", batch_size=batch_size)


@pytest.mark.parametrize("memory_limit", [1, "100MB", 2**40])
def test_limits(inputs: Inputs, memory_limit: int | str) -> None:
    """A limit below of what is taken already: the work is done one after the other."""
    compare(inputs, "threads", memory_limit=memory_limit)
    compare(inputs, "threads", memory_limit=memory_limit, remove_background=False)


@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize("remove_background", [True, False], ids=["alone", "all"])
def test_each_cell_is_handed_on_once(
    inputs: Inputs, batch_size: int | None, remove_background: bool
) -> None:
    mask, image, _ = inputs
    head = Note()
    run = InstanceRun(
        *(source_of(mask), source_of(image), SIZE, head),
        batch_size=batch_size,
        remove_background=remove_background,
        executor="threads",
    )
    found = run.find()
    rows = run.collect(found)
    seen = Counter(number for batch in head.batches for number in batch)
    assert seen == Counter(np.unique(mask[mask > 0]).tolist())
    assert rows["ids"].tolist() == sorted(seen)
    assert max(map(len, head.batches)) <= (batch_size or mask.size)
    assert min(map(len, head.batches)) >= 1
