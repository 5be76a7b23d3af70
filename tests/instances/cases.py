"""Masks and images with everything in them that is awkward for windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray

Array = NDArray[Any]

MASK_DTYPES = (
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *(">u2", ">i4", ">u8"),
)
IMAGE_DTYPES = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "bool", ">u2", ">f4", ">f8", ">i8"),
)


def odd_labels(rng: np.random.Generator, shape: tuple[int, int, int], dtype: str) -> Array:
    """Labels (z, y, x) of all kinds, under sparse ids in no order, the dtype's largest among them.

    Blobs; pieces far apart; rings and hooks, whose centre is not theirs; one pixel; labels in all
    corners and along the borders; one label across the whole image; some cover others.
    """
    depth, height, width = shape
    plain = np.zeros(shape, np.int64)
    z, y, x = np.ogrid[:depth, :height, :width]
    label = 0
    for _ in range(14):
        label += 1
        for _ in range(int(rng.integers(1, 4))):
            cz, cy, cx = rng.uniform(0, shape)
            radius, thickness = rng.uniform(0.6, 11), rng.choice([2.0, 20.0])
            away = np.hypot(y - cy, x - cx) + 2 * abs(z - cz)
            ring = (away <= radius) & (away > radius - thickness)
            plain[ring & (np.arctan2(y - cy, x - cx) < rng.choice([1.0, 4.0]))] = label
    label += 1
    plain[0, height // 2, :] = label
    for cy in (0, height - 1, int(rng.integers(height))):
        for cx in (0, width - 1, int(rng.integers(width))):
            label += 1
            plain[rng.integers(depth), cy, cx] = label
    info = np.iinfo(dtype)
    largest = min(int(info.max), 2**63 - 1)
    ids = {largest}
    while len(ids) < label:
        ids.add(int(rng.integers(1, rng.choice([120, min(largest, 2**17), largest]), dtype="u8")))
    names = np.array([0, *rng.permutation(np.array(sorted(ids), np.uint64)).tolist()], np.uint64)
    return names[plain].astype(dtype)


def odd_pixels(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Any bits: of floats NaN of many kinds, infinities, minus zero."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random(shape) < 0.5
    pixels = rng.integers(0, 256, (*shape, kind.itemsize), "uint8").view(kind)[..., 0]
    if kind.kind == "f":
        odd = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0], kind)
        pixels = np.where(rng.random(shape) < 0.2, odd[rng.integers(0, 5, shape)], pixels)
    return pixels.astype(kind)


def write_zarr(path: Path, pixels: Array, chunks: tuple[int, ...], **options: Any) -> Path:
    array = zarr.create_array(
        path, shape=pixels.shape, chunks=chunks, dtype=pixels.dtype, **options
    )
    array[...] = pixels
    return path


def inside(path: Path, pixels: Array, chunks: tuple[int, ...], lead: tuple[int, ...]) -> Any:
    """Pixels as a part of a zarr array that is larger by `lead` before and by 3 behind them."""
    wide = np.pad(pixels, [(before, 3) for before in lead], constant_values=1)
    part = tuple(slice(before, -3) for before in lead)
    return da.from_zarr(write_zarr(path, wide, chunks))[part]
