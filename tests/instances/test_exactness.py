"""Windows equal those of plain numpy, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.errors import InputError
from scportrait_like.raster import instance_runs, tiles
from scportrait_like.raster.instance_runs import InstanceRun
from scportrait_like.raster.sources import SelectSource, source_of, view

from .cases import IMAGE_DTYPES, MASK_DTYPES, inside, odd_labels, odd_pixels, write_zarr
from .oracle import OwnPixels, Show, check, shown

pytestmark = pytest.mark.usefixtures("small_tiles", "unwatched")
BOTH = pytest.mark.parametrize("remove_background", [True, False], ids=["alone", "all"])
SHAPE = (2, 39, 50)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


# Dtypes


@BOTH
@pytest.mark.parametrize("dtype", MASK_DTYPES)
def test_masks_of_any_dtype(rng: np.random.Generator, dtype: str, remove_background: bool) -> None:
    mask, image = odd_labels(rng, SHAPE, dtype), odd_pixels(rng, (2, *SHAPE), "uint16")
    found = shown(mask, image, 14, remove_background=remove_background)
    check(found, mask, image, 14, remove_background)
    if mask.dtype.itemsize == 8:
        assert found["ids"][-1] == 2**63 - 1
        assert (found["ids"] > 2**32).sum() > 2


@BOTH
@pytest.mark.parametrize("dtype", IMAGE_DTYPES)
def test_images_of_any_dtype(rng: np.random.Generator, dtype: str, remove_background: bool) -> None:
    mask, image = odd_labels(rng, SHAPE, "uint32"), odd_pixels(rng, (2, *SHAPE), dtype)
    if image.dtype.kind == "f":
        assert np.isnan(image[:, mask != 0]).any()
        assert np.isinf(image[:, mask != 0]).any()
    found = shown(mask, image, 15, remove_background=remove_background)
    check(found, mask, image, 15, remove_background)
    assert found["image"].dtype.isnative


# Where windows lie


@BOTH
@pytest.mark.parametrize("size", [1, 2, 3, 8, 15, 16, 17, 40, 200])
def test_diameters(rng: np.random.Generator, size: int, remove_background: bool) -> None:
    """Smaller than labels, larger than tiles, larger than the image."""
    shape = (1, 35, 50)
    mask, image = odd_labels(rng, shape, "uint16"), odd_pixels(rng, (2, *shape), "float32")
    check(
        shown(mask, image, size, remove_background=remove_background),
        *(mask, image, size, remove_background),
    )


@BOTH
@pytest.mark.parametrize("size", [1, 4, 5])
def test_a_label_at_every_pixel(
    rng: np.random.Generator, size: int, remove_background: bool
) -> None:
    """At every border of the image, beside every border and corner of tiles; no background."""
    mask = 1 + rng.permutation(35 * 34).reshape(1, 35, 34).astype("uint16")
    image = odd_pixels(rng, (1, *mask.shape), "uint8")
    check(
        shown(mask, image, size, remove_background=remove_background),
        *(mask, image, size, remove_background),
    )


@pytest.mark.parametrize("size", [4, 5])
def test_centres_are_rounded_half_to_even(size: int) -> None:
    mask = np.zeros((1, 12, 40), "uint8")
    mask[0, 5, 4:6] = 1  # x = 4.5
    mask[0, 5, 9:11] = 2  # x = 9.5
    mask[0, 2:4, 20] = 3  # y = 2.5
    mask[0, 3:5, 30] = 4  # y = 3.5
    image = np.arange(mask.size, dtype="uint16").reshape(1, *mask.shape)
    run = InstanceRun(source_of(mask), source_of(image), size, Show(), executor="inline")
    assert run.find().centres.tolist() == [[5, 4], [5, 10], [2, 20], [4, 30]]
    check(shown(mask, image, size), mask, image, size)


@BOTH
def test_pieces_outside_of_the_window(rng: np.random.Generator, remove_background: bool) -> None:
    """Nothing of a label lies in its window, which is on a corner of four tiles."""
    mask = np.zeros((1, 48, 48), "int32")
    mask[0, [14, 14, 17, 17], [0, 31, 0, 31]] = 70_000
    mask[0, [0, 40], [0, 40]] = 3
    image = odd_pixels(rng, (1, *mask.shape), "int16")
    found = shown(mask, image, 6, remove_background=remove_background)
    check(found, mask, image, 6, remove_background)
    assert not found["own"].any()
    assert found["image"].any() != remove_background


@BOTH
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 40), (3, 40, 1), (1, 33, 33)])
def test_one_label_everywhere(
    rng: np.random.Generator, shape: tuple[int, int, int], remove_background: bool
) -> None:
    mask = np.full(shape, 2**40, "int64")
    image = odd_pixels(rng, (2, *shape), "float16")
    for size in (1, 7, 64):
        check(
            shown(mask, image, size, remove_background=remove_background),
            *(mask, image, size, remove_background),
        )


def test_no_label() -> None:
    mask = np.zeros((2, 20, 20), "uint8")
    run = InstanceRun(source_of(mask), source_of(mask[None]), 5, Show(), executor="inline")
    found = run.find()
    assert len(found.ids) == 0
    assert found.centres.shape == (0, 2)
    assert run.collect(found) == {}
    assert run.plan(found).units == []


def test_no_image(rng: np.random.Generator) -> None:
    mask = odd_labels(rng, SHAPE, "uint16")
    for remove_background in (True, False):
        found = shown(mask, None, 13, remove_background=remove_background)
        check(found, mask, None, 13, remove_background)


@pytest.mark.parametrize("seed", range(3))
def test_own_pixels(seed: int) -> None:
    """A cell's own pixels inside its window, also of cells on borders of tiles."""
    rng = np.random.default_rng(seed)
    mask, image = odd_labels(rng, SHAPE, "uint16"), odd_pixels(rng, (3, *SHAPE), "int32")
    for remove_background in (True, False):
        run = InstanceRun(
            *(source_of(mask), source_of(image), 11, OwnPixels()),
            remove_background=remove_background,
            executor="inline",
        )
        found = run.collect(run.find())["own"]
        own, pixels = (shown(mask, image, 11)[name] for name in ("own", "image"))
        assert (found[:, :, 0] == own.sum((1, 2, 3, 4))[:, None]).all()
        assert (found[:, :, 1] == pixels.sum((2, 3, 4), dtype=np.int64)).all()


