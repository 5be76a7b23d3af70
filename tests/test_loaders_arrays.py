"""Images and masks from numpy, dask and xarray."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from scportrait_like.errors import (
    ElementExistsError,
    InputError,
    MemoryBudgetError,
)
from scportrait_like.io.copying import store_chunk
from scportrait_like.project import Project

Pixels = np.ndarray[Any, Any]
Check = Callable[..., Any]
NAMES = ["DNA", "CD45", "CD3"]


def made_of(dtype: str, shape: tuple[int, ...] = (2, 90, 130)) -> Pixels:
    rng = np.random.default_rng(3)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.normal(size=shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, kind.newbyteorder("="), True).astype(kind)


# Arrays


@pytest.mark.parametrize(
    "dtype",
    [
        "u1",
        "u2",
        "u4",
        "u8",
        "i1",
        "i2",
        "i4",
        "i8",
        "f2",
        "f4",
        "f8",
        ">u2",
        ">f4",
        ">i8",
        "q",
        "Q",
    ],
)
def test_every_dtype_is_kept(project: Project, check_image: Check, dtype: str) -> None:
    pixels = made_of(dtype)
    project.load_input_from_array(pixels)
    check_image(project, pixels, ["channel_0", "channel_1"])


def test_nan_and_infinity_are_kept_and_compared(project: Project, check_image: Check) -> None:
    pixels = made_of("f4")
    pixels[0, :3, :3] = np.nan, np.inf, -np.inf
    project.load_input_from_array(pixels)
    check_image(project, pixels, ["channel_0", "channel_1"])
    project.load_input_from_dask(da.from_array(pixels, name=False), ["channel_0", "channel_1"])


@pytest.mark.parametrize("dtype", ["?", "c8", "U3", "O", "M8[s]", "V4", "g"])
def test_what_is_no_image_is_refused(project: Project, dtype: str) -> None:
    with pytest.raises(InputError, match=r"holds|array of numbers"):
        project.load_input_from_array(np.zeros((2, 30, 30), dtype))
    assert "input_image" not in project.filehandler


@pytest.mark.parametrize("array", [[[1, 2], [3]], "nothing/here", object(), None])
def test_what_is_no_array_is_refused(project: Project, array: Any) -> None:
    with pytest.raises(InputError, match="array"):
        project.load_input_from_array(array)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5), (0, 5, 5), (2, 0, 5), ()])
def test_shapes_that_are_no_image(project: Project, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"has the shape .*, but an image is"):
        project.load_input_from_array(np.zeros(shape, np.uint8))


def test_memory_order_does_not_matter(project: Project, check_image: Check) -> None:
    pixels = made_of("u2", (3, 120, 80))
    project.load_input_from_array(np.asfortranarray(pixels), NAMES)
    check_image(project, pixels, NAMES)
    project.load_input_from_array(pixels, NAMES)
    project.load_input_from_array(np.ascontiguousarray(pixels[:, ::-1])[:, ::-1], NAMES)
    project.load_input_from_array(pixels.astype(">u2"), NAMES)


def test_one_plane_is_one_channel(project: Project, check_image: Check) -> None:
    pixels = made_of("u1", (70, 50))
    project.load_input_from_array(pixels, "DNA")
    check_image(project, pixels[None], ["DNA"])


def test_one_pixel(project: Project, check_image: Check) -> None:
    project.load_input_from_array(np.array([[[7]]], np.uint8))
    check_image(project, np.array([[[7]]], np.uint8), ["channel_0"])


def test_remap_moves_channels_and_names(
    project: Project, check_image: Check, image: Pixels
) -> None:
    project.load_input_from_array(image, NAMES, remap=[2, 0, 1])
    check_image(project, image[[2, 0, 1]], ["CD3", "DNA", "CD45"])
    project.load_input_from_array(image, NAMES, remap=np.array([2, 0, 1]))
    with pytest.raises(ElementExistsError):
        project.load_input_from_array(image, NAMES)


@pytest.mark.parametrize("remap", [[0, 1], [0, 1, 1], [1, 2, 3], ["0", "1", "2"]])
def test_a_remap_that_is_no_order(project: Project, image: Pixels, remap: Any) -> None:
    with pytest.raises(InputError, match=r"remap .* is not an order of the channels 0..2"):
        project.load_input_from_array(image, NAMES, remap=remap)


def test_a_data_array_keeps_its_dimensions(project: Project, check_image: Check) -> None:
    pixels = made_of("u2", (3, 60, 90))
    turned = xr.DataArray(np.moveaxis(pixels, 0, -1), dims=("y", "x", "c"))
    project.load_input_from_array(turned, NAMES)
    check_image(project, pixels, NAMES)


def test_a_large_image_has_a_pyramid(project: Project, check_image: Check) -> None:
    pixels = made_of("u1", (1, 2500, 3001))
    project.load_input_from_array(pixels, ["DNA"])
    element = check_image(project, pixels, ["DNA"])
    assert len(element.children) == 3
    assert project.filehandler.open_array("input_image").chunks == (1, 2048, 2048)


# Channel names

LONG = "n" * 300


def test_names_are_kept_whole(project: Project, check_image: Check, image: Pixels) -> None:
    channels = ["αβ-Tubulin µ 細胞 🔬", LONG, " with space / and #"]
    project.load_input_from_array(image, channels)
    check_image(project, image, channels)


@pytest.mark.parametrize(
    ("channels", "problem"),
    [
        (["a", "b"], "has 3 channels, but 2 channel_names were given: a, b"),
        ([], "has 3 channels, but 0 channel_names were given: none"),
        ("DNA", "has 3 channels, but 1 channel_names were given: DNA"),
        (["a", "b", "a"], "channel_names: a stands twice among a, b, a"),
        (["a", "", "b"], "channel_names: one is empty"),
        (["a", "  ", "b"], "channel_names: one is empty"),
        ([1, "1", 2], "channel_names: 1 stands twice"),
    ],
)
def test_names_that_do_not_fit(
    project: Project, image: Pixels, channels: Any, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        project.load_input_from_array(image, channels)
    assert not project.filehandler.element_names()


def test_a_dask_array_needs_names(project: Project, image: Pixels) -> None:
    with pytest.raises(InputError, match="channel_names are needed"):
        project.load_input_from_dask(da.from_array(image), None)  # type: ignore[arg-type]


# Dask


class Counting:
    """An array-like that counts how often each block is read."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.shape, self.dtype, self.ndim = pixels.shape, pixels.dtype, pixels.ndim
        self.seen: Counter[Any] = Counter()
        self._lock = threading.Lock()

    def __getitem__(self, key: Any) -> Pixels:
        with self._lock:
            self.seen[tuple((part.start, part.stop) for part in key)] += 1
        return self.pixels[key]

    def lazy(self, chunks: Any) -> Any:
        """Make a dask array whose every read of a chunk is counted."""
        sizes = da.core.normalize_chunks(chunks, self.shape, dtype=self.dtype)

        def block(block_info: Any = None) -> Pixels:
            return self[tuple(slice(*pair) for pair in block_info[None]["array-location"])]

        return da.map_blocks(
            block, chunks=sizes, dtype=self.dtype, meta=np.empty((0,) * self.ndim, self.dtype)
        )


