"""Single-cell images in a grid: one row a cell, one column a plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.plot import _common as common

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Inches. Every place is computed, so tiles have one size and texts cannot overlap.
_TILE: Final = 1.25
_GAP: Final = 0.06
_MARGIN: Final = 0.15
_TOP: Final = 0.34
_COLUMN: Final = 0.078  # width of one character at 9 points, generously
_TITLE: Final = 60  # characters
_WIDE: Final = 13.0  # rows stand side by side within this width
_LEAST_ROWS: Final = 4  # but no fewer than this below each other
_CHANNEL_MAP: Final = "magma"
_BAD: Final = "#607080"  # NaN


def plot_portraits(
    images: Any,
    ids: Sequence[int] | npt.NDArray[np.integer[Any]],
    plane_names: Sequence[str] | None = None,
    *,
    n_masks: int = 1,
    rows: Sequence[int] | None = None,
    max_cells: int = 12,
    percentile: float = 99.8,
    title: str | None = None,
    save: str | Path | None = None,
) -> Figure:
    """Draw single-cell images: one row a cell, one column a plane.

    Parameters
    ----------
    images
        (n, planes, S, S), anything that has a shape and gives one cell by ``images[i]`` (an HDF5
        data set is read only where it is drawn). NaN is drawn in grey-blue.
    ids
        (n,) cell ids, the row titles.
    plane_names
        The column titles; default: the numbers. Long ones are shortened in the middle.
    n_masks
        So many of the first planes are masks, drawn in grey; the others in a perceptual map.
    rows
        Which cells to draw, in this order; default: all.
    max_cells
        If these are more cells, so many of them are drawn, evenly spread.
    percentile
        Of each plane over the cells drawn: the brightest colour. Cells stay comparable.
    title
        Drawn above.
    save
        Where to write the picture; the suffix chooses the format.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError, ShapeError
        There are no cells, or the arguments do not fit each other.
    """
    names = _checked(images, ids, plane_names, n_masks, max_cells)
    n = int(images.shape[0])
    picks = _picked(n, rows, max_cells)
    cells = np.stack([np.asarray(images[i], np.float32) for i in picks])
    titles = [f"cell {int(ids[i])}" for i in picks]
    header = None if title is None else common.shorten(title, _TITLE)
    page = _Page.fitting(titles, len(names), header, footer=n > len(picks))
    for p in range(len(names)):
        limits = _limits(cells[:, p], p < n_masks, percentile)
        for r in range(len(picks)):
            _draw(page, r, p, cells[r, p], p < n_masks, limits)
    texts = _row_and_column_titles(page, titles, names)
    if header is not None:
        texts.append(page.write(page.left, page.height - _MARGIN, header, size=11))
    if n > len(picks):
        x = page.tile(len(picks) - 1, len(names))[0] - _GAP
        shown = f"{len(picks)} of {n:,} cells"
        texts.append(page.write(x, _MARGIN + 0.12, shown, "right", size=8, color="#505050"))
    return common.finish(page.figure, texts, save)


@dataclass(frozen=True)
class _Page:
    """The figure, and where things stand on it, in inches from its lower left corner.

    Few planes leave the page narrow: then the rows stand in several blocks, side by side.
    """

    figure: Figure
    left: float  # of the first column
    top: float  # of the first row
    width: float
    height: float
    per_block: int  # rows
    block_width: float

    @classmethod
    def fitting(cls, rows: list[str], n_columns: int, header: str | None, footer: bool) -> _Page:
        titles = _MARGIN + _COLUMN * max(map(common.text_width, rows)) + 0.1
        above = _MARGIN + _TOP + (0.3 if header else 0)
        grid = titles + n_columns * (_TILE + _GAP)
        blocks = int(np.clip(_WIDE // grid, 1, max(1, len(rows) // _LEAST_ROWS)))
        per_block = -(-len(rows) // blocks)
        blocks = -(-len(rows) // per_block)
        header_width = titles + _COLUMN * 1.25 * common.text_width(header or "")
        width = max(blocks * grid, header_width) + _MARGIN
        height = above + per_block * (_TILE + _GAP) + _MARGIN + (0.2 if footer else 0)
        figure = common.new_figure(width, height)
        return cls(figure, titles, height - above, width, height, per_block, grid)

    def tile(self, row: int, column: int) -> tuple[float, float]:
        """Return x and y of a tile's lower left corner."""
        block, row = divmod(row, self.per_block)
        step = _TILE + _GAP
        left = self.left + block * self.block_width
        return left + column * step, self.top - row * step - _TILE

    def write(
        self, x: float, y: float, text: str, ha: str = "left", va: str = "top", **style: Any
    ) -> Text:
        return self.figure.text(x / self.width, y / self.height, text, ha=ha, va=va, **style)