def test_some_of_the_labels(rng: np.random.Generator) -> None:
    mask, image = odd_labels(rng, SHAPE, "uint32"), odd_pixels(rng, (1, *SHAPE), "uint8")
    run = InstanceRun(source_of(mask), source_of(image), 9, Show(), executor="inline")
    found = run.find()
    everything = run.collect(found)["image"]
    rows = np.sort(rng.permutation(len(found.ids))[:9])
    some = run.collect(found.of(rng.permutation(found.ids[rows]), "the mask"))
    assert (some["ids"] == found.ids[rows]).all()
    assert (some["image"] == everything[rows]).all()
    absent = np.setdiff1d(np.arange(1, 60), found.ids)[:12]
    with pytest.raises(InputError, match=rf"cells\.zarr holds no label {absent[0]}, .* and others"):
        found.of(absent, "cells.zarr")


# Chunks and tiles


ZARR = {
    "equal": ((1, 16, 16), (1, 1, 16, 16)),
    "different": ((1, 24, 9), (2, 1, 16, 16)),
    "small in large": ((2, 7, 50), (1, 2, 32, 20)),
    "coprime": ((1, 11, 13), (3, 1, 17, 19)),
    "thick": ((3, 16, 32), (1, 3, 16, 16)),
    "thin in thick": ((1, 16, 16), (2, 2, 16, 32)),
    "lines": ((1, 1, 50), (1, 1, 39, 2)),
    "whole": ((3, 39, 50), (3, 3, 39, 50)),
}


@BOTH
@pytest.mark.parametrize("chunks", ZARR.values(), ids=ZARR)
def test_zarr(
    rng: np.random.Generator,
    tmp_path: Path,
    chunks: tuple[tuple[int, ...], ...],
    remove_background: bool,
) -> None:
    mask, image = odd_labels(rng, (3, 39, 50), "uint16"), odd_pixels(rng, (3, 3, 39, 50), "uint16")
    arrays = [
        write_zarr(tmp_path / name, pixels, edges)
        for name, pixels, edges in zip("mi", (mask, image), chunks, strict=True)
    ]
    found = shown(*arrays, 18, remove_background=remove_background)
    check(found, mask, image, 18, remove_background)


