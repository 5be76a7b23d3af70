"""Small random inputs of an aggregation, with everything in them that is awkward."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr

from .oracle import STATISTICS, Array

MASK_DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
IMAGE_DTYPES = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float32", "float64", "bool"),
)
FLAVOURS = ("plain", "plain", "near the top", "constant", "huge offset", "full range", "odd floats")
BACKINGS = ("numpy", "zarr", "graph", "blocks", "rechunked", "sliced")
Chunks = tuple[tuple[int, ...], ...]


@dataclass
class Case:
    """One input, how it is chunked, and what is asked of it.

    Attributes
    ----------
    image, mask
        Pixels (c, z, y, x) and labels (z, y, x).
    image_chunks, mask_chunks
        Chunk lengths along each axis, as dask has them.
    image_backing, mask_backing
        What lies behind the dask arrays, one of `BACKINGS`.
    tile
        The edge that tiles come near to.
    index
        Labels that are asked for, or None.
    """

    image: Array
    mask: Array
    image_chunks: Chunks
    mask_chunks: Chunks
    image_backing: str
    mask_backing: str
    tile: int
    index: Array | None
    statistics: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)

    def arrays(self, folder: Path) -> tuple[Any, Any]:
        """Mask and image as dask arrays."""
        return (
            as_dask(self.mask, self.mask_chunks, self.mask_backing, folder / "mask.zarr"),
            as_dask(self.image, self.image_chunks, self.image_backing, folder / "image.zarr"),
        )


def write_zarr(path: Path, pixels: Array, chunks: tuple[int, ...], **options: Any) -> Path:
    array = zarr.create_array(
        path, shape=pixels.shape, chunks=chunks, dtype=pixels.dtype, **options
    )
    array[...] = pixels
    return path


def as_dask(pixels: Array, chunks: Any, backing: str, path: Path = Path()) -> Any:
    """Put pixels behind a dask array in one of several ways."""
    if backing == "numpy":
        return da.from_array(pixels, chunks)
    if backing in ("zarr", "rechunked"):
        found = da.from_zarr(write_zarr(path, pixels, tuple(edges[0] for edges in chunks)))
        return found if backing == "zarr" else found.rechunk(chunks)
    if backing == "graph":
        return da.where(da.from_array(pixels, chunks) == 0, pixels.dtype.type(0), pixels)
    if backing == "blocks":
        return da.from_array(pixels, chunks).map_blocks(np.copy, dtype=pixels.dtype)
    if backing == "sliced":
        wide = np.pad(pixels, [(1, 2)] * pixels.ndim)
        return da.from_array(wide, chunks="auto").rechunk(13)[(slice(1, -2),) * pixels.ndim]
    raise KeyError(backing)


def cut(rng: np.random.Generator, length: int, regular: bool) -> tuple[int, ...]:
    """Chunk lengths along an axis."""
    edge = int(rng.choice([1, 7, 8, 16, 20, 32, 64]))
    edge = min(max(edge, length // 6), length)
    if regular or rng.random() < 0.5:
        found = [edge] * (length // edge)
        return (*found, length % edge) if length % edge else tuple(found)
    borders = np.unique(rng.integers(1, length, 3)) if length > 1 else np.array([], int)
    return tuple(np.diff([0, *borders.tolist(), length]).tolist())


def cut_all(rng: np.random.Generator, shape: tuple[int, ...], backing: str) -> Chunks:
    regular = backing in ("zarr", "rechunked") and backing == "zarr"
    return tuple(cut(rng, length, regular) for length in shape)


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Labels 1..n: ellipsoids in one to three pieces far apart, or of one pixel."""
    labels = np.zeros(shape, np.int64)
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    for label in range(1, int(rng.integers(1, 25)) + 1):
        for _ in range(int(rng.integers(1, 4))):
            centre = rng.uniform(0, shape)
            radii = rng.uniform(0.3, 9, len(shape))
            away = sum(
                ((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)
            )
            labels[away <= 1] = label
    for label in range(26, 26 + int(rng.integers(0, 4))):
        labels[tuple(rng.integers(0, shape))] = label
    return labels


def layout(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Labels 0..n in one of several layouts."""
    kind = rng.choice(["blobs"] * 5 + ["full", "noise", "stripes", "background", "one"])
    if kind == "full":
        return blobs(rng, shape) + 1
    if kind == "noise":
        return rng.integers(0, int(rng.choice([3, 40, 120])), shape)
    if kind == "stripes":
        return np.indices(shape)[int(rng.integers(len(shape)))] % 11
    if kind == "background":
        return np.zeros(shape, np.int64)
    if kind == "one":
        return np.ones(shape, np.int64)
    return blobs(rng, shape)


def with_ids(rng: np.random.Generator, labels: Array, dtype: np.dtype[Any]) -> Array:
    """Give labels other ids: sparse, out of order, as large as the dtype (or 2^62) allows."""
    kind = str(rng.choice(["kept", "permuted", "sparse", "top"]))
    count = int(labels.max())
    if kind == "kept" or count == 0:
        return labels.astype(dtype)
    limit = min(int(np.iinfo(dtype).max), 2**62)
    if kind == "permuted":
        pool = np.arange(1, count + 1)
    elif kind == "sparse":
        pool = rng.choice(min(limit, 50 * count + 70_000), count, replace=False) + 1
    else:
        pool = limit - rng.choice(min(limit - 1, 3 * count), count, replace=False)
    names = np.concatenate([[0], rng.permutation(pool)])
    return names[labels].astype(dtype)


def pixels(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any], flavour: str
) -> Array:
    """An image (c, z, y, x)."""
    if dtype.kind == "b":
        return rng.random(shape) < rng.choice([0.02, 0.5])
    if dtype.kind == "f":
        return _floats(rng, shape, flavour).astype(dtype)
    info = np.iinfo(dtype)
    low, high = max(int(info.min), -100), min(int(info.max), 100)
    if flavour == "near the top":
        low, high = info.max - min(info.max // 2, 2**40), info.max
    elif flavour == "full range":
        low, high = info.min, info.max
    elif flavour == "huge offset" and info.max > 10**9 + 500:
        low, high = 10**9, 10**9 + 500
    image = rng.integers(low, high, shape, dtype, endpoint=True)
    if flavour == "constant":
        image[int(rng.integers(len(image)))] = int(rng.integers(low, high))
    return image


def _floats(rng: np.random.Generator, shape: tuple[int, ...], flavour: str) -> Array:
    image = rng.normal(size=shape)
    if flavour == "constant":
        image[int(rng.integers(len(image)))] = rng.choice([0.1, -1 / 3, 1e9 + 0.1, 0])
    elif flavour == "huge offset":
        image = 1e9 + 100 * image
    elif flavour == "near the top":
        image = image * 10.0 ** rng.integers(-30, 30)
    elif flavour == "full range":
        image = np.exp(4 * image) * np.sign(rng.normal(size=shape))
    elif flavour == "odd floats":
        odd = rng.random(shape)
        image[odd < 0.001] = np.nan
        image[(odd > 0.9) & (odd < 0.9005)] = np.inf
        image[odd > 0.9995] = -np.inf
        image[(odd > 0.5) & (odd < 0.6)] = -0.0
    return image


def asked_for(rng: np.random.Generator, mask: Array) -> Array | None:
    """Some of the labels and some absent ones, in any order; or all."""
    if rng.random() < 0.5:
        return None
    present = np.unique(mask)
    some = rng.choice(present, int(rng.integers(1, len(present) + 1)), replace=False)
    top = min(int(np.iinfo(mask.dtype).max), 2**63 - 1)
    absent = [v for v in (0, 1, 77, 101, top - 5) if v not in present]
    wanted = np.concatenate([some, np.array(absent[: int(rng.integers(0, 5))], mask.dtype)])
    return rng.permutation(wanted).astype(rng.choice([str(mask.dtype), "int64"]))


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    depth = int(rng.choice([1, 1, 2, 5]))
    shape = (depth, *(int(edge) for edge in rng.integers(3, 90 // depth + 10, 2)))
    image_dtype = np.dtype(IMAGE_DTYPES[seed % len(IMAGE_DTYPES)])
    mask_dtype = np.dtype(str(rng.choice(MASK_DTYPES)))
    flavour = str(rng.choice(FLAVOURS))
    mask = with_ids(rng, layout(rng, shape), mask_dtype)
    image = pixels(rng, (int(rng.integers(1, 5)), *shape), image_dtype, flavour)
    backings = tuple(str(rng.choice(BACKINGS)) for _ in range(2))
    statistics = rng.permutation(STATISTICS)[: int(rng.integers(1, len(STATISTICS) + 1))]
    if rng.random() < 0.4:
        statistics = np.array(STATISTICS)
    case = Case(
        image,
        mask,
        cut_all(rng, image.shape, backings[0]),
        cut_all(rng, mask.shape, backings[1]),
        *backings,
        int(rng.choice([16, 32, 64])),
        asked_for(rng, mask),
        tuple(str(name) for name in statistics),
    )
    case.about = {
        "seed": seed,
        "shape": image.shape,
        "dtypes": (str(image_dtype), str(mask_dtype)),
        "flavour": flavour,
        "backings": backings,
        "chunks": (case.image_chunks, case.mask_chunks),
        "statistics": case.statistics,
        "index": None if case.index is None else case.index.tolist()[:5],
    }
    return case
