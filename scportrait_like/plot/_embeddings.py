"""Cells in the plane: the two directions in which their features differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.plot import _common as common
from scportrait_like.plot._legends import Legend, checked_names
from scportrait_like.plot._palette import cluster_colours
from scportrait_like.plot._panels import LEFT, Panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

_EDGE: Final = 4.6  # inches
_GAP: Final = 0.15
_BAR: Final = 0.12
_BELOW: Final = 0.45
_POINTS: Final = 3000  # cells; more are counted in squares, where they have no groups
_SQUARES: Final = 110
_TRIMMED: Final = (0.1, 99.9)  # percentiles of each axis that are surely on the page
_MARGIN: Final = 0.06
_ONE_COLOUR: Final = "#3f7fae"


@dataclass(frozen=True)
class Components:
    """Cells along the principal components of their features.

    Attributes
    ----------
    points
        (n, 2) float64.
    shares
        (2,) of all variance of the standardised features.
    rows
        (n,) rows of what was given: those that are finite throughout.
    """

    points: Floats
    shares: tuple[float, float]
    rows: npt.NDArray[np.int64]


def principal_components(values: npt.ArrayLike) -> Components:
    """Project rows onto the first two principal components of their standardised columns.

    Parameters
    ----------
    values
        (n, d) numbers. Columns that do not vary among finite rows count for nothing; columns of
        which less than half is finite are left out, then rows that are not finite throughout.

    Raises
    ------
    ShapeError
        Another shape.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2:
        raise ShapeError(f"values must be (n, d), but are {table.shape}.")
    there = np.isfinite(table)
    kept = there.mean(axis=0) >= 0.5 if len(table) else np.zeros(table.shape[1], bool)
    rows = np.flatnonzero(there[:, kept].all(axis=1))
    inner = table[rows][:, kept]
    if min(inner.shape) == 0:
        return Components(np.zeros((len(rows), 2)), (0.0, 0.0), rows)
    inner = inner - inner.mean(axis=0)
    deviation = inner.std(axis=0)
    flat = deviation <= 1e-9 * np.abs(table[rows][:, kept]).max(axis=0)
    inner = np.where(flat, 0.0, inner / np.where(flat, 1.0, deviation))
    variances, vectors = np.linalg.eigh(inner.T @ inner)
    total = float(variances.sum())
    first = np.zeros((inner.shape[1], 2))
    n = min(2, inner.shape[1])
    first[:, :n] = vectors[:, ::-1][:, :n]
    # Of a direction and its opposite, that whose largest weight is positive.
    largest = np.abs(first).argmax(axis=0)
    first *= np.where(first[largest, [0, 1]] < 0, -1.0, 1.0)
    ends = [*(max(float(v), 0.0) / total if total else 0.0 for v in variances[::-1][:n]), 0.0]
    return Components(inner @ first, (ends[0], ends[1]), rows)