LEADS = {
    "image": ((0, 0, 0), (1, 1, 5, 9)),
    "mask": ((1, 3, 11), (0, 0, 0, 0)),
    "alike": ((1, 5, 9), (1, 1, 5, 9)),
    "unlike": ((1, 5, 9), (1, 3, 15, 2)),
    "whole chunks": ((2, 16, 32), (2, 2, 16, 16)),
}


@BOTH
@pytest.mark.parametrize("leads", LEADS.values(), ids=LEADS)
def test_views_that_begin_inside_a_chunk(
    rng: np.random.Generator,
    tmp_path: Path,
    leads: tuple[tuple[int, ...], tuple[int, ...]],
    remove_background: bool,
) -> None:
    mask, image = odd_labels(rng, (3, 39, 50), "uint32"), odd_pixels(rng, (3, 3, 39, 50), "uint8")
    masks = inside(tmp_path / "m", mask, (2, 16, 16), leads[0])
    images = inside(tmp_path / "i", image, (2, 2, 16, 16), leads[1])
    assert type(source_of(images)).__name__ == "ViewSource", "or dask reads it"
    found = shown(masks, images, 18, remove_background=remove_background)
    check(found, mask, image, 18, remove_background)


@pytest.mark.parametrize("planes", [(0, 1), (6, 3), (5, 5), (7, 2), (2, 11)], ids=str)
def test_some_planes_of_thick_chunks(
    rng: np.random.Generator, tmp_path: Path, planes: tuple[int, int]
) -> None:
    """Planes that begin inside a chunk, and end there or in another one."""
    first, count = planes
    shape = (count, 20, 24)
    mask, image = odd_labels(rng, shape, "uint16"), odd_pixels(rng, (1, *shape), "uint8")
    masks = inside(tmp_path / "m", mask, (8, 16, 16), (first, 0, 0))
    images = inside(tmp_path / "i", image, (1, 8, 16, 16), (0, first, 0, 0))
    check(shown(masks, images, 9), mask, image, 9)


DASK = {
    "irregular": (((2,), (9, 12, 18), (30, 20)), ((1, 2), (1, 1), (20, 1, 18), (3, 4, 43))),
    "single pixels along y": (((1, 1), (1,) * 39, (50,)), ((3,), (2,), (39,), (25, 25))),
    "one block": (((2,), (39,), (50,)), ((3,), (2,), (39,), (50,))),
}


@pytest.mark.parametrize("chunks", DASK.values(), ids=DASK)
def test_graphs(rng: np.random.Generator, chunks: tuple[Any, Any]) -> None:
    """Dask arrays that compute, with blocks of any lengths."""
    mask, image = odd_labels(rng, SHAPE, "int64"), odd_pixels(rng, (3, *SHAPE), "float32")
    masks = da.from_array(mask, chunks[0]).map_blocks(np.copy)
    images = da.from_array(image, chunks[1]).map_blocks(np.copy)
    check(shown(masks, images, 18, executor="threads"), mask, image, 18)


VIEWS = {
    "reversed": lambda a: np.ascontiguousarray(a[..., ::-1, ::-1])[..., ::-1, ::-1],
    "steps": lambda a: np.repeat(np.repeat(a, 2, -1), 3, -2)[..., ::3, ::2],
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2),
    "fortran": np.asfortranarray,
    "unaligned": lambda a: (
        np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    ),
}


@pytest.mark.parametrize("layout", VIEWS.values(), ids=VIEWS)
def test_layouts_in_memory(rng: np.random.Generator, layout: Any) -> None:
    mask, image = odd_labels(rng, SHAPE, "uint32"), odd_pixels(rng, (2, *SHAPE), "uint16")
    check(shown(layout(mask), layout(image), 18), mask, image, 18)


def test_views_of_arrays_in_memory(rng: np.random.Generator) -> None:
    """Planes as volumes, in the way of the callers: new axes, and one channel of several."""
    mask, image = odd_labels(rng, (1, 39, 50), "uint32"), odd_pixels(rng, (3, 39, 50), "uint16")
    every = slice(None)
    planes = view(source_of(image), (every, None, every, every))
    labels = view(source_of(mask[0]), (None, every, every))
    check(shown(labels, planes, 18), mask, image[:, None], 18)


