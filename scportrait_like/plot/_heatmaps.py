"""Heatmaps: what distinguishes clusters, channel by channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.plot import _common as common
from scportrait_like.plot._clusters import checked_metaclusters
from scportrait_like.plot._legends import checked_names, cluster_name, percent
from scportrait_like.plot._palette import cluster_colours, ink_upon
from scportrait_like.plot._panels import PAGE, Panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
HeatmapValues = Literal["z", "mean"]
HeatmapOrder = Literal["similar", "number"]

_NO_VALUE: Final = "#c8c8c8"
# Inches
_COLUMN: Final = (0.2, 0.42)  # width of a channel: least, most
_ROW: Final = (0.26, 0.11, 0.05)  # height of a row of clusters: few, more, very many
_LABEL: Final = 0.14  # least distance of two names; rows of metaclusters are as high
_STRIP: Final = 0.22
_GAP: Final = 0.06
_LEAD: Final = 0.08  # between names and their colours
_CHARACTER: Final = 0.082  # at 9 points, generously
_NAME: Final = 20  # characters of a channel's name
_SHARES: Final = 1.2  # bars, and the shares written beside them
_BARS: Final = 0.55
_SCALE: Final = 0.72  # below: the colour bar, its name and numbers


@dataclass(frozen=True)
class _Rows:
    """Rows of the heatmap in the order drawn.

    Attributes
    ----------
    order
        (r,) rows of what was given.
    groups
        (r,) numbers whose colours stand beside the rows: metaclusters.
    names
        Of each run of equal groups.
    """

    order: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    names: list[str]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """First and last + 1 row of each group."""
        edges = np.flatnonzero(np.diff(self.groups)) + 1
        return list(zip([0, *edges.tolist()], [*edges.tolist(), len(self.groups)], strict=True))


def plot_cluster_heatmap(
    means: npt.ArrayLike,
    channel_names: Sequence[str] | None = None,
    *,
    metaclusters: npt.ArrayLike | None = None,
    counts: npt.ArrayLike | None = None,
    names: Mapping[int, str] | None = None,
    values: HeatmapValues = "z",
    order: HeatmapOrder = "similar",
    limit: float = 3.0,
    title: str | None = None,
    footnote: str = "",
    save: str | Path | None = None,
) -> Figure:
    """Draw the mean of each cluster in each channel, as it is or as z-scores over the clusters.

    Parameters
    ----------
    means
        (K, c) numbers: those of cluster (or metacluster) 1..K; NaN where it has no pixel.
    channel_names
        One name a channel; long ones are shortened in the middle.
    metaclusters
        (K,) integers: that of each cluster; the rows of a metacluster then stand together. None:
        the rows are metaclusters.
    counts
        (K,) pixels of each row; their shares are drawn beside.
    names
        Names of metaclusters by number.
    values
        "z": how many standard deviations a mean lies from those of the other rows, which tells what
        distinguishes a row but not by how much: of few rows one is far away in nearly every
        channel. "mean": the means themselves, all channels in one scale.
    order
        "similar": rows and columns that are alike stand side by side (average linkage of z-scores,
        leaves in the order of Bar-Joseph et al. 2001). "number": rows by their metacluster, then by
        their own number, columns as they are given: the same in several pictures.
    limit
        z-scores beyond have the last colours.
    title, footnote
        Drawn above and below.
    save
        Where to write the picture; the suffix chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
        The z-score is (mean - m) / s, with m and s those of a channel over the rows, each row once;
        0 where all rows are equal.

    Raises
    ------
    InputError, ShapeError
        The arguments do not fit each other.
    """
    table, channels, sizes = _checked(means, channel_names, counts)
    of_each = checked_metaclusters(metaclusters)
    if of_each is not None and len(of_each) != len(table):
        raise ShapeError(f"{len(of_each)} metaclusters were given for {len(table)} clusters.")
    if not limit > 0:
        raise InputError(f"limit={limit}: expected a number above 0.")
    for name, value, known in (("values", values, HeatmapValues), ("order", order, HeatmapOrder)):
        if value not in get_args(known):
            raise InputError(f"{name}={value!r}: expected one of {', '.join(get_args(known))}.")
    named = checked_names(names, len(table) if of_each is None else int(of_each.max()))
    scores = z_scores(table)
    rows = _arranged(scores, of_each, named, order == "similar")
    columns = list(range(len(channels)))
    if order == "similar":
        columns = _leaves(np.nan_to_num(scores).T)
    page, below = _page(rows, [channels[k] for k in columns], sizes is not None, footnote)
    box = page.boxes[0]
    if title:
        page.name(0, title, box[2])
    scale = _Scale.of_scores(scores, limit) if values == "z" else _Scale.of_means(table)
    shown = scores if values == "z" else table
    _draw(page, below, shown[rows.order][:, columns], scale)
    _write_columns(page, box, [channels[k] for k in columns])
    _draw_groups(page, box, rows, of_each is not None)
    if sizes is not None:
        _draw_shares(page, box, rows, sizes)
    return page.finish(save)


@dataclass(frozen=True)
class _Scale:
    """Which values have which colours, and what they are called."""

    low: float
    high: float
    ticks: list[float]
    colours: str
    name: str
    beyond: bool = False

    @classmethod
    def of_scores(cls, scores: Floats, limit: float) -> _Scale:
        top = float(min(limit, np.nanmax(np.abs(scores), initial=0.0)) or 1.0)
        beyond = bool((np.abs(scores) > top).any())
        return cls(-top, top, [-top, 0, top], "RdBu_r", "z-score over the rows", beyond)

    @classmethod
    def of_means(cls, means: Floats) -> _Scale:
        there = means[np.isfinite(means)]
        low, high = min(0.0, there.min(initial=0.0)), there.max(initial=0.0)
        high = float(high if high > low else low + 1)
        return cls(float(low), high, [float(low), high], "viridis", "mean")


def z_scores(means: Floats) -> Floats:
    """Return how far each mean (K, c) lies from those of its column, in standard deviations."""
    there = np.isfinite(means)
    n = np.maximum(there.sum(axis=0), 1)
    filled = np.where(there, means, 0.0)
    apart = np.where(there, means - filled.sum(axis=0) / n, 0.0)
    deviation = np.sqrt((apart**2).sum(axis=0) / n)
    # What rounding alone leaves is no deviation.
    flat = deviation <= 1e-12 * np.abs(filled).max(axis=0, initial=0.0)
    scores = np.where(flat, 0.0, apart / np.where(flat, 1.0, deviation))
    return np.where(there, scores, np.nan)


def _checked(
    means: npt.ArrayLike, channel_names: Sequence[str] | None, counts: npt.ArrayLike | None
) -> tuple[Floats, list[str], Floats | None]:
    table = np.asarray(means, np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise ShapeError(f"means must be (K, c) and not empty, but are {table.shape}.")
    n = table.shape[1]
    channels = [str(name) for name in (range(n) if channel_names is None else channel_names)]
    if len(channels) != n:
        raise ShapeError(f"{len(channels)} channel names were given for {n} channels.")
    sizes = None if counts is None else np.asarray(counts, np.float64)
    if sizes is not None and sizes.shape != (len(table),):
        raise ShapeError(f"counts must be ({len(table)},), but are {sizes.shape}.")
    return np.where(np.isfinite(table), table, np.nan), channels, sizes


def _leaves(vectors: Floats) -> list[int]:
    """Return an order of vectors (n, d) in which those that are alike are neighbours."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(vectors) < 3:
        return list(range(len(vectors)))
    order: list[int] = leaves_list(linkage(vectors, "average", optimal_ordering=True)).tolist()
    return order


