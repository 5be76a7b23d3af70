"""Maps of values: each cell of a mask in the colour of its value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.plot import _common as common
from scportrait_like.plot._masks import BACKGROUND, Mask
from scportrait_like.plot._panels import LEFT, PAGE, Panels, compact

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

NO_VALUE: Final = "#b4b4b4"  # no colour of the usual maps is grey
# Inches
_GAP: Final = 0.08
_BAR: Final = 0.1
_TIP: Final = 0.1
_BESIDE: Final = 0.72  # a colour bar and its numbers
_BELOW: Final = 0.1
_AXIS: Final = 0.42
_NARROW: Final = 1.2  # the name of a strip needs more room than the strip
_LOW: Final = 0.8  # no height for the name of the axis

_STEPS: Final = (1, 2, 5, 10)  # of ticks


def plot_values(
    mask: Mask,
    ids: npt.ArrayLike,
    values: npt.ArrayLike,
    value_names: Sequence[str] | None = None,
    *,
    statistic: str = "",
    crop: common.Crop | None = None,
    scale: float = 1.0,
    percentiles: tuple[float, float] = (1.0, 99.0),
    colormap: str = "viridis",
    title: str | None = None,
    footnote: str = "",
    save: str | Path | None = None,
) -> Figure:
    """Draw each cell of a mask in the colour of its value, one panel a column of values.

    Parameters
    ----------
    mask
        (y, x) integers, 0 is background, which is drawn dark. Read only where it is drawn. For a
        large mask pass a level of its pyramid, and its ``scale``.
    ids
        (n,) integers, all different, in any order: the labels.
    values
        (n, c) or (n,) numbers. Cells of NaN, and those without a row, are drawn grey.
    value_names
        One name a column; long ones are shortened in the middle.
    statistic
        What the values are; it stands above each colour bar.
    crop
        (y0, y1, x0, x1) in pixels of ``mask``.
    scale
        Pixels of the full image in one pixel of the mask; the axes count those of the full image.
    percentiles
        Those of each column, over all rows, that become the first and the last colour: so colours
        mean the same whatever the crop. Where values lie beyond, the bar ends in a tip.
    colormap
        Name of a map of matplotlib.
    title, footnote
        Drawn above and below.
    save
        Where to write the picture; the suffix chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
        The panels, each with its colour bar after it.

    Raises
    ------
    InputError, ShapeError
        The arguments do not fit each other.
    """
    cells = common.checked_labels(mask)
    keys, columns, names = _checked(ids, values, value_names)
    crop = common.checked_crop(crop, (cells.shape[0], cells.shape[1]))
    y0, y1, x0, x1 = crop
    rows, n = rows_of_pixels(np.asarray(cells[y0:y1, x0:x1]), keys)
    notes = [f"{n:,} cell{'' if n == 1 else 's'} in view"]
    notes += [f"1:{scale:.0f}"] if scale > 1 else []
    if (rows == len(keys)).any() or np.isnan(columns[np.unique(rows[rows < len(keys)])]).any():
        notes.append("grey: no value")
    size = _size(crop, len(names))
    page = Panels.grid(
        len(names),
        (max(size[0], _NARROW), size[1]),
        beside=_BESIDE,
        below=_BELOW,
        last=_AXIS,
        title=title,
        footnote="; ".join([*notes, footnote] if footnote else notes),
    )
    for k, name in enumerate(names):
        colours, extend = _colours(columns[:, k], percentiles, colormap)
        painted = _paint(rows, columns[:, k], colours)
        _draw(page, k, size, painted, crop, scale)
        _draw_bar(page, k, size[0], colours, extend, statistic)
        page.name(k, name, page.boxes[k][2])
    return page.finish(save)


def _checked(
    ids: npt.ArrayLike, values: npt.ArrayLike, value_names: Sequence[str] | None
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float64], list[str]]:
    """Return the ids, ascending, their values (n, c), and the names."""
    keys, columns = np.asarray(ids), np.asarray(values, np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if keys.ndim != 1 or columns.ndim != 2 or len(keys) != len(columns) or not columns.shape[1]:
        raise ShapeError(
            f"ids must be (n,) and values (n, c), but they are {keys.shape} and {columns.shape}."
        )
    keys, columns = checked_ids(keys, columns)
    n = columns.shape[1]
    names = [str(name) for name in (range(n) if value_names is None else value_names)]
    if len(names) != n:
        raise ShapeError(f"{len(names)} names were given for {n} columns of values.")
    return keys, columns, names


def checked_ids(
    ids: npt.ArrayLike, values: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[Any]]:
    """Return the ids (n,), ascending, and their values (n, ...) in the same order."""
    keys = np.asarray(ids)
    if len(keys) and keys.dtype.kind not in "uib":
        raise InputError(f"ids must be integers, but their dtype is {keys.dtype}.")
    # Not compared as int64 with uint64, which would make floats of both.
    keys = keys.astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    if (keys[1:] == keys[:-1]).any():
        raise InputError("ids must be all different: which value should a cell have?")
    return keys, values[order]


def rows_of_pixels(
    mask: npt.NDArray[Any], keys: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], int]:
    """Return each pixel's row among n ids, n where its id has none, n + 1 for background.

    Also the number of cells in view.
    """
    there, inverse = np.unique(mask, return_inverse=True)
    labels = there.astype(np.uint64)
    found = np.searchsorted(keys, labels)
    known = np.zeros(len(labels), bool)
    known[found < len(keys)] = (keys[found[found < len(keys)]]) == labels[found < len(keys)]
    rows = np.where(known, found, len(keys))
    rows[labels == 0] = len(keys) + 1
    return rows[inverse].reshape(mask.shape), int((labels != 0).sum())


def _colours(
    values: npt.NDArray[np.float64], percentiles: tuple[float, float], colormap: str
) -> tuple[ScalarMappable, str]:
    """Return the colours of a column, and at which ends of the bar there are values beyond."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise InputError(f"percentiles={percentiles!r}: expected two numbers, 0 <= a < b <= 100.")
    if colormap not in mpl.colormaps:
        raise InputError(
            f"colormap={colormap!r} is not one of matplotlib's, such as viridis, magma, coolwarm."
        )
    finite = values[np.isfinite(values)]
    low, high = (0.0, 1.0)
    if finite.size:
        low, high = (float(edge) for edge in np.percentile(finite, percentiles))
        if high <= low:  # rare cells only
            low, high = float(finite.min()), float(finite.max())
        if high <= low:
            high = low + max(1.0, abs(low))
    ends = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
    beyond = bool((values < low).any()), bool((values > high).any())
    return ScalarMappable(Normalize(low, high), mpl.colormaps[colormap]), ends[beyond]


