"""Raster elements written by chunks: pixels against numpy, metadata against spatialdata's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import spatialdata
import zarr
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity, Scale, get_transformation

from scportrait_like import names
from scportrait_like.errors import InputError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.pyramids import chunk_regions, halve_image, plan_raster, write_region

from .helpers import image_pixels, read, without_codecs

Array = np.ndarray[Any, Any]


def everywhere(pixels: Array) -> tuple[slice, ...]:
    return (slice(None),) * pixels.ndim


def write(handler: FileHandler, name: str, kind: str, pixels: Array, **options: Any) -> None:
    with handler.raster_writer(name, kind, pixels.shape, pixels.dtype, **options) as writer:
        writer.write(everywhere(pixels), pixels)


def levels_of(handler: FileHandler, name: str) -> list[Array]:
    count = len(handler.level_paths(name))
    return [np.asarray(handler.open_array(name, level)[...]) for level in range(count)]


def mean_by_hand(fine: Array) -> Array:
    """Pixel by pixel, in plain Python."""
    *others, height, width = fine.shape
    out = np.empty((*others, -(-height // 2), -(-width // 2)), fine.dtype)
    for index in np.ndindex(*others):
        for y in range(out.shape[-2]):
            for x in range(out.shape[-1]):
                block = fine[index][2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                mean = sum(float(v) for v in block.ravel()) / block.size
                out[(*index, y, x)] = round(mean) if fine.dtype.kind in "iu" else mean
    return out


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(2, 2), (1, 1), (1, 7), (7, 1), (5, 6), (6, 5), (131, 37)])
def test_mean_of_blocks(dtype: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    fine = (rng.normal(0, 90, (2, *shape))).astype(dtype)
    rounding = 1e-13 if dtype == "float64" else 0
    np.testing.assert_allclose(halve_image(fine), mean_by_hand(fine), rtol=0, atol=rounding)


def test_mean_keeps_the_ends_of_each_dtype() -> None:
    for dtype in (np.uint8, np.int16, np.uint32, np.int64, np.uint64):
        ends = np.iinfo(dtype)
        for value in (ends.min, ends.max):
            out = halve_image(np.full((2, 2), value, dtype))
            # Beyond 2**53 float64 has no neighbour that is nearer.
            assert abs(int(out[0, 0]) - value) < (2048 if ends.bits == 64 else 1)
    assert halve_image(np.ones((3, 3), bool)).all()
    half = halve_image(np.array([[0, 1], [1, 0], [3, 2], [2, 3]], np.uint8))
    assert half.tolist() == [[0], [2]]  # halves go to the even neighbour


@pytest.mark.parametrize("shape", [(2, 64, 64), (1, 63, 101), (3, 130, 7), (1, 1, 1), (2, 1, 90)])
@pytest.mark.parametrize("chunk", [16, 9, 1000])
def test_image_pyramid(tmp_path: Path, monkeypatch: Any, shape: Any, chunk: int) -> None:
    monkeypatch.setattr(names, "PYRAMID_SMALLEST", 8)
    handler, pixels = FileHandler(tmp_path), image_pixels(3, shape)
    write(handler, "image", "images", pixels, chunks=(1, chunk, chunk))
    levels = levels_of(handler, "image")
    assert max(levels[-1].shape[1:]) <= 8
    expected = pixels
    for level in levels:
        np.testing.assert_array_equal(level, expected)
        expected = mean_by_hand(expected)
    whole = handler.sdata["image"]
    level0 = whole["scale0"]["image"] if len(levels) > 1 else whole
    np.testing.assert_array_equal(level0.data.compute(), pixels)


@pytest.mark.parametrize("shape", [(64, 64), (63, 101), (130, 7), (1, 2)])
def test_labels_pyramid(tmp_path: Path, monkeypatch: Any, shape: Any) -> None:
    monkeypatch.setattr(names, "PYRAMID_SMALLEST", 8)
    pixels = np.random.default_rng(1).integers(0, 2**63, shape, dtype=np.uint64)
    handler = FileHandler(tmp_path)
    write(handler, "cells", "labels", pixels, chunks=(16, 16))
    expected = pixels
    for level in levels_of(handler, "cells"):
        np.testing.assert_array_equal(level, expected)
        expected = expected[::2, ::2]


def test_three_dimensions(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(names, "PYRAMID_SMALLEST", 8)
    pixels = np.random.default_rng(1).integers(0, 99, (2, 5, 33, 20), dtype=np.uint16)
    handler = FileHandler(tmp_path)
    write(handler, "stack", "images", pixels, channel_names=["a", "b"])
    write(handler, "cells", "labels", pixels[0])
    np.testing.assert_array_equal(levels_of(handler, "stack")[1], mean_by_hand(pixels))
    np.testing.assert_array_equal(levels_of(handler, "cells")[1], pixels[0, :, ::2, ::2])
    assert handler.sdata["stack"]["scale0"]["image"].dims == ("c", "z", "y", "x")


def test_level_shapes() -> None:
    def count(*shape: int, pyramid: bool = True) -> int:
        return len(plan_raster("labels", shape, "u4", pyramid=pyramid).level_shapes())

    assert [count(1, 1), count(1, 2), count(700, 700), count(1024, 1024)] == [1, 2, 2, 2]
    assert [count(2048, 2048), count(2049, 2048), count(262144, 5)] == [2, 3, 9]
    assert count(5000, 5000, pyramid=False) == 1
    image = plan_raster("images", (2, 4097, 3000), "u2")
    assert image.level_shapes()[1:] == [(2, 2049, 1500), (2, 1025, 750), (2, 513, 375)]
    assert image.chunks == (1, names.CHUNK, names.CHUNK)


TRANSFORMS = {"global": Identity(), "micrometer": Scale([0.325, 0.325], ("y", "x"))}
CHANNELS = ["DAPI", "α-Tubulin (é)", "x" * 300]


def written_by_spatialdata(path: Path, kind: str, pixels: Array) -> Path:
    """The same element through spatialdata alone."""
    if kind == "images":
        element = Image2DModel.parse(
            pixels, c_coords=CHANNELS, scale_factors=[2, 2], transformations=TRANSFORMS
        )
    else:
        element = Labels2DModel.parse(pixels, scale_factors=[2, 2], transformations=TRANSFORMS)
    spatialdata.SpatialData.init_from_elements({"element": element}).write(path)
    return path


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_metadata_are_those_of_spatialdata(tmp_path: Path, monkeypatch: Any, kind: str) -> None:
    monkeypatch.setattr(names, "PYRAMID_SMALLEST", 32)
    shape = (3, 128, 96) if kind == "images" else (128, 96)
    pixels = np.random.default_rng(0).integers(0, 60000, shape, dtype=np.uint16)
    theirs = written_by_spatialdata(tmp_path / "theirs.zarr", kind, pixels)
    handler = FileHandler(tmp_path / "ours")
    channels = CHANNELS if kind == "images" else None
    write(handler, "element", kind, pixels, channel_names=channels, transforms=TRANSFORMS)
    their_files = sorted(path.relative_to(theirs) for path in theirs.rglob("zarr.json"))
    assert their_files == sorted(
        p.relative_to(handler.path) for p in handler.path.rglob("zarr.json")
    )
    for file in their_files[:-1]:
        ours = read(handler.path / file)
        ours["attributes"].pop(names.ATTRS_KEY, None)
        assert without_codecs(ours) == without_codecs(read(theirs / file))
        # Ours are the same codecs, at another level.
        kinds = [[c["name"] for c in at.get("codecs", ())] for at in (ours, read(theirs / file))]
        assert kinds[0] == kinds[1]
    assert (
        read(handler.path / "zarr.json")["attributes"] == read(theirs / "zarr.json")["attributes"]
    )
    ours_element = spatialdata.read_zarr(handler.path)["element"]
    theirs_element = spatialdata.read_zarr(theirs)["element"]
    found = get_transformation(ours_element, get_all=True)
    assert found == get_transformation(theirs_element, get_all=True)
    for scale in theirs_element:
        ours_level, theirs_level = ours_element[scale]["image"], theirs_element[scale]["image"]
        assert ours_level.shape == theirs_level.shape
        for axis in theirs_level.coords:
            np.testing.assert_array_equal(ours_level.coords[axis], theirs_level.coords[axis])


def test_metadata_of_odd_sizes_survive_spatialdata(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(names, "PYRAMID_SMALLEST", 16)
    handler = FileHandler(tmp_path)
    write(handler, "element", "images", image_pixels(1, (2, 101, 67)), transforms=TRANSFORMS)
    spatialdata.read_zarr(handler.path).write(tmp_path / "again.zarr")
    again = read(tmp_path / "again.zarr" / "images" / "element" / "zarr.json")
    ours = read(handler.path / "images" / "element" / "zarr.json")
    assert ours["attributes"]["ome"] == again["attributes"]["ome"]


def test_channel_names_are_kept_whole(tmp_path: Path) -> None:
    handler = FileHandler(tmp_path)
    write(handler, "image", "images", image_pixels(1, (3, 9, 9)), channel_names=CHANNELS)
    write(handler, "unnamed", "images", image_pixels(1, (4, 9, 9)))
    assert handler.channel_names("image") == CHANNELS
    assert handler.sdata["image"]["scale0"]["image"].coords["c"].values.tolist() == CHANNELS
    assert handler.channel_names("unnamed") == [f"channel_{i}" for i in range(4)]


def test_ome_zarr_reads_it(tmp_path: Path) -> None:
    """What napari's reader is made of."""
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    handler, pixels = FileHandler(tmp_path), image_pixels(1)
    write(handler, "image", "images", pixels, channel_names=["a", "b"])
    location = parse_url(handler.element_path("image"))
    assert location is not None
    (node,) = Reader(location)()
    np.testing.assert_array_equal(np.asarray(node.data[0]), pixels)
    assert len(node.data) == 2
    assert [axis["name"] for axis in node.metadata["axes"]] == ["c", "y", "x"]


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "options", "told"),
    [
        ("images", (5, 5), "u2", {}, "(c, y, x)"),
        ("points", (5, 5), "u2", {}, "points"),
        ("labels", (0, 5), "u2", {}, "no pixels"),
        ("labels", (5, 5), "f4", {}, "float32"),
        ("images", (1, 5, 5), "c8", {}, "complex64"),
        ("images", (1, 5, 5), "u2", {"chunks": (5, 5)}, "Chunks"),
        ("images", (1, 5, 5), "u2", {"chunks": (0, 5, 5)}, "Chunks"),
        ("images", (2, 5, 5), "u2", {"channel_names": ["a"]}, "1 channel names for 2"),
        ("images", (3, 5, 5), "u2", {"channel_names": ["a", "b", "a"]}, "['a']"),
        ("labels", (5, 5), "u2", {"channel_names": ["a"]}, "no channels"),
    ],
)
def test_refused(
    tmp_path: Path, kind: str, shape: Any, dtype: str, options: Any, told: str
) -> None:
    with (
        pytest.raises(InputError) as caught,
        FileHandler(tmp_path / "p").raster_writer("name", kind, shape, dtype, **options),
    ):
        pass
    assert told in str(caught.value)
    assert not (tmp_path / "p").exists()