def _row_and_column_titles(page: _Page, rows: list[str], names: list[str]) -> list[Text]:
    texts = []
    for r, row in enumerate(rows):
        x, y = page.tile(r, 0)
        texts.append(page.write(x - 0.1, y + _TILE / 2, row, "right", "center", size=9))
    for first in range(0, len(rows), page.per_block):
        for p, name in enumerate(names):
            x, _ = page.tile(first, p)
            short = common.shorten(name, int(_TILE / _COLUMN))
            middle = x + _TILE / 2
            texts.append(page.write(middle, page.top + 0.07, short, "center", "bottom", size=9))
    return texts


def _picked(n: int, rows: Sequence[int] | None, max_cells: int) -> list[int]:
    """Return the rows to draw, evenly spread over those that are asked for."""
    wanted = range(n) if rows is None else rows
    if len(wanted) == 0 or not all(0 <= row < n for row in wanted):
        raise InputError(f"rows={list(wanted)!r}: expected at least one, each from 0 to {n - 1}.")
    spread = np.linspace(0, len(wanted) - 1, min(len(wanted), max_cells)).round().astype(int)
    return [int(wanted[k]) for k in spread]


def _checked(
    images: Any,
    ids: Sequence[int] | npt.NDArray[np.integer[Any]],
    plane_names: Sequence[str] | None,
    n_masks: int,
    max_cells: int,
) -> list[str]:
    """Raise InputError or ShapeError where the arguments do not fit; return the planes' names."""
    shape = tuple(np.shape(images))
    if len(shape) != 4:
        raise ShapeError(f"images must be (n, planes, S, S), but is {shape}.")
    if shape[0] == 0:
        raise InputError("images holds no cells: there is nothing to draw.")
    if 0 in shape:
        raise ShapeError(f"images must not be empty along any axis, but is {shape}.")
    if max_cells < 1:
        raise InputError(f"max_cells={max_cells!r}: expected at least 1.")
    if len(ids) != shape[0]:
        raise ShapeError(f"{len(ids)} ids were given for {shape[0]} cells.")
    names = [str(name) for name in (range(shape[1]) if plane_names is None else plane_names)]
    if len(names) != shape[1]:
        raise ShapeError(f"{len(names)} plane names were given for {shape[1]} planes.")
    if not 0 <= n_masks <= shape[1]:
        raise InputError(f"n_masks={n_masks!r}: expected 0 to {shape[1]}, the number of planes.")
    return names


def _limits(
    plane: npt.NDArray[np.float32], is_mask: bool, percentile: float
) -> tuple[float, float]:
    """Return the values of the darkest and the brightest colour of one plane (n, S, S)."""
    finite = plane[np.isfinite(plane)]
    if finite.size == 0:
        return 0.0, 1.0
    low = min(float(finite.min()), 0.0)
    high = float(finite.max() if is_mask else np.percentile(finite, percentile))
    # Small cells fill little of their windows: the percentile may lie in the background.
    high = high if high > low else float(finite.max())
    return low, (high if high > low else low + 1.0)


def _draw(
    page: _Page,
    row: int,
    column: int,
    pixels: npt.NDArray[np.float32],
    is_mask: bool,
    limits: tuple[float, float],
) -> None:
    """Draw one plane of one cell into its tile."""
    import matplotlib as mpl

    x, y = page.tile(row, column)
    axes = page.figure.add_axes(
        (x / page.width, y / page.height, _TILE / page.width, _TILE / page.height)
    )
    colours = mpl.colormaps["gray" if is_mask else _CHANNEL_MAP].with_extremes(bad=_BAD)
    axes.imshow(
        np.ma.masked_invalid(pixels),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
    )
    axes.set_axis_off()
