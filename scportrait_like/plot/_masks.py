"""Masks in colours that tell neighbours apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError
from scportrait_like.plot import _common as common

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Tableau's and Okabe and Ito's light tones: far apart from each other, and from the background.
PALETTE: Final = (
    "#4e9de6", "#f28e2b", "#e15759", "#76d7c4", "#59c14f", "#f7dc4b", "#b07aa1", "#ff9da7",
    "#c49c6b", "#d0d0d0", "#7d6bff", "#c5e86c",
)  # fmt: skip
BACKGROUND: Final = "#101014"
Mask = common.Plane | npt.ArrayLike
# With more objects in view each is a few pixels, and nobody follows the border of one.
_TOLD_APART: Final = 60_000


def plot_masks(
    labels: Mask | Sequence[Mask] | Mapping[str, Mask],
    *,
    crop: common.Crop | None = None,
    scale: float = 1.0,
    seed: int = 0,
    save: str | Path | None = None,
) -> Figure:
    """Draw masks side by side; neighbouring cells never share a colour, unless there are too many.

    Parameters
    ----------
    labels
        One mask (y, x), a list of them, or masks by name; integers, 0 is background. A zarr array
        is read only where it is drawn.
    crop
        (y0, y1, x0, x1) in pixels.
    scale
        Pixels of the full image in one pixel of the mask; the axes count those of the full image.
    seed
        Of the choice of colours.
    save
        Where to write the picture; the suffix chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a mask, its title the name and the number of objects drawn. In a coarse level of a
        pyramid (``scale`` above 1) small objects may be lost, and the title says so.

    Raises
    ------
    InputError, ShapeError
        A mask is missing, empty, not of integers, or the crop lies outside.
    """
    masks = _checked_masks(labels)
    crops = [common.checked_crop(crop, (m.shape[0], m.shape[1])) for m in masks.values()]
    sizes = [common.fitted(box, 7.0 if len(masks) == 1 else 5.5) for box in crops]
    tall = max(height for _, height in sizes) + 1.0
    figure = common.new_figure(sum(width + 0.95 for width, _ in sizes) + 0.1, tall)
    titles, left = [], 0.75
    for (name, mask), (y0, y1, x0, x1), (width, height) in zip(
        masks.items(), crops, sizes, strict=True
    ):
        rgb, n = _coloured(np.asarray(mask[y0:y1, x0:x1]), seed)
        box = (left, tall - 0.45 - height, width, height)
        axes = common.show(figure, box, rgb, (y0, y1, x0, x1), scale)
        objects = f"{n:,} object{'' if n == 1 else 's'}"
        if scale > 1:
            objects += f" (1:{scale:.0f})"
        room = int(width / 0.105) - len(objects) - 2
        title = f"{common.shorten(name, room)}: {objects}" if name else objects
        titles.append(axes.set_title(title, fontsize=11, loc="left"))
        left += width + 0.95
    return common.finish(figure, titles, save)


def neighbours(compact: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the pairs (n, 2) of labels that touch or are at most two pixels apart, once each."""
    pairs = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0)):
        height, width = compact.shape
        first = compact[: height - dy, max(-dx, 0) : width - max(dx, 0)].ravel()
        second = compact[dy:, max(dx, 0) : width + min(dx, 0)].ravel()
        apart = (first != second) & (first > 0) & (second > 0)
        pairs.append(np.stack([first[apart], second[apart]], axis=1))
    together = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(together, axis=0)


def choose_colours(n: int, pairs: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Give each of the labels 1..n a colour of the palette that none of its neighbours has.

    Greedy, in order of the labels: a map needs few colours more than its busiest cell has
    neighbours, so twelve suffice; beyond that the colour that fewest neighbours have is taken.
    """
    beside: list[list[int]] = [[] for _ in range(n + 1)]
    for a, b in pairs.tolist():
        beside[b].append(a)  # a < b, so a has its colour already
    generator = np.random.default_rng(seed)
    preferred = generator.integers(0, len(PALETTE), n + 1)
    if len(pairs) == 0:
        return preferred
    colours = np.zeros(n + 1, np.int64)
    for label in range(1, n + 1):
        taken = np.bincount(colours[beside[label]], minlength=len(PALETTE))
        order = np.roll(np.arange(len(PALETTE)), -preferred[label])
        colours[label] = order[np.argmin(taken[order])]
    return colours


def _checked_masks(
    labels: Mask | Sequence[Mask] | Mapping[str, Mask],
) -> dict[str, common.Plane]:
    if isinstance(labels, Mapping):
        named = {str(name): mask for name, mask in labels.items()}
    elif isinstance(labels, (list, tuple)) and (not labels or np.ndim(labels[0]) == 2):
        named = {f"mask {k + 1}": mask for k, mask in enumerate(labels)}
    else:
        named = {"": labels}  # type: ignore[dict-item]
    if not named:
        raise InputError("There is no mask to draw.")
    return {name: common.checked_labels(mask) for name, mask in named.items()}


def _coloured(mask: npt.NDArray[Any], seed: int) -> tuple[npt.NDArray[np.float32], int]:
    """Colour a mask: (y, x, 3), and the number of objects in it."""
    from matplotlib.colors import to_rgb

    ids, inverse = np.unique(mask, return_inverse=True)
    has_background = bool((ids == 0).any())
    # With 0 first the compact labels are 1..n; negative ids do not occur in masks.
    compact = inverse.reshape(mask.shape).astype(np.int64) + (0 if has_background else 1)
    n = len(ids) - has_background
    table = np.array([to_rgb(BACKGROUND), *map(to_rgb, PALETTE)], np.float32)
    pairs = neighbours(compact) if n <= _TOLD_APART else np.empty((0, 2), np.int64)
    colours = choose_colours(n, pairs, seed) + 1
    colours[0] = 0
    return table[colours[compact]], n