def plot_embedding(
    points: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    names: Mapping[int, str] | None = None,
    axis_names: Sequence[str] = ("1", "2"),
    title: str | None = None,
    footnote: str = "",
    save: str | Path | None = None,
) -> Figure:
    """Draw cells in the plane.

    Parameters
    ----------
    points
        (n, 2) finite numbers.
    groups
        (n,) integers counted from 1, such as each cell's commonest metacluster; 0 is none. Points
        have the colours of those in `plot_cluster_map`. None: more than 3,000 points are counted in
        squares.
    names
        Of groups by number.
    axis_names
        Of x and y.
    title, footnote
        Drawn above and below.
    save
        Where to write the picture; the suffix chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
        The axes hold 99.8 % of the points of each; the footnote tells how many lie beyond.

    Raises
    ------
    InputError, ShapeError
        The arguments do not fit each other.
    """
    places = np.asarray(points, np.float64)
    if places.ndim != 2 or places.shape[1] != 2 or len(axis_names) != 2:
        raise ShapeError(f"points must be (n, 2), with two axis_names, but are {places.shape}.")
    if not np.isfinite(places).all():
        raise InputError("points hold NaN or infinity.")
    legend, of_each, named = None, None, checked_names(names)
    if groups is not None:
        of_each = np.asarray(groups)
        if of_each.shape != places.shape[:1] or of_each.dtype.kind not in "ui":
            raise ShapeError(f"groups must be ({len(places)},) integers.")
        numbers, counts = np.unique(of_each, return_counts=True)
        found = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        without = found.pop(0, 0)
        legend = Legend.listing(found, named, "of cells", without)
    box, beyond = _extent(places)
    notes = [f"{len(places):,} cell{'' if len(places) == 1 else 's'}"]
    notes += [f"{beyond:,} beyond the axes"] if beyond else []
    wide, tall = legend.size(_EDGE) if legend is not None else (0.9, _EDGE)
    page = Panels.grid(
        1,
        (_EDGE, _EDGE),
        beside=_GAP + wide,
        below=max(_BELOW, tall - _EDGE),
        last=0,
        title=None,
        footnote="; ".join([*notes, footnote] if footnote else notes),
    )
    if title:
        page.name(0, title, _EDGE)
    axes = page.axes(page.boxes[0])
    axes.set_xlim(*box[0])
    axes.set_ylim(*box[1])
    axes.tick_params(labelsize=8)
    page.texts.append(axes.set_xlabel(common.shorten(axis_names[0], 50), fontsize=9))
    page.texts.append(axes.set_ylabel(common.shorten(axis_names[1], 50), fontsize=9))
    if legend is None or of_each is None:
        _draw_density(page, axes, places, box)
    else:
        _draw_points(axes, places, cluster_colours(of_each.tolist()))
        legend.draw(page, LEFT + _EDGE + _GAP, page.boxes[0][1] + _EDGE, _EDGE)
    return page.finish(save)


def _extent(places: Floats) -> tuple[list[tuple[float, float]], int]:
    """Return the ends of both axes, and how many points lie beyond."""
    if not len(places):
        return [(0.0, 1.0), (0.0, 1.0)], 0
    ends = np.percentile(places, _TRIMMED, axis=0)
    wide = ends[1] - ends[0]
    margin = np.where(wide > 1e-9 * np.abs(ends).max(axis=0), _MARGIN * wide, 0.5)
    low, high = ends[0] - margin, ends[1] + margin
    inside = ((places >= low) & (places <= high)).all(axis=1)
    ranges = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return ranges, int((~inside).sum())


def _draw_points(axes: Axes, places: Floats, colours: Floats | str) -> None:
    size = float(np.clip(20_000 / max(len(places), 1), 1.0, 12.0))
    # In an order that has nothing to do with groups, or the last would cover the others.
    order = np.random.default_rng(0).permutation(len(places))
    axes.scatter(
        places[order, 0],
        places[order, 1],
        s=size,
        c=colours if isinstance(colours, str) else colours[order].tolist(),
        linewidths=0,
        alpha=0.8,
        rasterized=True,
    )


def _draw_density(page: Panels, axes: Axes, places: Floats, box: list[tuple[float, float]]) -> None:
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    if len(places) <= _POINTS:
        _draw_points(axes, places, _ONE_COLOUR)
        return
    counts, x, y = np.histogram2d(places[:, 0], places[:, 1], _SQUARES, box)
    norm = LogNorm(1, max(float(counts.max()), 2.0))
    colours = mpl.colormaps["viridis"]
    axes.pcolormesh(x, y, np.ma.masked_less(counts.T, 1), cmap=colours, norm=norm, rasterized=True)
    left, bottom, width, height = page.boxes[0]
    bar = page.axes((left + width + _GAP, bottom, _BAR, height))
    drawn = page.figure.colorbar(ScalarMappable(norm, colours), cax=bar)
    drawn.outline.set_linewidth(0.5)
    bar.tick_params(labelsize=8, length=2)
    style = {"va": "bottom", "fontsize": 8, "color": "#505050"}
    page.write(left + width + _GAP, bottom + height + 0.07, "cells", 0.8, **style)
