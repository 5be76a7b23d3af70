"""Every chunk of the image is decoded once, every chunk of the mask twice: to find, to cut."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from aggregation.test_one_pass import Opened, chunk_files

from scportrait_like.raster import instance_runs, tiles
from scportrait_like.raster.instance_runs import Collected, InstanceRun
from scportrait_like.raster.sources import source_of

from .cases import Array, inside, write_zarr
from .oracle import Show, Sums, check

SIZE = 6

pytestmark = pytest.mark.usefixtures("unwatched")


@pytest.fixture(scope="module")
def opened() -> Opened:
    found = Opened()
    sys.addaudithook(found.see)  # it cannot be taken away: it does nothing outside `below`
    return found


def pixels() -> tuple[Array, Array]:
    """Labels everywhere, and an image without a zero: no chunk is left out."""
    rng = np.random.default_rng(4)
    mask = np.kron(rng.permutation(192).reshape(1, 12, 16), np.ones((4, 4, 4), int))
    return mask.astype("uint32"), rng.integers(1, 60_000, (4, *mask.shape), "uint16")


def run_of(masks: Any, images: Any, **options: Any) -> InstanceRun:
    return InstanceRun(
        *(source_of(masks), source_of(images), SIZE, Show(labels=True)),
        keep_labels=True,
        **options,
    )


CHUNKS = {
    "equal": ((1, 16, 16), (1, 1, 16, 16)),
    "different": ((1, 24, 32), (1, 1, 16, 16)),
    "channels together": ((1, 16, 16), (4, 1, 16, 24)),
    "channels by two": ((2, 16, 16), (2, 1, 16, 16)),
    "thick": ((1, 32, 32), (1, 4, 16, 16)),
    "planes": ((1, 48, 64), (1, 1, 48, 64)),
    "one": ((4, 48, 64), (4, 4, 48, 64)),
}


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("remove_background", [True, False], ids=["alone", "all"])
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_decodes(
    opened: Opened,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunks: tuple[tuple[int, ...], ...],
    remove_background: bool,
) -> None:
    mask, image = pixels()
    write_zarr(tmp_path / "mask.zarr", mask, chunks[0])
    write_zarr(tmp_path / "image.zarr", image, chunks[1])
    monkeypatch.setattr(instance_runs, "_HELD", 20_000)  # some tiles go through a file
    run = run_of(
        *(tmp_path / "mask.zarr", tmp_path / "image.zarr"),
        executor="threads",
        remove_background=remove_background,
    )
    with opened.below(tmp_path) as counts:
        plan = run.plan(run.find())
        sink = Collected(plan)
        report = run.go(plan, sink)
    decoded = {name: counts[name] for name in sorted(chunk_files(tmp_path))}
    images = {name for name in decoded if name.startswith("image.zarr")}
    assert {n: c for n, c in decoded.items() if n in images and c != 1} == {}
    assert {n: c for n, c in decoded.items() if n not in images and c != 2} == {}
    assert report.parts["chunks"] == len(images) + (len(decoded) - len(images))
    assert report.parts["bytes"] == image.nbytes + mask.nbytes
    check(sink.found, mask, image, SIZE, remove_background)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("lead", [(0, 0, 5, 9), (0, 1, 0, 0), (1, 0, 0, 0)], ids=str)
@pytest.mark.parametrize("alike", [True, False], ids=["both", "image"])
def test_decodes_of_views(
    opened: Opened, tmp_path: Path, lead: tuple[int, ...], alike: bool
) -> None:
    """A part that begins inside of a chunk, along the plane, along z, and of channels."""
    mask, image = pixels()
    images = inside(tmp_path / "image.zarr", image, (2, 2, 16, 16), lead)
    masks = inside(tmp_path / "mask.zarr", mask, (2, 16, 16), lead[1:])
    run = run_of(masks if alike else mask, images, executor="inline")
    with opened.below(tmp_path) as counts:
        found = run.collect(run.find())
    assert counts, "what was read was seen"
    most = {name: count for name, count in counts.items() if "/c/" in name}
    assert max(count for name, count in most.items() if name.startswith("image")) == 1
    assert all(count <= 2 for name, count in most.items() if name.startswith("mask"))
    assert any(name.startswith("mask") for name in most) == alike
    check(found, mask, image, SIZE)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("channels", [(3, 0), (0, 2, 1, 3), (3, 2, 1, 0)], ids=str)
def test_decodes_of_channels(opened: Opened, tmp_path: Path, channels: tuple[int, ...]) -> None:
    """Channels that share chunks, asked for in another order."""
    mask, image = pixels()
    write_zarr(tmp_path / "image.zarr", image, (2, 1, 16, 16))
    run = run_of(mask, tmp_path / "image.zarr", executor="inline", channels=channels)
    with opened.below(tmp_path) as counts:
        found = run.collect(run.find())
    assert {counts[name] for name in chunk_files(tmp_path)} == {1}
    check(found, mask, image, SIZE, channels=channels)


def test_tiles_without_cells_are_not_read(opened: Opened, tmp_path: Path) -> None:
    mask, image = pixels()
    mask[:, 8:] = 0
    mask[:, :, 8:] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_EDGE", 16)
        write_zarr(tmp_path / "image.zarr", image, (1, 1, 16, 16))
        run = run_of(mask, tmp_path / "image.zarr", executor="inline")
        with opened.below(tmp_path) as counts:
            run.collect(run.find())
    decoded = {name for name in chunk_files(tmp_path) if counts[name]}
    assert {name.split("/c/")[1].split("/", 2)[2] for name in decoded} == {"0/0"}


def test_graphs_compute_each_block_once() -> None:
    """A dask graph that is no plain zarr: each block of it is made once."""
    mask, image = pixels()
    made: list[tuple[int, ...]] = []

    def seen(block: Array, block_info: Any = None) -> Array:
        made.append(tuple(block_info[0]["chunk-location"]))
        return block

    whole = da.from_array(image, (1, 1, 24, 40)).map_blocks(seen, dtype=image.dtype, meta=image[:0])
    made.clear()
    run = run_of(da.from_array(mask, (1, 24, 32)), whole, executor="threads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_EDGE", 16)
        run.collect(run.find())
    assert len(made) == whole.npartitions
    assert len(set(made)) == whole.npartitions


@pytest.mark.parametrize("remove_background", [True, False], ids=["alone", "all"])
def test_large_chunks(opened: Opened, tmp_path: Path, remove_background: bool) -> None:
    """As the images of users are: chunks of 2048, windows of 64."""
    rng = np.random.default_rng(0)
    mask = np.kron(1 + np.arange(60 * 60).reshape(1, 60, 60), np.ones((1, 40, 40), int))
    mask = mask.astype("uint32")
    image = rng.integers(1, 9, (1, *mask.shape), "uint8")
    write_zarr(tmp_path / "mask.zarr", mask, (1, 2048, 2048))
    write_zarr(tmp_path / "image.zarr", image, (1, 1, 2048, 2048))
    run = InstanceRun(
        *(source_of(tmp_path / "mask.zarr"), source_of(tmp_path / "image.zarr"), 64, Sums()),
        remove_background=remove_background,
        executor="threads",
    )
    with opened.below(tmp_path) as counts:
        sums = run.collect(run.find())["sums"]
    decoded = {name: counts[name] for name in chunk_files(tmp_path)}
    assert {c for n, c in decoded.items() if n.startswith("image")} == {1}
    assert {c for n, c in decoded.items() if n.startswith("mask")} == {2}
    table = np.pad(image[0, 0].astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    # Cells are squares of 40 pixels that begin every 40.
    low = np.arange(0, 2400, 40)
    high = low + 40
    if not remove_background:
        centres = np.rint(low + 19.5).astype(int)
        low, high = np.maximum(centres - 32, 0), np.minimum(centres + 32, 2400)
    expected = np.diff(
        np.diff([[table[np.ix_(a, b)] for b in (low, high)] for a in (low, high)], axis=0), axis=1
    )
    assert (sums.reshape(60, 60) == expected[0, 0]).all()