@pytest.mark.parametrize(
    "chunks",
    [
        (1, 500, 700),
        (3, 100, 100),
        (1, -1, -1),
        (3, -1, -1),
        (1, 37, -1),
        (2, 2047, 300),
        ((1, 2), (10, 1200, 990), (800, 5, 1495)),
        ((3,), (2199, 1), (1, 2299)),
        ((1, 1, 1), (600, 600, 600, 400), (700, 900, 700)),
    ],
    ids=str,
)
def test_each_chunk_is_read_once(project: Project, check_image: Check, chunks: Any) -> None:
    counting = Counting(made_of("u2", (3, 2200, 2300)))
    lazy = counting.lazy(chunks)
    project.load_input_from_dask(lazy, NAMES)
    assert len(counting.seen) == np.prod(lazy.numblocks)
    assert set(counting.seen.values()) == {1}
    check_image(project, counting.pixels, NAMES)


def test_each_chunk_of_a_mask_is_read_once(project: Project, check_labels: Check) -> None:
    pixels = made_of("u1", (700, 2300)).astype(np.int32) // 40
    counting = Counting(pixels)
    project.load_labels(counting.lazy(((1, 699), (900, 1400))))
    assert set(counting.seen.values()) == {1}
    check_labels(project, pixels)


def test_the_same_dask_array_again_is_not_computed(project: Project) -> None:
    counting = Counting(made_of("u2", (2, 300, 300)))
    for _ in range(2):
        project.load_input_from_dask(counting.lazy((1, 100, 100)), ["a", "b"])
    project.load_input_from_dask(counting.lazy((1, 100, 100)), ["a", "b"])
    assert set(counting.seen.values()) <= {1, 2, 3}


