"""Small random inputs of an extraction, with everything in them that is awkward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .helpers import Array

IMAGE_DTYPES = ("uint8", "uint16", "uint32", "int16", "float32", "float64")
ID_RANGES = {"grid": 0, "uint16": 300, "uint32": 70_000, "int64": 2**33, "uint64": 2**62}


@dataclass
class Case:
    """One input, and the settings to extract it with."""

    image: Array
    masks: list[Array]
    config: dict[str, Any]
    chunks: dict[str, tuple[int, int]]
    tile: int
    pick: tuple[int, int] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def quantiles(self) -> tuple[float, float] | None:
        return self.config["normalization_range"] if self.config["normalize_output"] else None


def blobs(rng: np.random.Generator, shape: tuple[int, int], full: bool) -> Array:
    """Labels 1..n: ellipses, some with holes, in two pieces or of one pixel; or no background."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    count = int(rng.integers(1, 40))
    centres = rng.uniform(0, shape, (count, 2))
    if full:
        distance = [(yy - y) ** 2 + (xx - x) ** 2 for y, x in centres]
        return np.argmin(distance, axis=0).astype(np.int64) + 1
    labels = np.zeros(shape, np.int64)
    for label, (y, x) in enumerate(centres, 1):
        for _ in range(int(rng.integers(1, 3))):
            a, b = rng.uniform(0.4, 9, 2)
            distance = ((yy - y) / a) ** 2 + ((xx - x) / b) ** 2
            labels[(distance <= 1) & (distance >= rng.choice([0, 0, 0, 0.2]))] = label
            y, x = y + rng.normal(0, 8), x + rng.normal(0, 8)
    return labels


def with_ids(rng: np.random.Generator, labels: Array, kind: str) -> Array:
    """Give labels other ids: sparse, out of order."""
    start, count = ID_RANGES[kind], int(labels.max())
    if kind == "grid":
        return labels.astype(np.uint32)
    pool = start + rng.choice(50 * count + 10, count, replace=False).astype(np.int64) + 1
    names = np.concatenate([[0], rng.permutation(pool)])
    return names[labels].astype(np.int64 if kind == "int64" else kind)


def second_mask(rng: np.random.Generator, mask: Array) -> Array:
    """Nuclei: parts of the cells, some missing, some of a cell that has no cytosol."""
    nuclei = np.where(rng.random(mask.shape) < 0.7, mask, 0)
    ids = np.unique(mask[mask > 0])
    missing = rng.choice(ids, len(ids) // 4, replace=False)
    nuclei[np.isin(nuclei, missing)] = 0
    if rng.random() < 0.5:
        nuclei[tuple(rng.integers(0, mask.shape))] = ids.max() + 7
    if not nuclei.any():
        nuclei[0, 0] = ids[0]
    return nuclei.astype(mask.dtype)


def pixels(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        image = rng.random(shape).astype(dtype)
    else:
        info = np.iinfo(dtype)
        top = int(rng.choice([info.max, 200]))
        image = rng.integers(max(info.min, -top), top, shape, dtype, endpoint=True)
    image[image < np.quantile(image, 0.3)] = 0
    if rng.random() < 0.3:
        image[0] = image[0].max()
    return image


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    shape = tuple(int(edge) for edge in rng.integers(34, 150, 2))
    dtype = np.dtype(str(rng.choice(IMAGE_DTYPES)))
    kind = str(rng.choice(list(ID_RANGES)))
    full = bool(rng.random() < 0.2)
    image = pixels(rng, (int(rng.integers(1, 4)), *shape), dtype)
    labels = blobs(rng, (shape[0], shape[1]), full)
    if not labels.any():
        labels[shape[0] // 2, shape[1] // 2] = 1
    mask = with_ids(rng, labels, kind)
    masks = [second_mask(rng, mask), mask] if rng.random() < 0.5 else [mask]
    lower = float(rng.choice([0, 0.001, 0.01, 0.1]))
    config = {
        "image_size": int(rng.choice([2, 8, 16, 24, 32])),
        "normalize_output": bool(rng.random() < 0.7),
        "normalization_range": (lower, float(rng.choice([1, 0.999, 0.99, 0.9]))),
        "compression": rng.choice(np.array([True, "gzip", False], object)),
        "border": str(rng.choice(["discard", "pad"])),
        "max_batch_size": int(rng.choice([1, 3, 1000])),
        "threads": 2,
    }
    edges = [16, 32, 64, 256]
    chunks = {name: (int(rng.choice(edges)), int(rng.choice(edges))) for name in ("image", "mask")}
    pick = None
    if rng.random() < 0.3:
        known = len(np.unique(masks[0][masks[0] > 0]))
        pick = int(rng.integers(1, known, endpoint=True)), int(rng.integers(100))
    about = {"ids": kind, "dtype": str(dtype), "shape": shape, "full": full, **config, **chunks}
    return Case(image, masks, config, chunks, int(rng.choice([16, 32, 64])), pick, about)
