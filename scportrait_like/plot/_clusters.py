"""Maps of clusters: each pixel in the colour of its metacluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.plot import _common as common
from scportrait_like.plot._legends import Legend, checked_names, percent
from scportrait_like.plot._masks import BACKGROUND, Mask
from scportrait_like.plot._palette import cluster_colours, shades
from scportrait_like.plot._panels import LEFT, Panels
from scportrait_like.plot._values import checked_ids, rows_of_pixels

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
        Names of metaclusters by number, such as ``{3: "B cells"}``; numbers may be text.
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
    most = None if of_each is None else int(of_each.max())
    legend, none = _legend(groups, seen, counts, names, most)

    notes = ["shades: clusters"] if of_each is not None else []
    notes += [f"no cluster: {none} of the pixels"] if none else []
    notes += [footnote] if footnote else []
    return _page(painted, crop, scale, legend, notes, title).finish(save)


def plot_cluster_cells(
    mask: Mask,
    ids: npt.ArrayLike,
    metaclusters: npt.ArrayLike,
    *,
    names: Mapping[int, str] | None = None,
    crop: common.Crop | None = None,
    scale: float = 1.0,
    title: str | None = None,
    footnote: str = "",
    save: str | Path | None = None,
) -> Figure:
    """Draw each cell of a mask in the colour of its metacluster, such as that of most its pixels.

    Parameters
    ----------
    mask
        (y, x) integers, 0 is background, which is drawn dark. Read only where it is drawn. For a
        large mask pass a level of its pyramid, and its ``scale``.
    ids
        (n,) integers, all different, in any order: the labels.
    metaclusters
        (n,) integers, counted from 1; 0 is none. Those cells are drawn pale grey, and so are cells
        that are not among `ids`.
    names
        Names of metaclusters by number; numbers may be text.
    crop
        (y0, y1, x0, x1) in pixels of ``mask``.
    scale
        Pixels of the full image in one pixel of the mask; the axes count those of the full image.
    title, footnote
        Drawn above and below.
    save
        Where to write the picture; the suffix chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
        The cells, and a legend with each metacluster's share of the cells that have one: of all
        `ids`, or with `crop` of those in view.

    Raises
    ------
    InputError, ShapeError
        The arguments do not fit each other.
    """
    from matplotlib.colors import to_rgb

    cells, groups = common.checked_labels(mask), np.asarray(metaclusters)
    if groups.ndim != 1 or np.shape(ids) != groups.shape:
        raise ShapeError(
            f"ids and metaclusters must be (n,), but are {np.shape(ids)} and {groups.shape}."
        )
    if len(groups) and (groups.dtype.kind not in "ui" or groups.min() < 0):
        raise InputError("metaclusters must be integers, counted from 1, or 0 for none.")
    keys, groups = checked_ids(ids, groups.astype(np.int64))
    box = common.checked_crop(crop, (cells.shape[0], cells.shape[1]))
    y0, y1, x0, x1 = box
    rows, _ = rows_of_pixels(np.asarray(cells[y0:y1, x0:x1]), keys)
    of_rows = np.concatenate([groups, [0, 0]])
    colours = cluster_colours(of_rows.tolist())
    colours[-1] = to_rgb(BACKGROUND)
    painted = np.round(colours * 255).astype(np.uint8)[rows]
    seen = np.unique(rows)
    of_cells = groups if crop is None else of_rows[seen[seen <= len(keys)]]
    found = {int(k): int(n) for k, n in zip(*np.unique(of_cells, return_counts=True), strict=True)}
    without = found.pop(0, 0) or int((rows == len(keys)).any())
    of = "of cells" if crop is None else "in view"
    legend = Legend.listing(found, checked_names(names), of, without)
    notes = [f"{len(of_cells):,} cell{'' if len(of_cells) == 1 else 's'}"]
    notes += [footnote] if footnote else []
    return _page(painted, box, scale, legend, notes, title).finish(save)


def _page(
    painted: npt.NDArray[np.uint8],
    crop: common.Crop,
    scale: float,
    legend: Legend,
    notes: list[str],
    title: str | None,
) -> Panels:
    """Return a page with a picture (y, x, 3) and the legend beside it."""
    width, height = common.fitted(crop, _LONGEST)
    wide, tall = legend.size(height)
    thinned = [f"{scale:.0f} x {scale:.0f} pixels seen as one"] if scale > 1.5 else []
    page = Panels.grid(
        1,
        (width, height),
        beside=_GAP + wide,
        below=max(_BELOW, tall - height),
        last=0,
        title=None,
        footnote="; ".join([*thinned, *notes]),
    )
    left, bottom, _, _ = page.boxes[0]
    axes = common.show(page.figure, (left, bottom, width, height), painted, crop, scale)
    axes.images[0].set_interpolation("nearest")  # no colours that are nobody's
    if title:
        page.name(0, title, width)
    legend.draw(page, LEFT + width + _GAP, bottom + height, height)
    return page


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
    most: int | None,
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
        of, most = "of pixels", known.size - 1
    total, without = sum(found.values()), found.pop(0, 0)
    return Legend.listing(found, checked_names(names, most), of, without), percent(
        without, total
    ) if without else ""
