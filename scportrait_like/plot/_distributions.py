"""Distributions of values: one histogram a channel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import ShapeError
from scportrait_like.plot._panels import Panels, compact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE: Final = (2.35, 0.95)  # inches: three in a row
_ALONE: Final = (5.0, 2.0)
_BINS: Final = (10, 60)  # few for few cells, or there would be nothing but noise
# An axis that ends beyond so many times the lower quartile has a long tail: most of the values
# would share a few bins.
_LONG: Final = 20
_APART: Final = 0.17  # ticks, as a share of the axis
_CHARACTER: Final = 0.068  # inches at 8 points
_FILL: Final = "#3f7fae"
_MEDIAN: Final = "#c8401f"


def plot_distributions(
    values: npt.ArrayLike,
    value_names: Sequence[str] | None = None,
    *,
    statistic: str = "",
    title: str | None = None,
    footnote: str = "",
    save: str | Path | None = None,
) -> Figure:
    """Draw the distribution of each column of values, as a histogram with its median.

    Parameters
    ----------
    values
        (n, c) or (n,) numbers; what is not finite is left out, and counted beside.
    value_names
        One name a column; long ones are shortened in the middle.
    statistic
        What the values are; drawn below.
    title, footnote
        Drawn above and below.
    save
        Where to write the picture; the suffix chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a column. An axis with a long tail is an inverse hyperbolic sine, linear about 0
        and logarithmic far from it; the bars show the density along the axis as it is drawn.

    Raises
    ------
    ShapeError
        The names do not fit the values.
    """
    columns = np.asarray(values, np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or not columns.shape[1]:
        raise ShapeError(f"values must be (n, c), but are {columns.shape}.")
    n = columns.shape[1]
    names = [str(name) for name in (range(n) if value_names is None else value_names)]
    if len(names) != n:
        raise ShapeError(f"{len(names)} names were given for {n} columns of values.")
    cells = f"{len(columns):,} cell{'' if len(columns) == 1 else 's'}"
    notes = [f"{statistic} of {cells}" if statistic else cells]
    widths = [_linear_width(column) for column in columns.T]
    if any(width is not None for width in widths):
        notes.append("axes with a long tail are arcsinh-scaled")
    page = Panels.grid(
        n,
        _ALONE if n == 1 else _SIZE,
        beside=0.2,
        below=0.32,
        last=0,
        title=title,
        footnote="; ".join([*notes, footnote] if footnote else notes),
        left=0.15,
    )
    for k, (name, width) in enumerate(zip(names, widths, strict=True)):
        _draw(page, k, name, columns[:, k], width)
    return page.finish(save)


def _linear_width(values: npt.NDArray[np.float64]) -> float | None:
    """Return where an axis turns from linear to logarithmic; None: it stays linear."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if sizes.size == 0:
        return None
    quartile, largest = np.percentile(sizes, (25, 100))
    return float(quartile) if largest > _LONG * quartile else None


def _bins(values: npt.NDArray[np.float64], width: float | None) -> npt.NDArray[np.float64]:
    """Return the edges of the bins: equal on the axis, save where whole numbers lie wider."""
    low, high = float(values.min()), float(values.max())
    n = int(np.clip(1.5 * np.sqrt(len(values)), *_BINS))
    if low == high:
        half = max(0.5, abs(low) * 1e-3)
        return np.asarray([low - half, high + half])
    if (values == np.floor(values)).all() and high - low < 2**53:
        # Bins that hold one whole number here and two there would look like a comb.
        if width is None:
            step = -(-(high - low + 1) // n)
            return np.asarray(np.arange(low - 0.5, high + step, step))
        low, high = low - 0.5, high + 0.5
        edges = _spaced(low, high, width, n)
        return np.unique(np.concatenate([[low], np.floor(edges[1:-1]) + 0.5, [high]]))
    return _spaced(low, high, width, n)


def _spaced(low: float, high: float, width: float | None, n: int) -> npt.NDArray[np.float64]:
    if width is None:
        return np.linspace(low, high, n + 1)
    first, last = np.arcsinh(low / width), np.arcsinh(high / width)
    edges = width * np.sinh(np.linspace(first, last, n + 1))
    edges[0], edges[-1] = low, high  # not a rounding short of them
    return np.asarray(edges)


def _draw(
    page: Panels, k: int, name: str, values: npt.NDArray[np.float64], width: float | None
) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes = page.axes(page.boxes[k])
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.set_yticks([])
    axes.tick_params(labelsize=8, length=2.5)
    finite = values[np.isfinite(values)]
    lost = len(values) - len(finite)
    _write(page, k, name, finite, lost)
    if finite.size == 0:
        axes.set_xticks([])
        return
    edges = _bins(finite, width)
    shown = edges if width is None else np.arcsinh(edges / width)
    density = np.histogram(finite, edges)[0] / np.diff(shown) / len(finite)
    axes.stairs(density, edges, fill=True, color=_FILL)
    axes.axvline(float(np.median(finite)), color=_MEDIAN, linewidth=1.2)
    written = compact(max(abs(edges[0]), abs(edges[-1])))
    if width is None:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        axes.xaxis.set_major_formatter(FuncFormatter(written))
    else:
        axes.set_xscale("asinh", linear_width=width)
        ticks = _ticks(float(edges[0]), float(edges[-1]), width)
        axes.set_xticks(ticks, [compact(tick)(tick) for tick in ticks])
        axes.set_xticks(_between(float(edges[0]), float(edges[-1]), width), minor=True)
        axes.tick_params(which="minor", length=1.5)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, float(density.max()) * (1.3 if lost else 1.05))


def _write(page: Panels, k: int, name: str, finite: npt.NDArray[np.float64], lost: int) -> None:
    """Write the name, the median, and how many cells have no value."""
    left, bottom, width, height = page.boxes[k]
    right, top = left + width, bottom + height
    style: dict[str, Any] = {"ha": "right", "fontsize": 8}
    text = ""
    if finite.size:
        middle = float(np.median(finite))
        text = f"median {compact(middle)(float(f'{middle:.3g}'))}"
        page.write(right, top + 0.08, text, width, va="bottom", color=_MEDIAN, **style)
    if lost:
        left_out = f"{lost:,} without value"
        page.write(right, top, left_out, width, va="top", color="#707070", **style)
    page.name(k, name, width - _CHARACTER * (len(text) + 1))


def _ticks(low: float, high: float, width: float) -> list[float]:
    """Return powers of ten, and 0, that stand apart on the axis."""
    top = int(np.floor(np.log10(max(abs(low), abs(high)))))
    powers = [10.0**k for k in range(top, int(np.floor(np.log10(width))) - 2, -1)]
    # 0 first, then from the outermost inwards: what comes too near to another is left out.
    chosen: list[float] = []
    span = np.arcsinh(high / width) - np.arcsinh(low / width)
    for tick in [0.0, *(sign * power for power in powers for sign in (1, -1))]:
        near = [abs(np.arcsinh(tick / width) - np.arcsinh(other / width)) for other in chosen]
        if low <= tick <= high and all(gap > _APART * span for gap in near):
            chosen.append(tick)
    return sorted(chosen)


def _between(low: float, high: float, width: float) -> list[float]:
    """Return the ticks without numbers, 1 to 9 times each power of ten, that show the scale."""
    top = int(np.floor(np.log10(max(abs(low), abs(high)))))
    powers = range(int(np.floor(np.log10(width))), top + 1)
    ticks = [sign * k * 10.0**p for p in powers for k in range(1, 10) for sign in (1, -1)]
    return [tick for tick in ticks if low <= tick <= high]
