"""The images of an extraction, stated plainly with numpy and scipy: what every test compares with.

The rules are those of scPortrait 1.8, from observation; see API.md for what differs on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage


@dataclass
class Expected:
    """What an extraction must give: rows in order, their pictures, and every id's fate."""

    ids: np.ndarray[Any, Any]
    images: np.ndarray[Any, Any]
    fates: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def removed(self) -> list[int]:
        return [cell for cell, (state, _) in self.fates.items() if state == "dropped"]


def centroids(mask: np.ndarray[Any, Any]) -> dict[int, tuple[int, int]]:
    """Rounded (half to even) mean (y, x) of each label's pixels, by ascending id."""
    found = {}
    for label in np.unique(mask):
        if label:
            pixels = np.argwhere(mask == label).astype(np.float64)
            y, x = np.round(pixels.sum(axis=0) / len(pixels))
            found[int(label)] = (int(y), int(x))
    return found


def window(plane: np.ndarray[Any, Any], y: int, x: int, half: int) -> np.ndarray[Any, Any]:
    """The window around a centre; zeros outside the image."""
    padded = np.pad(plane, half)
    return padded[y : y + 2 * half, x : x + 2 * half]


def blurred_mask(mask: np.ndarray[Any, Any], label: int) -> np.ndarray[Any, Any]:
    solid = ndimage.binary_fill_holes(mask == label)
    return ndimage.gaussian_filter(solid.astype(np.float64), 1, mode="nearest", truncate=4.0)


def reach(masks: list[np.ndarray[Any, Any]], label: int) -> np.ndarray[Any, Any]:
    """Where the blurred masks can be above zero: the label's bounding box, grown by 4 pixels.

    It matters to pixels that are no numbers alone: beyond it they are zero like any other, where
    scPortrait has 0 * NaN.
    """
    seen = np.zeros(masks[0].shape, bool)
    y, x = np.nonzero(np.any([mask == label for mask in masks], axis=0))
    seen[max(y.min() - 4, 0) : y.max() + 5, max(x.min() - 4, 0) : x.max() + 5] = True
    return seen


def normalised(
    values: np.ndarray[Any, Any], dtype: np.dtype[Any], quantiles: tuple[float, float] | None
) -> np.ndarray[Any, Any]:
    if quantiles is not None:
        low, high = (np.quantile(values.ravel(), q) for q in quantiles)
        values = values - low
        if high - low != 0:
            values = values / (high - low)
        return np.clip(values, 0, 1)
    if dtype.kind == "f":
        return values
    return np.clip(values, 0, None) / np.iinfo(dtype).max


def extraction(
    image: np.ndarray[Any, Any],
    masks: list[np.ndarray[Any, Any]],
    size: int,
    *,
    quantiles: tuple[float, float] | None = (0.001, 0.999),
    border: str = "discard",
    pick: tuple[int, int] | None = None,
) -> Expected:
    """Pictures and fates; image (c, y, x), masks nucleus first, `pick` = (n_cells, seed)."""
    half, (height, width) = size // 2, masks[0].shape
    centres = centroids(masks[0])
    known = list(centres)
    order = known
    if pick is not None:
        chosen = np.random.default_rng(pick[1]).choice(len(known), pick[0], replace=False)
        order = [known[i] for i in chosen]
    fates = dict.fromkeys(known, ("not_selected", ""))
    last_ids = set(np.unique(masks[-1]).tolist())
    rows, pictures = [], []
    for cell in order:
        y, x = centres[cell]
        outside = y <= half or x <= half or y >= height - half or x >= width - half
        if border == "discard" and outside:
            fates[cell] = ("dropped", "border")
            continue
        fates[cell] = ("written", "" if cell in last_ids else "no_cytosol")
        rows.append(cell)
        blurred = [blurred_mask(window(mask, y, x, half), cell) for mask in masks]
        planes = list(blurred)
        seen = window(reach(masks, cell), y, x, half)
        for plane in image:
            values = np.where(seen, window(plane, y, x, half) * blurred[-1], 0.0)
            planes.append(normalised(values, image.dtype, quantiles))
        with np.errstate(over="ignore"):
            pictures.append(np.stack(planes).astype(np.float16))
    for mask in masks[1:]:
        for cell in np.unique(mask).tolist():
            if cell and cell not in fates:
                fates[cell] = ("dropped", "no_nucleus")
    shape = (0, len(masks) + len(image), size, size)
    images = np.stack(pictures) if pictures else np.zeros(shape, np.float16)
    return Expected(np.array(rows, np.uint64), images, dict(sorted(fates.items())))