def _arranged(
    scores: Floats,
    metaclusters: npt.NDArray[np.int64] | None,
    names: Mapping[int, str],
    similar: bool,
) -> _Rows:
    filled = np.nan_to_num(scores)

    def leaves(vectors: Floats) -> list[int]:
        return _leaves(vectors) if similar else list(range(len(vectors)))

    if metaclusters is None:
        order = np.asarray(leaves(filled), np.int64)
        return _Rows(order, order + 1, [cluster_name(int(k) + 1, names) for k in order])
    groups = np.unique(metaclusters)
    middles = np.stack([filled[metaclusters == group].mean(axis=0) for group in groups])
    order = np.concatenate(
        [
            members[leaves(filled[members])]
            for members in (np.flatnonzero(metaclusters == groups[k]) for k in leaves(middles))
        ]
    )
    arranged = _Rows(order, metaclusters[order], [])
    starts = [int(arranged.groups[first]) for first, _ in arranged.runs]
    return _Rows(order, arranged.groups, [cluster_name(group, names) for group in starts])


def _row(n: int, of_clusters: bool) -> float:
    """Return the height of a row; each of a metacluster has room for its name."""
    if n <= 40:
        return _ROW[0]
    if not of_clusters:
        return _LABEL
    return _ROW[1] if n <= 100 else _ROW[2]


def _page(rows: _Rows, channels: list[str], shares: bool, footnote: str) -> tuple[Panels, float]:
    """Return the page with the box of the heatmap, and what stands below that."""
    n, c = len(rows.order), len(channels)
    left = (
        0.15 + _CHARACTER * max(map(common.text_width, rows.names)) + _LEAD + _GAP + _STRIP + _GAP
    )
    beside = _GAP + (_SHARES if shares else 0.1)
    width = c * float(np.clip((PAGE - left - beside) / c, *_COLUMN))
    # Of thin rows too there are no more names than have room beside them.
    height = max(n * _row(n, len(rows.runs) < n), len(rows.runs) * _LABEL)
    longest = max(common.text_width(common.shorten(name, _NAME)) for name in channels)
    below = 0.12 + _CHARACTER * longest + _SCALE
    page = Panels.grid(
        1,
        (width, height),
        beside=beside,
        below=below,
        last=0,
        title=None,
        footnote=footnote,
        left=left,
    )
    return page, below