@pytest.mark.parametrize("channels", [(2, 0, 4), (4, 3, 2, 1, 0), (1,), (3, 3)])
@pytest.mark.parametrize("together", [1, 2, 5])
def test_channels_in_any_order(
    rng: np.random.Generator, tmp_path: Path, channels: tuple[int, ...], together: int
) -> None:
    mask, image = odd_labels(rng, (1, 39, 50), "uint16"), odd_pixels(rng, (5, 1, 39, 50), "uint8")
    path = write_zarr(tmp_path / "i", image, (together, 1, 16, 16))
    check(shown(mask, path, 10, channels=channels), mask, image, 10, channels=channels)
    chosen = SelectSource(source_of(path), channels)
    check(shown(mask, chosen, 10), mask, image, 10, channels=channels)


# How the work is cut


@BOTH
@pytest.mark.parametrize("held", [0, 2000, 1 << 30])
def test_boxes_in_memory_or_in_a_file(
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    held: int,
    remove_background: bool,
) -> None:
    mask, image = odd_labels(rng, SHAPE, "uint16"), odd_pixels(rng, (3, *SHAPE), "float16")
    monkeypatch.setattr(instance_runs, "_HELD", held)
    monkeypatch.setattr(tiles, "TILE_EDGE", 40)
    for batch_size in (1, 3, 1000):
        found = shown(mask, image, 18, remove_background=remove_background, batch_size=batch_size)
        check(found, mask, image, 18, remove_background)


@BOTH
@pytest.mark.parametrize("pixels", [1, 300, 5000])
def test_second_stages_of_any_size(
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    pixels: int,
    remove_background: bool,
) -> None:
    mask, image = odd_labels(rng, SHAPE, "uint16"), odd_pixels(rng, (3, *SHAPE), "float16")
    monkeypatch.setattr(instance_runs, "JOIN_PIXELS", pixels)
    found = shown(mask, image, 18, remove_background=remove_background, executor="threads")
    check(found, mask, image, 18, remove_background)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 60), st.integers(1, 60)),
    tile=st.sampled_from([8, 16, 40]),
    size=st.integers(1, 50),
    batch_size=st.sampled_from([None, 1, 4]),
    held=st.sampled_from([0, 1 << 30]),
    remove_background=st.booleans(),
    data=st.data(),
)
def test_anything(
    seed: int,
    shape: tuple[int, int, int],
    tile: int,
    size: int,
    batch_size: int | None,
    held: int,
    remove_background: bool,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(seed)
    dtype = data.draw(st.sampled_from(MASK_DTYPES))
    mask = odd_labels(rng, shape, dtype)
    image = odd_pixels(rng, (2, *shape), data.draw(st.sampled_from(IMAGE_DTYPES)))
    chunks = data.draw(st.tuples(*[st.integers(1, max(1, n // 2)) for n in shape]))
    leads = data.draw(st.tuples(*[st.integers(0, 5) for _ in range(3)]))
    wide = np.pad(image, [(0, 0), *[(before, 2) for before in leads]], constant_values=1)
    part = tuple(slice(before, -2) for before in leads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_EDGE", tile)
        patch.setattr(instance_runs, "_HELD", held)
        found = shown(
            da.from_array(mask, chunks[::-1] if max(chunks) < min(shape) else chunks),
            _Chunked.of(wide, (1, *chunks), (slice(None), *part)),
            size,
            remove_background=remove_background,
            batch_size=batch_size,
        )
    check(found, mask, image, size, remove_background)


class _Chunked:
    """A part of an array in memory that says to lie in chunks, from the whole's begin."""

    def __init__(self, pixels: Any, chunks: tuple[int, ...]) -> None:
        self.pixels, self.chunks = pixels, chunks
        self.shape, self.dtype = pixels.shape, pixels.dtype

    @classmethod
    def of(cls, pixels: Any, chunks: tuple[int, ...], part: tuple[slice, ...]) -> Any:
        return view(cls(pixels, chunks), part)

    def read(self, region: tuple[slice, ...]) -> Any:
        found = self.pixels[region]
        wanted = tuple(part.stop - part.start for part in region)
        assert found.shape == wanted, "a region that reaches outside"
        return found