def test_a_delayed_graph_with_random_names(
    project: Project, check_image: Check, image: Pixels, log_of: Callable[[Project], str]
) -> None:
    def lazy(pixels: Pixels) -> Any:
        planes = [
            da.from_delayed(dask.delayed(np.array)(plane), plane.shape, plane.dtype)
            for plane in pixels
        ]
        return da.stack(planes)

    assert lazy(image).name != lazy(image).name
    project.load_input_from_dask(lazy(image), NAMES)
    check_image(project, image, NAMES)
    revision = project.filehandler.revision("input_image")
    project.load_input_from_dask(lazy(image), NAMES)
    project.load_input_from_dask(lazy(image), NAMES, overwrite=True)
    assert project.filehandler.revision("input_image") == revision
    assert "holds the pixels of dask array" in log_of(project)
    with pytest.raises(ElementExistsError, match=r"dask array .* differs from it"):
        project.load_input_from_dask(lazy(image + 1), NAMES)


def test_a_graph_over_zarr_notices_that_the_file_has_changed(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels
) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", data=image, chunks=(1, 100, 100))
    cut = da.from_zarr(str(tmp_path / "a.zarr"))[:, 10:250, 20:]
    project.load_input_from_dask(cut, NAMES)
    check_image(project, image[:, 10:250, 20:], NAMES)
    array[:, 100:150, 100:150] = 5
    changed = da.from_zarr(str(tmp_path / "a.zarr"))[:, 10:250, 20:]
    with pytest.raises(ElementExistsError):
        project.load_input_from_dask(changed, NAMES)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shards", [None, (1, 200, 200)])
def test_zarr_arrays(
    project: Project,
    check_image: Check,
    tmp_path: Path,
    image: Pixels,
    zarr_format: Any,
    shards: Any,
) -> None:
    if shards and zarr_format == 2:
        pytest.skip("zarr 2 has no shards")
    array = zarr.create_array(
        tmp_path / "a.zarr",
        data=image,
        chunks=(1, 100, 100),
        zarr_format=zarr_format,
        shards=shards,
    )
    project.load_input_from_array(array, NAMES)
    check_image(project, image, NAMES)
    project.load_input_from_dask(da.from_array(array), NAMES)
    project.load_input_from_dask(da.from_zarr(str(tmp_path / "a.zarr")), NAMES)


def test_what_is_no_dask_array(project: Project, image: Pixels) -> None:
    with pytest.raises(InputError, match="must be a dask array, not ndarray"):
        project.load_input_from_dask(image, NAMES)
    unknown = da.from_array(image)[:, da.from_array(image[0].any(axis=1)), :]
    with pytest.raises(InputError, match="does not know its shape"):
        project.load_input_from_dask(unknown, NAMES)