def _paint(
    rows: npt.NDArray[np.int64], values: npt.NDArray[np.float64], colours: ScalarMappable
) -> npt.NDArray[np.uint8]:
    """Return the picture (y, x, 3)."""
    from matplotlib.colors import to_rgb

    table = np.empty((len(values) + 2, 3), np.uint8)
    table[:-2] = colours.to_rgba(np.clip(values, *colours.get_clim()), bytes=True)[:, :3]
    table[:-2][np.isnan(values)] = table[-2] = np.multiply(to_rgb(NO_VALUE), 255).round()
    table[-1] = np.multiply(to_rgb(BACKGROUND), 255).round()
    return table[rows]


def _size(crop: common.Crop, n: int) -> tuple[float, float]:
    """Return width and height of a panel: one fills the page, more stand two or more in a row."""
    across = 1 if n == 1 else 2
    widest = (PAGE - LEFT - 0.1) / across - _BESIDE - 0.01
    width, height = common.fitted(crop, 1.0)
    # Three rows upon a page, or one.
    tallest = 7.5 if n == 1 else 2.95
    factor = min(widest / width, tallest / height)
    return width * factor, height * factor


def _draw(
    page: Panels,
    k: int,
    size: tuple[float, float],
    painted: npt.NDArray[np.uint8],
    crop: common.Crop,
    scale: float,
) -> None:
    left, bottom, _, _ = page.boxes[k]
    axes = common.show(page.figure, (left, bottom, *size), painted, crop, scale)
    axes.locator_params(nbins=max(2, int(size[0] / 0.6)), axis="x", steps=_STEPS)
    first, lowest = page.outer[k]
    if not first or size[1] < _LOW:
        axes.set_ylabel("")
    if not first:
        axes.tick_params(labelleft=False)
    if not lowest:
        axes.set_xlabel("")
        axes.tick_params(labelbottom=False)


def _draw_bar(
    page: Panels, k: int, width: float, colours: ScalarMappable, extend: str, statistic: str
) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    left, bottom, room, height = page.boxes[k]
    axes = page.axes((left + width + _GAP, bottom, _BAR, height))
    bar = page.figure.colorbar(
        colours,
        cax=axes,
        extend=extend,
        extendfrac=_TIP / height,
        ticks=MaxNLocator(min(7, max(2, int(height / 0.4))), steps=_STEPS),
        format=FuncFormatter(compact(max(map(abs, colours.get_clim())))),
    )
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=8, length=2)
    if statistic:
        x, y = left + room + _GAP, bottom + height + 0.07
        style = {"va": "bottom", "fontsize": 8, "color": "#505050"}
        page.write(x, y, statistic, _BESIDE - _GAP - 0.06, **style)
