"""Sources give the pixels that numpy would, and a zarr array behind dask is found."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array as da
import numcodecs
import numpy as np
import pytest
import spatialdata as sd
import zarr
import zarr.codecs.numcodecs
from dask._task_spec import Alias
from dask.highlevelgraph import HighLevelGraph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spatialdata.models import Image2DModel, Labels2DModel

from scportrait_like.datasets import tissue
from scportrait_like.raster import stored as storage
from scportrait_like.raster.sources import (
    ArraySource,
    DaskSource,
    NpySource,
    SelectSource,
    Source,
    StackSource,
    ViewSource,
    ZarrSource,
    source_of,
    spilled,
    view,
)

REGION = (slice(1, 3), slice(4, 29), slice(7, 33))


@pytest.fixture
def pixels() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 999, (4, 40, 50), np.uint16)


@pytest.fixture
def stored(tmp_path: Path, pixels: np.ndarray[Any, Any]) -> Path:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=pixels.shape, chunks=(1, 16, 20), dtype=pixels.dtype
    )
    array[:] = pixels
    return tmp_path / "a.zarr"


def check(source: Source, expected: np.ndarray[Any, Any], region: tuple[slice, ...]) -> None:
    assert source.shape == expected.shape
    assert source.dtype == expected.dtype
    assert len(source.chunks) == expected.ndim
    again = pickle.loads(pickle.dumps(source))
    for one in (source, again):
        assert np.array_equal(one.read(region), expected[region])


def test_zarr(stored: Path, pixels: np.ndarray[Any, Any]) -> None:
    source = ZarrSource.open(stored)
    assert source.chunks == (1, 16, 20)
    check(source, pixels, REGION)
    assert len(pickle.dumps(source)) < 2000


def test_a_replaced_array_is_not_read_from_the_old_ones_cache(
    stored: Path, pixels: np.ndarray[Any, Any]
) -> None:
    before = ZarrSource.open(stored)
    before.read(REGION)
    zarr.create_array(stored, shape=(2, 8, 8), chunks=(1, 8, 8), dtype="u1", overwrite=True)
    after = ZarrSource.open(stored)
    assert after.shape == (2, 8, 8)
    assert after.read((slice(0, 2),) * 3).dtype == np.uint8


def test_numpy_and_dask(pixels: np.ndarray[Any, Any]) -> None:
    check(ArraySource(pixels), pixels, REGION)
    lazy = da.from_array(pixels, chunks=(2, 15, 50)) + 1
    check(DaskSource(lazy), pixels + 1, REGION)
    assert DaskSource(lazy).chunks == (2, 15, 50)


def test_view_select_and_stack(pixels: np.ndarray[Any, Any]) -> None:
    source = ArraySource(pixels)
    window = view(source, (slice(1, 4), slice(5, 35), slice(6, 46)))
    check(window, pixels[1:4, 5:35, 6:46], (slice(0, 2), slice(3, 9), slice(0, 40)))
    plane = view(source, (2, slice(None), slice(None)))
    check(plane, pixels[2], REGION[1:])
    check(SelectSource(source, (3, 0, 2)), pixels[[3, 0, 2]], REGION)
    check(StackSource((plane, plane)), pixels[[2, 2]], (slice(0, 2), *REGION[1:]))
    assert view(source, (slice(None),) * 3) is source


def test_a_view_of_a_view_is_one_view(stored: Path, pixels: np.ndarray[Any, Any]) -> None:
    found = view(
        ZarrSource.open(stored),
        (slice(1, 4), None, slice(16, None), slice(5, 45)),
        (2, slice(0, 1), slice(None), None, slice(3, 30)),
    )
    assert isinstance(found, ViewSource)
    assert isinstance(found.source, ZarrSource)
    assert found.chunks == (1, 16, 1, 20)
    region = (slice(0, 1), slice(2, 20), slice(0, 1), slice(4, 20))
    check(found, pixels[1:4, None, 16:, 5:45][2, 0:1, :, None, 3:30], region)


def test_zarr_behind_dask_is_found(stored: Path, pixels: np.ndarray[Any, Any]) -> None:
    found = source_of(da.from_zarr(str(stored)))
    assert isinstance(found, ZarrSource)
    check(found, pixels, REGION)


def behind(source: Source) -> Source:
    return source.source if isinstance(source, ViewSource) else source


def whole(source: Source) -> np.ndarray[Any, Any]:
    return source.read(tuple(slice(0, n) for n in source.shape))


VIEWS: dict[str, Any] = {
    "new axis": lambda a: a[:, None],
    "new first axis": lambda a: a[None],
    "part": lambda a: a[1:3, None, 17:, 3:],
    "plane": lambda a: a[2],
    "plane from the end": lambda a: a[-1],
    "pixel": lambda a: a[1, 33, 44],
    "row of a row": lambda a: a[:, 20][2:],
    "in a row": lambda a: a[1:, None, 3:, :][:, 0, 5:, 19:41][None, 1, ..., None],
    "whole": lambda a: a[:, :, :],
    "nothing": lambda a: a[:, 3:3],
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("inline", [False, True])
def test_a_view_of_zarr_is_read_as_zarr(
    stored: Path, pixels: np.ndarray[Any, Any], name: str, inline: bool
) -> None:
    found = source_of(VIEWS[name](da.from_zarr(str(stored), inline_array=inline)))
    assert isinstance(behind(found), ZarrSource)
    expected = VIEWS[name](pixels)
    assert found.shape == expected.shape
    assert np.array_equal(whole(found), expected)
    assert len(pickle.dumps(found)) < 3000


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("chunks", [-1, (3, 16, 7)])
def test_a_view_of_numpy_is_read_as_numpy(
    pixels: np.ndarray[Any, Any], name: str, chunks: Any
) -> None:
    found = source_of(VIEWS[name](da.from_array(pixels, chunks=chunks)))
    assert isinstance(behind(found), ArraySource)
    assert np.array_equal(whole(found), VIEWS[name](pixels))


def overwritten(array: Any) -> Any:
    """One pixel in the midst of the blocks: the others are as they were."""
    changed = array[:3]
    changed[1, 20, 25] = 7
    return changed


def swapped(array: Any) -> Any:
    """Middle blocks change places in an indexing layer; all that stand at a border are right."""
    changed = array[:3]
    layer = dict(changed.dask.layers[changed.name])
    one, two = ((changed.name, 1, 1, column) for column in (0, 1))
    layer[one], layer[two] = (
        Alias(one, layer[two].target),
        Alias(two, layer[one].target),
    )
    # Both blocks are as long.
    graph = HighLevelGraph.from_collections(changed.name, layer, dependencies=[array])
    return da.Array(graph, changed.name, changed.chunks, dtype=changed.dtype)


CHANGES: dict[str, Any] = {
    "sum": lambda a: a + 1,
    "type": lambda a: a.astype("f4"),
    "same type in a map": lambda a: a.map_blocks(np.negative, dtype=a.dtype),
    "reversed": lambda a: a[:, ::-1],
    "stepped": lambda a: a[:, ::2],
    "stepped within one pixel a block": lambda a: a[:, ::16],
    "fancy": lambda a: a[[2, 0, 1]],
    "fancy and new axis": lambda a: a[[0, 1], None, 3:],
    "boolean": lambda a: a[np.array([True, False, True, True])],
    "joined": lambda a: da.concatenate([a[:2], a[2:]]),
    "stacked": lambda a: da.stack([a, a]),
    "where": lambda a: da.where(a > 3, a, 0),
    "masked": lambda a: da.ma.masked_equal(a, 3),
    "transposed": lambda a: a.transpose(0, 2, 1),
    "rolled": lambda a: da.roll(a, 1, axis=0),
    "flipped": lambda a: da.flip(a, 0),
    "rechunked": lambda a: a.rechunk((2, 40, 50)),
    "summed": lambda a: a.sum(axis=0),
    "blocks": lambda a: a.blocks[[2, 1]],
    "overwritten": overwritten,
    "swapped": swapped,
    "viewed as other numbers": lambda a: a.view("i2"),
    "view of a sum": lambda a: (a + 1)[1:, None],
    "sum of a view": lambda a: a[1:, None] + 1,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("origin", ["zarr", "numpy"])
def test_what_is_no_view_is_computed(
    stored: Path, pixels: np.ndarray[Any, Any], name: str, origin: str
) -> None:
    array = da.from_zarr(str(stored)) if origin == "zarr" else da.from_array(pixels, (1, 16, 20))
    changed = CHANGES[name](array)
    found = source_of(changed)
    assert isinstance(found, DaskSource)
    assert np.array_equal(whole(found), np.asarray(changed.compute()))


def test_a_stored_array_with_a_lock_is_left_to_dask(stored: Path) -> None:
    locked = da.from_array(zarr.open_array(stored), chunks=(1, 16, 20), lock=True)
    assert isinstance(source_of(locked), DaskSource)


def test_other_chunks_of_the_same_array_are_the_same_array(stored: Path) -> None:
    found = source_of(da.from_array(zarr.open_array(stored), chunks=(4, 11, 50))[:, None, 5:])
    assert isinstance(behind(found), ZarrSource)
    assert found.chunks == (1, 1, 16, 20)


@st.composite
def operations(draw: Any) -> list[tuple[str, Any]]:
    """A chain of basic indexes, some of them with a change in between."""
    shape = [4, 40, 50]
    chain: list[tuple[str, Any]] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["basic"] * 6 + ["step", "fancy", "add", "rechunk"]))
        index: list[Any] = []
        after: list[int] = []
        for n in shape:
            if draw(st.integers(0, 4)) == 0 and len(after) + len(shape) < 6:
                index.append(None)
                after.append(1)
            if draw(st.integers(0, 4)) == 0:
                index.append(draw(st.integers(-n, n - 1)))
                continue
            start = draw(st.one_of(st.none(), st.integers(0, n - 1)))
            stop = draw(st.one_of(st.none(), st.integers((start or 0) + 1, n)))
            step = draw(st.sampled_from([-1, 2, -3])) if kind == "step" else None
            index.append(slice(None, None, step) if step else slice(start, stop))
            after.append(len(range(n)[index[-1]]))
        if kind == "fancy" and shape:
            index = [draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=4))]
            after = [len(index[0]), *shape[1:]]
        if kind in ("basic", "step", "fancy"):
            chain.append((kind, tuple(index)))
            shape = after
        else:
            chain.append((kind, None))
    return chain


def applied(array: Any, chain: list[tuple[str, Any]]) -> Any:
    for kind, index in chain:
        if kind == "add":
            array = array + 1
        elif kind == "rechunk":
            array = array.rechunk(13) if isinstance(array, da.Array) else array
        else:
            array = array[index]
    return array


@settings(
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(operations(), st.booleans(), st.data())
def test_any_chain_is_read_as_dask_computes_it(
    stored: Path, pixels: np.ndarray[Any, Any], chain: Any, from_zarr: bool, data: Any
) -> None:
    array = da.from_zarr(str(stored)) if from_zarr else da.from_array(pixels, (1, 16, 20))
    found = source_of(applied(array, chain))
    expected = applied(pixels, chain)
    assert found.shape == expected.shape
    region = []
    for n in expected.shape:
        start = data.draw(st.integers(0, n - 1))
        region.append(slice(start, data.draw(st.integers(start + 1, n))))
    assert np.array_equal(found.read(tuple(region)), expected[tuple(region)])
    if all(kind == "basic" for kind, _ in chain):
        assert isinstance(behind(found), ZarrSource if from_zarr else ArraySource)
    if any(kind == "add" for kind, _ in chain):
        assert isinstance(found, DaskSource)


@pytest.mark.parametrize("levels", [1, 2])
def test_elements_of_spatialdata_are_read_as_zarr(tmp_path: Path, levels: int) -> None:
    sample = tissue(shape=(2, 64, 80), seed=1)
    image, labels = sample.read_image(), sample.read_labels()
    scales = [2] * (levels - 1) or None
    sdata = sd.SpatialData(
        images={"i": Image2DModel.parse(image, dims=("c", "y", "x"), scale_factors=scales)},
        labels={"l": Labels2DModel.parse(labels, dims=("y", "x"), scale_factors=scales)},
    )
    sdata.write(tmp_path / "s.zarr")
    again = sd.read_zarr(tmp_path / "s.zarr")
    for name, pixels in (("i", image), ("l", labels)):
        element = again[name] if levels == 1 else again[name]["scale0"]["image"]
        found = source_of(element.data[None, ..., 3:])
        assert isinstance(behind(found), ZarrSource)
        assert np.array_equal(whole(found), pixels[None, ..., 3:])


def test_views_of_dask_do_not_need_dask_in_a_worker(stored: Path) -> None:
    found = source_of(da.from_zarr(str(stored))[:, None, 3:])
    code = (
        "import pickle, sys\n"
        "source = pickle.loads(sys.stdin.buffer.read())\n"
        "source.read((slice(0, 1),) * 4)\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'dask']\n"
    )
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(found), check=True)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_spilled_arrays_are_small_to_send(
    tmp_path: Path, stored: Path, pixels: np.ndarray[Any, Any]
) -> None:
    source = ArraySource(pixels)
    plane = view(source, (1, slice(None), slice(None)))
    folder = tmp_path / "spill"
    folder.mkdir()
    for one in (source, plane, SelectSource(source, (2, 0)), StackSource((plane, plane))):
        found = spilled(one, folder)
        assert found.shape == one.shape
        assert found.chunks == one.chunks
        check(found, whole(one), tuple(slice(1, n) for n in one.shape))
        assert len(pickle.dumps(found)) < 2000
    assert len(files(folder)) == 4  # once a call, however many planes
    stored_one = ZarrSource.open(stored)
    assert spilled(stored_one, folder) == stored_one
    lazy = DaskSource(da.from_array(pixels) + 1)
    assert spilled(lazy, folder) is lazy
    assert len(files(folder)) == 4


@pytest.mark.parametrize(
    "change", [np.asfortranarray, lambda a: a[:, ::2], lambda a: a.astype(">u2"), lambda a: a[0, 0]]
)
def test_spilled_arrays_of_any_layout(
    tmp_path: Path, pixels: np.ndarray[Any, Any], change: Any
) -> None:
    array = change(pixels)
    found = spilled(ArraySource(array), tmp_path)
    assert isinstance(found, NpySource)
    check(found, array, tuple(slice(0, n - 1) for n in array.shape))


def test_a_mapped_file_is_not_copied_but_a_part_of_it_is(
    tmp_path: Path, pixels: np.ndarray[Any, Any]
) -> None:
    np.save(tmp_path / "a.npy", pixels)
    pixels.tofile(tmp_path / "a.raw")
    folder = tmp_path / "spill"
    folder.mkdir()
    for mapped in (
        np.load(tmp_path / "a.npy", mmap_mode="r"),
        np.memmap(tmp_path / "a.raw", np.uint16, "r", 4000, (3, 40, 50)),
    ):
        check(spilled(source_of(mapped), folder), np.array(mapped), (slice(0, 2),) * 3)
    assert not files(folder)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")[1:, 3:]
    check(spilled(source_of(mapped), folder), pixels[1:, 3:], (slice(0, 2),) * 3)
    changed = np.load(tmp_path / "a.npy", mmap_mode="c")
    changed[0, 0, 0] = 12345
    assert whole(spilled(source_of(changed), folder))[0, 0, 0] == 12345
    assert len(files(folder)) == 2


def test_zarr_array_object_and_path(stored: Path, pixels: np.ndarray[Any, Any]) -> None:
    check(source_of(zarr.open_array(stored)), pixels, REGION)
    check(source_of(stored), pixels, REGION)
    in_memory = zarr.array(pixels)
    check(source_of(in_memory), pixels, REGION)


def test_what_is_no_zarr_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a zarr array"):
        ZarrSource.open(tmp_path)


FORMATS: dict[str, dict[str, Any]] = {
    "zstd": {},
    "plain": {"compressors": None},
    "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "blosc": {"compressors": zarr.codecs.BloscCodec()},
    "shards": {"shards": (2, 32, 40)},
    "transposed": {"filters": [zarr.codecs.TransposeCodec(order=(2, 0, 1))]},
    "zarr 2": {"zarr_format": 2},
    "zarr 2, Fortran": {"zarr_format": 2, "order": "F"},
    "zarr 2, lz4": {"zarr_format": 2, "compressors": numcodecs.LZ4()},
    "zarr 2, delta": {"zarr_format": 2, "filters": [numcodecs.Delta("<u2")]},
    "zarr 2, no fill value": {"zarr_format": 2, "fill_value": None},
    "zarr 2, blosc": {"zarr_format": 2, "compressors": numcodecs.Blosc("lz4", shuffle=2)},
    "fill value": {"fill_value": 7},
    "of its own": {"compressors": zarr.codecs.numcodecs.LZMA()},
    "big endian": {"dtype": ">u2"},
    "zarr 2, big endian": {"dtype": ">u2", "zarr_format": 2},
    "bool": {"dtype": "bool"},
    "half": {"dtype": "f2"},
    "float": {"dtype": "f4"},
    "long": {"dtype": "i8"},
    "complex": {"dtype": "c8"},
}


@pytest.fixture(params=FORMATS)
def format_path(request: Any, tmp_path: Path, pixels: np.ndarray[Any, Any]) -> Path:
    """A store of any format, the last chunks of which were never written."""
    how = {"dtype": pixels.dtype, **FORMATS[request.param]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # codecs that other languages may not know
        array = zarr.create_array(
            tmp_path / "f.zarr", shape=pixels.shape, chunks=(1, 16, 20), **how
        )
        array[:3] = pixels[:3].astype(array.dtype)
    return tmp_path / "f.zarr"


def check_formats(path: Path) -> None:
    expected = zarr.open_array(path, mode="r")
    source = ZarrSource.open(path)
    for region in (REGION, (slice(0, 4), slice(0, 40), slice(0, 50)), (slice(3, 4),) * 3):
        found = source.read(region)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected[region])


@pytest.fixture
def fresh() -> Iterator[None]:
    """Arrays are opened anew, and closed behind the test."""
    storage._open_fast.cache_clear()
    yield
    storage._open_fast.cache_clear()


def test_any_format_is_read_as_zarr_does(format_path: Path) -> None:
    check_formats(format_path)


def pipeline_of(path: Path) -> str | None:
    source = ZarrSource.open(path)
    fast = storage._open_fast(source.path, source.stamp)
    return None if fast is None else type(fast.async_array.codec_pipeline).__name__


def test_zarrs_decodes_where_it_is_installed(fresh: None, stored: Path) -> None:
    pytest.importorskip("zarrs")
    before = zarr.config.get("codec_pipeline.path")
    with ThreadPoolExecutor(4) as pool:  # all open it at once
        assert set(pool.map(pipeline_of, [stored] * 8)) == {"ZarrsCodecPipeline"}
    assert zarr.config.get("codec_pipeline.path") == before
    assert type(zarr.open_array(stored).async_array.codec_pipeline).__name__ != "ZarrsCodecPipeline"


def test_zarr_decodes_where_zarrs_is_not_installed(
    fresh: None, monkeypatch: pytest.MonkeyPatch, stored: Path, pixels: np.ndarray[Any, Any]
) -> None:
    monkeypatch.setattr(storage, "find_spec", lambda name: None)
    assert pipeline_of(stored) is None
    check(ZarrSource.open(stored), pixels, REGION)


@pytest.mark.parametrize("compressors", ["auto", None])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_chunk_is_zarrs_error(tmp_path: Path, compressors: Any, damage: str) -> None:
    array = zarr.create_array(
        tmp_path / "d.zarr", shape=(40, 40), chunks=(40, 40), dtype="u2", compressors=compressors
    )
    array[:] = np.arange(1600).reshape(40, 40)
    chunk = tmp_path / "d.zarr" / "c" / "0" / "0"
    content = chunk.read_bytes()
    changed = {"cut": content[:-7], "garbage": b"x" * 7, "empty": b""}[damage]
    chunk.write_bytes(changed)
    region = (slice(0, 40), slice(0, 40))
    with pytest.raises(Exception) as expected:  # noqa: PT011 - which one is up to zarr
        array[region]
    with pytest.raises(type(expected.value)):
        ZarrSource.open(tmp_path / "d.zarr").read(region)