def test_big_endian_pixels(tmp_path: Path) -> None:
    handler, pixels = FileHandler(tmp_path), image_pixels(1).astype(">u2")
    write(handler, "image", "images", pixels)
    assert handler.open_array("image").dtype == np.dtype("<u2")
    np.testing.assert_array_equal(handler.open_array("image")[...], pixels)


@pytest.mark.parametrize("dtype", ["?", "i1", "u4", "i8", "u8", "f2", "f4", "f8"])
def test_dtypes_are_kept(tmp_path: Path, dtype: str) -> None:
    handler, pixels = FileHandler(tmp_path), image_pixels(1, (1, 5, 7)).astype(dtype)
    write(handler, "image", "images", pixels)
    found = handler.sdata["image"]["scale0"]["image"].data.compute()
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_written_in_parallel(tmp_path: Path, monkeypatch: Any, pool: str) -> None:
    monkeypatch.setattr(names, "PYRAMID_SMALLEST", 64)
    handler, pixels = FileHandler(tmp_path / "a#b"), image_pixels(5, (2, 300, 411))
    executor: Any = ThreadPoolExecutor(4)
    if pool == "processes":
        executor = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    chunks = (1, 128, 128)
    with (
        executor,
        handler.raster_writer("image", "images", pixels.shape, "u2", chunks=chunks) as writer,
    ):
        regions = [
            tuple(slice(*cut) for cut in region) for region in chunk_regions(pixels.shape, chunks)
        ]
        futures = [
            executor.submit(write_region, writer.levels[0], region, pixels[region])
            for region in regions
        ]
        for future in futures:
            future.result()
        writer.build_pyramid(executor.map)
    expected = pixels
    for level in levels_of(handler, "image"):
        np.testing.assert_array_equal(level, expected)
        expected = halve_image(expected)


