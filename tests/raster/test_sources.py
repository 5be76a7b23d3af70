"""Sources give the pixels that numpy would, and a zarr array behind dask is found."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

from scportrait_like.raster.sources import (
    ArraySource,
    DaskSource,
    SelectSource,
    Source,
    StackSource,
    WindowSource,
    ZarrSource,
    source_of,
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


def test_window_select_and_stack(pixels: np.ndarray[Any, Any]) -> None:
    source = ArraySource(pixels)
    window = WindowSource(source, (1, 5, 6), (3, 30, 40))
    check(window, pixels[1:4, 5:35, 6:46], (slice(0, 2), slice(3, 9), slice(0, 40)))
    plane = WindowSource(source, (2, 0, 0), (1, 40, 50), 1)
    check(plane, pixels[2], REGION[1:])
    check(SelectSource(source, (3, 0, 2)), pixels[[3, 0, 2]], REGION)
    check(StackSource((plane, plane)), pixels[[2, 2]], (slice(0, 2), *REGION[1:]))


def test_zarr_behind_dask_is_found(stored: Path, pixels: np.ndarray[Any, Any]) -> None:
    found = source_of(da.from_zarr(str(stored)))
    assert isinstance(found, ZarrSource)
    check(found, pixels, REGION)


@pytest.mark.parametrize(
    "change", [lambda a: a + 1, lambda a: a[1:], lambda a: a.astype("f4"), lambda a: a[:, ::-1]]
)
def test_a_changed_dask_array_is_not_taken_for_its_zarr(
    stored: Path, pixels: np.ndarray[Any, Any], change: Any
) -> None:
    found = source_of(change(da.from_zarr(str(stored))))
    assert isinstance(found, DaskSource)
    check(found, change(pixels), (slice(0, 2), slice(1, 9), slice(2, 8)))


def test_zarr_array_object_and_path(stored: Path, pixels: np.ndarray[Any, Any]) -> None:
    check(source_of(zarr.open_array(stored)), pixels, REGION)
    check(source_of(stored), pixels, REGION)
    in_memory = zarr.array(pixels)
    check(source_of(in_memory), pixels, REGION)


def test_what_is_no_zarr_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a zarr array"):
        ZarrSource.open(tmp_path)
