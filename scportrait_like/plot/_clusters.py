"""Maps of clusters: each pixel in the colour of its metacluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.plot import _common as common
from scportrait_like.plot._legends import Legend, percent
from scportrait_like.plot._masks import Mask
from scportrait_like.plot._palette import cluster_colours, shades
from scportrait_like.plot._panels import LEFT, Panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST: Final = 7.0  # edge of a map, inches
_BELOW: Final = 0.42  # numbers and name of the axis
_GAP: Final = 0.15


def plot_cluster_map(
    clusters: Mask,
    metaclusters: npt.ArrayLike | None = None,
    *,
    counts: npt.ArrayLike | None = None,
    names: Mapping[int, str] | None = None,
    crop: common.Crop | None = None,
    scale: float = 1.0,
    title: str | None = None,
    footnote: str = "",
    save: str | Path | None = None,
) -> Figure:
    """Draw each pixel in the colour of its metacluster; a number always has the same colour.

    Parameters
    ----------
    clusters
        (y, x) integers, counted from 1; 0 is no cluster and drawn pale grey. Read only where it is
        drawn. For a large image pass a level of its pyramid, and its ``scale``.
    metaclusters
        (K,) integers: that of each cluster 1..K. Clusters then are shades of the colour of their
        metacluster. None: the numbers in ``clusters`` are those of metaclusters.
    counts
        (m + 1,) numbers: pixels of no cluster, then of each metacluster 1..m, where the legend
        shall tell their shares of more than is drawn.
    names
        Names of metaclusters by number, such as ``{3: "B cells"}``.
    crop
        (y0, y1, x0, x1) in pixels of ``clusters``.
    scale
        Pixels of the full image in one pixel of ``clusters``; the axes count those of the full
        image.
    title, footnote
        Drawn above and below.
    save
        Where to write the picture; the suffix chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
        The map and a legend with each metacluster's share of the pixels that have one.

    Raises
    ------
    InputError, ShapeError
        The arguments do not fit each other.
    """
    mask = common.checked_labels(clusters)
    crop = common.checked_crop(crop, (mask.shape[0], mask.shape[1]))
    y0, y1, x0, x1 = crop
    numbers, inverse, seen = np.unique(
        np.asarray(mask[y0:y1, x0:x1]), return_inverse=True, return_counts=True
    )
    of_each = checked_metaclusters(metaclusters)
    colours, groups = _coloured(numbers.astype(np.int64), of_each)
    painted = np.round(colours * 255).astype(np.uint8)[inverse.reshape(y1 - y0, x1 - x0)]
    legend, none = _legend(groups, seen, counts, names)

    width, height = common.fitted(crop, _LONGEST)
    wide, tall = legend.size(height)
    notes = [f"{scale:.0f} x {scale:.0f} pixels seen as one"] if scale > 1.5 else []
    notes += ["shades: clusters"] if of_each is not None else []
    notes += [f"no cluster: {none} of the pixels"] if none else []
    page = Panels.grid(
        1,
        (width, height),
        beside=_GAP + wide,
        below=max(_BELOW, tall - height),
        last=0,
        title=None,
        footnote="; ".join([*notes, footnote] if footnote else notes),
    )
    left, bottom, _, _ = page.boxes[0]
    axes = common.show(page.figure, (left, bottom, width, height), painted, crop, scale)
    axes.images[0].set_interpolation("nearest")  # no colours that are nobody's
    if title:
        page.name(0, title, width)
    legend.draw(page, LEFT + width + _GAP, bottom + height, height)
    return page.finish(save)


def checked_metaclusters(metaclusters: npt.ArrayLike | None) -> npt.NDArray[np.int64] | None:
    """Return the metacluster of each cluster (K,), counted from 1."""
    if metaclusters is None:
        return None
    found = np.asarray(metaclusters)
    if found.ndim != 1 or not found.size:
        raise ShapeError(f"metaclusters must be (K,) and not empty, but are {found.shape}.")
    if found.dtype.kind not in "ui" or found.min() < 1:
        raise InputError("metaclusters must be integers, counted from 1.")
    return found.astype(np.int64)


def _coloured(
    numbers: npt.NDArray[np.int64], metaclusters: npt.NDArray[np.int64] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return a colour (n, 3) for each number, and the metacluster (n,) it counts for."""
    if numbers.size and numbers.min() < 0:
        raise InputError("clusters are counted from 1, but there are numbers below 0.")
    if metaclusters is None:
        return cluster_colours(numbers.tolist()), numbers
    if numbers.max() > len(metaclusters):
        raise InputError(
            f"there is a cluster {numbers.max()}, but metaclusters has only {len(metaclusters)}."
        )
    colours = np.concatenate([cluster_colours([0]), shades(metaclusters)])
    groups = np.concatenate([[0], metaclusters])
    return colours[numbers], groups[numbers]


def _legend(
    groups: npt.NDArray[np.int64],
    seen: npt.NDArray[Any],
    counts: npt.ArrayLike | None,
    names: Mapping[int, str] | None,
) -> tuple[Legend, str]:
    """List the metaclusters in view, or all that were counted; and the share of no cluster."""
    if counts is None:
        each, where = np.unique(groups, return_inverse=True)
        sums = np.bincount(where, seen, len(each)).astype(np.int64)
        found = dict(zip(each.tolist(), sums.tolist(), strict=True))
        of = "in view"
    else:
        known = np.asarray(counts)
        if known.ndim != 1 or known.size < 2 or groups.max(initial=0) >= known.size:
            raise ShapeError(
                "counts must be (m + 1,), no cluster first, with m at least the largest "
                f"metacluster in view, {groups.max(initial=0)}, but are {known.shape}."
            )
        found = {k: int(n) for k, n in enumerate(known) if n > 0 or k in groups}
        of = "of pixels"
    total, without = sum(found.values()), found.pop(0, 0)
    return Legend.listing(found, names, of, without), percent(without, total) if without else ""
