"""Lazy arrays of the featurizer: any scheduler, each chunk decoded once, slices, keys."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
from aggregation.test_one_pass import Opened, chunk_files
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.raster import lazy_instances, tiles
from scportrait_like.raster.instance_runs import InstanceRun
from scportrait_like.raster.instance_statistics import WindowHead
from scportrait_like.raster.sources import source_of
from scportrait_like.utils import Featurizer

from .cases import Array, inside, odd_labels, odd_pixels, write_zarr
from .oracle import same_bits, windows

SIZE = 9


@pytest.fixture(scope="module")
def opened() -> Opened:
    found = Opened()
    sys.addaudithook(found.see)  # it cannot be taken away: it does nothing outside `below`
    return found


@pytest.fixture(autouse=True)
def _small_tiles(small_tiles: None) -> None:
    """Small images have many tiles."""


def pixels() -> tuple[Array, Array]:
    """Labels everywhere, ids row by row, and an image without a zero: no chunk is left out."""
    rng = np.random.default_rng(4)
    mask = np.kron(1 + np.arange(480).reshape(1, 20, 24), np.ones((2, 4, 4), int))
    return mask.astype("uint32"), rng.integers(1, 60_000, (3, *mask.shape), "uint16")


def of_zarr(folder: Path, chunks: tuple[tuple[int, ...], ...]) -> tuple[Featurizer, Array, Array]:
    mask, image = pixels()
    masks = write_zarr(folder / "mask.zarr", mask, chunks[0])
    images = write_zarr(folder / "image.zarr", image, chunks[1])
    return Featurizer(da.from_zarr(masks), da.from_zarr(images)), mask, image


# Schedulers


def mean(batch: Array, embedding_dimension: int) -> Array:
    return batch.mean(axis=(2, 3, 4))[:, :embedding_dimension]


BACKINGS = {
    "numpy": lambda mask, image, folder: (mask, image),
    "blocks": lambda mask, image, folder: (
        da.from_array(mask, (1, 24, 24)),
        da.from_array(image, (2, 1, 16, 32)),
    ),
    "zarr": lambda mask, image, folder: (
        da.from_zarr(write_zarr(folder / "m.zarr", mask, (1, 24, 24))),
        da.from_zarr(write_zarr(folder / "i.zarr", image, (2, 1, 16, 32))),
    ),
    "parts of zarr": lambda mask, image, folder: (
        inside(folder / "m.zarr", mask, (2, 24, 24), (1, 5, 3)),
        inside(folder / "i.zarr", image, (2, 2, 16, 32), (1, 1, 7, 9)),
    ),
    "graph": lambda mask, image, folder: (
        da.from_array(mask, (1, 24, 24)).map_blocks(np.copy),
        da.from_array(image, (2, 1, 16, 32))[:, :, ::-1][:, :, ::-1],
    ),
}


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("backing", BACKINGS)
def test_schedulers(tmp_path: Path, backing: str, scheduler: str) -> None:
    rng = np.random.default_rng(1)
    mask, image = odd_labels(rng, (2, 41, 53), "int64"), odd_pixels(rng, (3, 2, 41, 53), "float32")
    one = Featurizer(*BACKINGS[backing](mask, image, tmp_path))
    for remove_background in (True, False):
        _, (masks, images) = one.extract_instances(SIZE, None, remove_background, extract_mask=True)
        _, expected_masks, expected = windows(mask, image, SIZE, remove_background)
        found_masks, found = dask.compute(masks, images, scheduler=scheduler)
        assert same_bits(found, expected)
        assert same_bits(found_masks, expected_masks)


def check_elsewhere(one: Featurizer, mask: Array, image: Array, **options: Any) -> None:
    """Windows, embeddings by a function that cannot be imported, and statistics."""
    _, (masks, images) = one.extract_instances(SIZE, extract_mask=True, batch_size=60)
    _, means = one.featurize(3, SIZE, model=lambda batch, embedding_dimension: mean(batch, 3))
    _, most = one.calculate_instance_statistics(5, 1, fn=lambda p: p.max(1, keepdims=True))
    _, expected_masks, expected = windows(mask, image, SIZE)
    found = dask.compute(masks, images, means, most, **options)
    assert same_bits(found[0], expected_masks)
    assert same_bits(found[1], expected)
    assert (found[2] == expected.mean((2, 3, 4)).astype(np.float32)).all()
    assert (found[3][..., 0] == expected.max((2, 3, 4))).all()


@pytest.mark.parametrize("backing", ["blocks", "zarr"])
def test_processes(tmp_path: Path, backing: str) -> None:
    mask, image = pixels()
    one = Featurizer(*BACKINGS[backing](mask, image, tmp_path))
    with dask.config.set(num_workers=2):
        check_elsewhere(one, mask, image, scheduler="processes")


@pytest.fixture
def client() -> Iterator[Any]:
    from distributed import Client

    with Client(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as client:
        yield client


@pytest.mark.slow
def test_distributed(tmp_path: Path, client: Any) -> None:
    mask, image = pixels()
    for backing in ("zarr", "blocks", "graph"):
        folder = tmp_path / backing
        folder.mkdir()
        check_elsewhere(Featurizer(*BACKINGS[backing](mask, image, folder)), mask, image)


# Decode once

CHUNKS = {
    "equal": ((1, 16, 16), (1, 1, 16, 16)),
    "different": ((1, 24, 32), (1, 1, 16, 16)),
    "channels together": ((1, 16, 16), (3, 1, 16, 24)),
    "thick": ((2, 32, 32), (1, 2, 16, 16)),
    "planes": ((1, 80, 96), (1, 1, 80, 96)),
}


@pytest.mark.parametrize("remove_background", [True, False], ids=["alone", "all"])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_decodes(
    opened: Opened,
    tmp_path: Path,
    chunks: tuple[tuple[int, ...], ...],
    scheduler: str,
    remove_background: bool,
) -> None:
    """Windows of image and mask and an embedding, computed at once: one look at each chunk."""
    one, mask, image = of_zarr(tmp_path, chunks)
    with opened.below(tmp_path) as found:
        _, both = one.extract_instances(SIZE, None, remove_background, True, batch_size=37)
    assert {found[name] for name in chunk_files(tmp_path) if name.startswith("mask")} == {1}
    assert {found[name] for name in chunk_files(tmp_path) if name.startswith("image")} == {0}
    with opened.below(tmp_path) as counts:
        masks, images = dask.compute(*both, scheduler=scheduler)
    assert {counts[name] for name in chunk_files(tmp_path)} == {1}
    _, expected_masks, expected = windows(mask, image, SIZE, remove_background)
    assert same_bits(images, expected)
    assert same_bits(masks, expected_masks)


def test_what_is_computed_together_shares_tiles(opened: Opened, tmp_path: Path) -> None:
    one, _, _ = of_zarr(tmp_path, CHUNKS["equal"])
    _, images = one.extract_instances(SIZE)
    _, means = one.featurize(3, SIZE, model=mean)
    _, most = one.calculate_instance_statistics(None, 1, SIZE)
    with opened.below(tmp_path) as counts:
        dask.compute(images, means, most)
    assert {counts[name] for name in chunk_files(tmp_path)} == {1}


def test_a_slice_reads_only_its_tiles(opened: Opened, tmp_path: Path) -> None:
    """The first three rows of cells lie in the first row of tiles, but for their windows."""
    one, mask, image = of_zarr(tmp_path, CHUNKS["equal"])
    ids, images = one.extract_instances(SIZE, batch_size=24)
    assert ids[71] == 72
    with opened.below(tmp_path) as counts:
        found = images[48:72].compute()
    assert same_bits(found, windows(mask, image, SIZE)[2][48:72])
    rows = {name.split("/")[-2] for name, count in counts.items() if count and "/c/" in name}
    assert rows == {"0"}
    with opened.below(tmp_path) as counts:
        images[3].compute()
    places = {name.split("/c/")[1] for name, count in counts.items() if count and "/c/" in name}
    assert {place.split("/")[-2] for place in places} == {"0"}


def test_only_the_mask_is_read_for_masks(opened: Opened, tmp_path: Path) -> None:
    one, _, _ = of_zarr(tmp_path, CHUNKS["equal"])
    with opened.below(tmp_path) as counts:
        _, masks = one.extract_instances(SIZE, extract_mask=True, extract_image=False)
        masks.compute()
        one.radii_and_principal_axes(SIZE)
    files = chunk_files(tmp_path)
    assert {counts[name] for name in files if name.startswith("image")} == {0}
    assert {counts[name] for name in files if name.startswith("mask")} == {3}


def test_graphs_compute_each_block_once() -> None:
    """A dask graph that is no plain zarr: each block of it is made once."""
    mask, image = pixels()
    made: Counter[tuple[int, ...]] = Counter()

    def seen(block: Array, block_info: Any = None) -> Array:
        made[tuple(block_info[0]["chunk-location"])] += 1
        return block

    whole = da.from_array(image, (1, 1, 40, 48)).map_blocks(seen, dtype=image.dtype, meta=image[:0])
    made.clear()
    _, images = Featurizer(da.from_array(mask, (1, 40, 24)), whole).extract_instances(SIZE)
    assert not made
    assert same_bits(images.compute(), windows(mask, image, SIZE)[2])
    assert len(made) == whole.npartitions
    assert set(made.values()) == {1}


# Keys and blocks


def test_equal_calls_give_equal_keys(tmp_path: Path) -> None:
    mask, image = pixels()
    for folder, backing in ((tmp_path / name, BACKINGS[name]) for name in ("blocks", "zarr")):
        folder.mkdir()
        arrays = backing(mask, image, folder)
        first, second = Featurizer(*arrays), Featurizer(*arrays)
        for call in (
            lambda one: one.extract_instances(SIZE)[1],
            lambda one: one.featurize(3, SIZE, model=mean)[1],
            lambda one: one.calculate_instance_statistics(4, 1)[1],
        ):
            assert call(first).name == call(second).name
            assert set(call(first).dask) == set(call(second).dask)


def test_whatever_changes_the_result_changes_the_keys() -> None:
    mask, image = pixels()
    one = Featurizer(mask, image)
    arrays = [
        one.extract_instances(SIZE)[1],
        one.extract_instances(SIZE + 1)[1],
        one.extract_instances(SIZE, remove_background=False)[1],
        one.extract_instances(SIZE, batch_size=3)[1],
        *one.extract_instances(SIZE, extract_mask=True)[1],
        one.extract_instances(SIZE, extract_mask=True, extract_image=False)[1],
        Featurizer(mask, image + 1).extract_instances(SIZE)[1],
        Featurizer(np.where(mask == 1, 0, mask), image).extract_instances(SIZE)[1],
        one.featurize(3, SIZE, model=mean)[1],
        one.featurize(2, SIZE, model=mean)[1],
        one.featurize(3, SIZE, model=mean, dtype="float64")[1],
        *(
            one.featurize(
                3, SIZE, model=lambda batch, embedding_dimension, k=k: mean(batch, 3) + k
            )[1]
            for k in range(2)
        ),
    ]
    assert len({array.name for array in arrays}) == len(arrays)


def test_blocks_follow_bytes_and_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, image = pixels()
    one = Featurizer(mask, image)
    found = one.extract_instances(SIZE)[1]
    n_tiles = sum(key[0].startswith("cut-instances") for key in found.dask if len(key) == 2)
    assert n_tiles > 10
    assert found.chunks[0][0] == -(-480 // n_tiles)
    window = (1 + 3 * 2) * 2 * SIZE**2
    monkeypatch.setattr(lazy_instances, "BLOCK_BYTES", 5 * window)
    assert one.extract_instances(SIZE)[1].chunks[0][0] == 5
    monkeypatch.setattr(lazy_instances, "BLOCK_BYTES", 1)
    assert one.extract_instances(SIZE)[1].chunks[0][0] == 1


def pickled(array: da.Array) -> int:
    """Bytes of all tasks, each by itself."""
    return sum(len(cloudpickle.dumps(task)) for task in dict(array.dask).values())


def test_a_task_carries_the_pixels_of_its_tile() -> None:
    rng = np.random.default_rng(0)
    mask = np.kron(1 + np.arange(900).reshape(1, 30, 30), np.ones((1, 16, 16), int))
    image = rng.integers(1, 9, (2, *mask.shape), "uint32")
    graph = [da.from_array(array, 60).map_blocks(np.copy) for array in (mask, image)]
    for arrays in ((mask, image), graph):
        _, images = Featurizer(*arrays).extract_instances(SIZE, batch_size=30)
        assert pickled(images) < 2 * (mask.nbytes + image.nbytes)


def test_a_head_stands_in_the_graph_once() -> None:
    mask, image = pixels()
    weights = np.random.default_rng(0).random(1 << 15)

    def model(batch: Array, embedding_dimension: int) -> Array:
        return batch.mean(axis=(2, 3, 4))[:, :embedding_dimension] * weights[0]

    one = Featurizer(mask, image)
    _, found = one.featurize(3, SIZE, model=model)
    assert len(found.chunks[0]) > 9
    assert pickled(found) - pickled(one.featurize(3, SIZE)[1]) < 1.5 * weights.nbytes


def test_lazy_arrays_pickle() -> None:
    mask, image = pixels()
    _, images = Featurizer(mask, image).extract_instances(SIZE)
    again = pickle.loads(pickle.dumps(images))
    assert again.name == images.name
    assert same_bits(again.compute(), windows(mask, image, SIZE)[2])


# Any input


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_chunks_sizes_and_blocks(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000), "seed"))
    shape = tuple(data.draw(st.integers(1, n), "edge") for n in (3, 50, 60))
    n_channels = data.draw(st.integers(1, 3), "channels")
    mask = odd_labels(rng, shape, data.draw(st.sampled_from(["int16", "uint64"]), "mask"))
    dtype = data.draw(st.sampled_from(["uint8", "float64", "int64"]), "image")
    image = odd_pixels(rng, (n_channels, *shape), dtype)
    chunks = [tuple(int(rng.integers(1, n + 1)) for n in array.shape) for array in (mask, image)]
    plain = data.draw(st.booleans(), "plain")
    arrays = [
        da.from_array(array, chunk) if plain else da.from_array(array, chunk).map_blocks(np.copy)
        for array, chunk in zip((mask, image), chunks, strict=True)
    ]
    size = data.draw(st.integers(1, 80), "size")
    remove_background = data.draw(st.booleans(), "remove_background")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_EDGE", data.draw(st.sampled_from([8, 16, 64]), "tile"))
        ids, (masks, images) = Featurizer(*arrays).extract_instances(
            *(size, None, remove_background, True),
            batch_size=data.draw(st.sampled_from([None, 1, 3, 100]), "batch_size"),
        )
        found_masks, found = dask.compute(masks, images, scheduler="synchronous")
    expected_ids, expected_masks, expected = windows(mask, image, size, remove_background)
    assert (ids.astype(np.int64) == expected_ids).all()
    assert same_bits(found, expected)
    assert same_bits(found_masks, expected_masks)


def test_some_labels_only() -> None:
    mask, image = pixels()
    made = {"image": lazy_instances.Made((3, 2, SIZE, SIZE), image.dtype)}
    run = InstanceRun(source_of(mask), source_of(image), SIZE, WindowHead(), batch_size=4)
    found = run.find()
    some = found.of(found.ids[[3, 77, 78, 200, 479]], "the mask")
    arrays = [lazy_instances.lazy_arrays(run, each, made, "pixels") for each in (found, some)]
    whole, part = (each["image"] for each in arrays)
    assert part.chunks[0] == (4, 1)
    assert part.name != whole.name
    assert same_bits(part.compute(), whole.compute()[[3, 77, 78, 200, 479]])