def test_an_error_in_the_graph_leaves_nothing(project: Project) -> None:
    def fail(block: Pixels) -> Pixels:
        raise OSError("the disk of the user's is broken")

    lazy = da.ones((2, 300, 300), chunks=(1, 100, 100)).map_blocks(fail, dtype=float)
    with pytest.raises(OSError, match="the disk of the user's is broken"):
        project.load_input_from_dask(lazy, ["a", "b"])
    left = {path.name for path in project.project_location.iterdir()}
    assert left == {"config.yml", "processing.log", ".lock"}


# Loading again


def test_the_same_again_does_nothing_in_another_process_too(
    project: Project, image: Pixels, tmp_path: Path
) -> None:
    np.save(tmp_path / "image.npy", image)
    script = (
        "import sys, numpy as np, dask.array as da\n"
        "from scportrait_like.project import Project\n"
        "image = np.load(sys.argv[2])\n"
        "p = Project(sys.argv[1])\n"
        "p.load_input_from_array(image, ['DNA', 'CD45', 'CD3'])\n"
        "p.load_labels(da.from_array(image[0], chunks=100) // 256)\n"
    )
    command = [sys.executable, "-c", script, str(project.project_location), tmp_path / "image.npy"]
    subprocess.run(command, check=True)
    store = project.filehandler.path
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    subprocess.run(command, check=True)
    project.load_input_from_array(image.copy(), tuple(NAMES))
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
    log = (project.project_location / "processing.log").read_text()
    assert log.count("is loaded already; nothing to do") == 3


def test_another_source_is_refused_and_both_are_named(
    loaded: Project, check_image: Check, image: Pixels
) -> None:
    other = image.copy()
    other[2, 100, 100] += 1
    with pytest.raises(ElementExistsError) as caught:
        loaded.load_input_from_array(other, NAMES)
    text = str(caught.value)
    assert "input_image of the project was loaded from an array of (3, 300, 420) uint16" in text
    assert "pass overwrite=True" in text
    with pytest.raises(ElementExistsError, match="channel names"):
        loaded.load_input_from_array(image, ["x", "y", "z"])
    check_image(loaded, image, NAMES)
    loaded.load_input_from_array(other, NAMES, overwrite=True)
    check_image(loaded, other, NAMES)


def test_overwrite_of_the_project_holds_for_its_loads(loaded: Project, image: Pixels) -> None:
    permitted = Project(loaded.project_location, overwrite=True)
    with pytest.raises(ElementExistsError):
        permitted.load_input_from_array(image + 1, NAMES, overwrite=False)
    permitted.load_input_from_array(image + 1, NAMES)


# Memory


def test_a_budget_that_the_process_itself_takes(tmp_path: Path, image: Pixels) -> None:
    project = Project(tmp_path / "p", memory_limit="50MB")
    with pytest.raises(MemoryBudgetError, match=r"of the 50 MB granted only 0 MB are free"):
        project.load_input_from_array(image)


def test_a_chunk_larger_than_the_budget_is_refused(tmp_path: Path) -> None:
    lazy = da.zeros((1, 60_000, 60_000), chunks=(1, -1, -1))
    project = Project(tmp_path / "p", memory_limit="2GB")
    with pytest.raises(InputError, match=r"takes 86400 MB.*give it smaller chunks"):
        project.load_input_from_dask(lazy, ["DNA"])


@pytest.mark.parametrize(
    ("length", "edge", "expected"),
    [
        (5000, 512, 2048),
        (5000, 500, 2000),
        (5000, 4096, 2048),
        (300, 512, 300),
        (5000, 2048, 2048),
        (50_000, 10_000, 2000),
        (5000, 1, 2048),
        (9000, 4099, 4099),
        (5000, 5000, 2048),
    ],
)
def test_chunks_that_are_written(length: int, edge: int, expected: int) -> None:
    assert store_chunk(length, edge) == expected