def test_workers_import_neither_spatialdata_nor_dask() -> None:
    script = "import sys, scportrait_like.filehandler, scportrait_like.io.pyramids as p, zarr\n"
    script += "print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"spatialdata", "dask", "anndata", "pandas", "xarray"} & set(run.stdout.split())


class PeakMemory:
    """The largest growth of this process's resident memory within the block, in bytes."""

    def __enter__(self) -> PeakMemory:
        self._process = psutil.Process(os.getpid())
        self.before = self.peak = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.peak = max(self.peak, self._process.memory_info().rss)
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self.peak - self.before


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    """One GB of pixels, through a writer that holds a chunk at a time."""
    shape, rng = (5, 10240, 10240), np.random.default_rng(0)
    handler = FileHandler(tmp_path)
    block = rng.integers(0, 4096, (1, names.CHUNK, names.CHUNK), dtype=np.uint16)
    write(handler, "warm_up", "images", block)
    with (
        PeakMemory() as memory,
        handler.raster_writer("image", "images", shape, "u2") as writer,
    ):
        for region in chunk_regions(shape, writer.plan.chunks):
            writer.write(tuple(slice(*cut) for cut in region), block)
    assert len(handler.level_paths("image")) == 5
    assert memory.growth < 200e6
    array = zarr.open_array(handler.array_path("image"), mode="r")
    np.testing.assert_array_equal(array[4, -names.CHUNK :, : names.CHUNK], block[0])