def _draw(page: Panels, below: float, shown: Floats, scale: _Scale) -> None:
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = mpl.colormaps[scale.colours].with_extremes(bad=_NO_VALUE)
    norm, box = Normalize(scale.low, scale.high), page.boxes[0]
    axes = page.axes(box)
    axes.pcolormesh(
        np.ma.masked_invalid(shown), cmap=colours, norm=norm, edgecolors="none", rasterized=True
    )
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_yticks([])
    wide, lowest = min(2.2, max(1.2, box[2])), box[1] - below + 0.22
    bar = page.axes((box[0], lowest, wide, 0.1))
    drawn = page.figure.colorbar(
        ScalarMappable(norm, colours), cax=bar, orientation="horizontal",
        extend="both" if scale.beyond else "neither", extendfrac=0.06, ticks=scale.ticks,
    )  # fmt: skip
    drawn.ax.set_xticklabels([f"{tick:.2g}" for tick in scale.ticks])
    drawn.outline.set_linewidth(0.5)
    drawn.ax.tick_params(labelsize=8, length=2)
    style = {"fontsize": 8, "color": "#505050", "va": "bottom"}
    page.write(box[0], lowest + 0.14, scale.name, 2.5, **style)


def _write_columns(
    page: Panels, box: tuple[float, float, float, float], channels: list[str]
) -> None:
    left, bottom, width, _ = box
    step = width / len(channels)
    size = 9 if step > 0.16 else 7
    for k, name in enumerate(channels):
        x = left + (k + 0.5) * step
        page.write(
            x, bottom - 0.06, common.shorten(name, _NAME), 99,
            rotation=90, ha="center", va="top", fontsize=size,
        )  # fmt: skip


def _draw_groups(
    page: Panels, box: tuple[float, float, float, float], rows: _Rows, of_clusters: bool
) -> None:
    """Draw the colours of metaclusters beside the rows, and their numbers or names."""
    left, bottom, _, height = box
    n = len(rows.order)
    strip = page.axes((left - _GAP - _STRIP, bottom, _STRIP, height))
    strip.set_axis_off()
    strip.set_xlim(0, 1)
    strip.set_ylim(n, 0)
    colours = cluster_colours(rows.groups.tolist())
    step = height / n
    middles = np.array([(first + last) / 2 * step for first, last in rows.runs])
    places = _apart(middles, _LABEL, height)
    style: dict[str, Any] = {"fontsize": 9, "va": "center", "ha": "right"}
    for (first, last), name, middle, place in zip(
        rows.runs, rows.names, middles, places, strict=True
    ):
        gap = min(0.06, 0.02 / step)
        strip.fill_between((0, 1), first + gap, last - gap, color=tuple(colours[first]), lw=0)
        page.write(left - 2 * _GAP - _STRIP - _LEAD, bottom + height - place, name, 99, **style)
        # From the name to its rows, which are elsewhere where many names stand close.
        ends = (-(_GAP + _LEAD) / _STRIP, -_GAP / 3 / _STRIP)
        if abs(place - middle) > 0.02:
            strip.plot(ends, (place / step, middle / step), color="#909090", lw=0.5, clip_on=False)
    if of_clusters and step > 0.1:
        for row, k in enumerate(rows.order):
            y = bottom + height - (row + 0.5) * step
            style = {"fontsize": 6, "va": "center", "ha": "center"}
            ink = ink_upon(colours[row])
            page.write(left - _GAP - _STRIP / 2, y, str(k + 1), 99, color=ink, **style)


def _apart(wanted: Floats, room: float, height: float) -> Floats:
    """Return ascending places (n,) in [0, height], near those wanted, and `room` apart at least.

    Names that are too near become a block about the mean of their places.
    """
    blocks: list[tuple[float, int]] = []  # the mean of places, each less its offset; how many
    for k, place in enumerate(wanted.tolist()):
        mean, n = place - k * room, 1
        while blocks and blocks[-1][0] > mean:
            before, m = blocks.pop()
            mean, n = (mean * n + before * m) / (n + m), n + m
        blocks.append((mean, n))
    starts = np.repeat([mean for mean, _ in blocks], [n for _, n in blocks])
    last = height - room * (len(wanted) - 1)
    return np.asarray(np.clip(starts, 0, last) + room * np.arange(len(wanted)))


def _draw_shares(
    page: Panels,
    box: tuple[float, float, float, float],
    rows: _Rows,
    sizes: Floats,
) -> None:
    left, bottom, width, height = box
    n, x = len(rows.order), left + width + _GAP
    axes = page.axes((x, bottom, _BARS, height))
    axes.set_axis_off()
    shown = sizes[rows.order]
    axes.barh(np.arange(n) + 0.5, shown, height=0.72, color="#808080")
    axes.set_ylim(n, 0)
    axes.set_xlim(0, max(float(shown.max()), 1.0))
    style: dict[str, Any] = {"fontsize": 8, "color": "#505050"}
    page.write(x, bottom + height + 0.05, "share of pixels", 1.2, va="bottom", **style)
    if height / n < 0.1:
        return
    for row, size in enumerate(shown):
        y = bottom + height - (row + 0.5) * height / n
        small = {**style, "fontsize": 8 if height / n > 0.15 else 6}
        page.write(x + _BARS + 0.06, y, percent(size, float(sizes.sum())), 9, va="center", **small)
