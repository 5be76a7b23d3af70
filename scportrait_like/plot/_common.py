"""What all pictures share: figures, names that fit, contrast, coordinates."""

from __future__ import annotations

import functools
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError, ShapeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Crop = tuple[int, int, int, int]
"""y0, y1, x0, x1 in pixels of the array, half open."""


class Plane(Protocol):
    """A mask: an array, or anything on disk that is read like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(y, x)."""

    @property
    def dtype(self) -> Any:
        """Of the ids."""

    def __getitem__(self, where: tuple[slice, slice]) -> Any:
        """Part of it."""


DPI: Final = 150
_EAST_ASIAN_FONTS: Final = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "PingFang SC", "Microsoft YaHei",
    "Yu Gothic", "Malgun Gothic", "WenQuanYi Zen Hei", "Arial Unicode MS",
)  # fmt: skip
ELLIPSIS: Final = "…"
# Smaller arrays are enlarged by whole numbers towards this, so that outlines become thin lines.
_SHARP: Final = 1600


def pick_level(shapes: Sequence[tuple[int, ...]], max_pixels: int = 4_000_000) -> int:
    """Choose the finest level of a pyramid that is small enough to draw.

    Parameters
    ----------
    shapes
        Shape of each level, finest first; the last two axes are y and x.
    max_pixels
        Largest y * x.

    Returns
    -------
    int
        Index of the level; the coarsest if all are too large.
    """
    if not shapes:
        raise InputError("shapes is empty: expected the shape of at least one level.")
    for level, shape in enumerate(shapes):
        if shape[-2] * shape[-1] <= max_pixels:
            return level
    return len(shapes) - 1


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """Make a figure of so many inches that belongs to nobody but the caller."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def finish(figure: Figure, texts: Iterable[Text], save: str | Path | None) -> Figure:
    """Take the texts as they are (``$`` is no formula); write the figure if a path is given."""
    fonts = _fonts()
    for text in texts:
        text.set_parse_math(False)
        text.set_fontfamily(fonts)
    if save is not None:
        _check_path(figure, Path(save))
        with warnings.catch_warnings():
            # A name in a script that the font lacks is drawn as boxes, which says enough.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(Path(save), dpi=DPI)
    return figure


def _check_path(figure: Figure, path: Path) -> None:
    """Refuse a format that nobody knows, and a folder that is not there."""
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in formats:
        raise InputError(
            f"save={str(path)!r}: the suffix chooses the format; known are {', '.join(formats)}."
        )
    if not path.parent.is_dir():
        raise InputError(f"save={str(path)!r}: there is no folder {path.parent.absolute()}.")


@functools.cache
def _fonts() -> tuple[str, ...]:
    """Return the usual font, then those installed that have the scripts of East Asia."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _EAST_ASIAN_FONTS if name in installed))


def text_width(text: str) -> int:
    """Count the columns that a text takes; East Asian characters take two, accents none."""
    return sum(
        2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
        if not unicodedata.combining(character)
    )


def shorten(name: str, columns: int) -> str:
    """Shorten a name in its middle, since names often differ at their ends only."""
    name = " ".join(name.split())
    if text_width(name) <= columns:
        return name
    # Take from whichever half is longer until both and the ellipsis fit.
    half = len(name) // 2
    head, tail = list(name[:half]), list(name[half:])
    while text_width("".join(head + tail)) > columns - 1 and (head or tail):
        if len(head) >= len(tail):
            head.pop()
        else:
            tail.pop(0)
    return f"{''.join(head).rstrip()}{ELLIPSIS}{''.join(tail).lstrip()}"


def contrast(
    plane: npt.NDArray[Any], percentiles: tuple[float, float], gamma: float = 1.0
) -> npt.NDArray[np.float32]:
    """Stretch a plane to [0, 1] between two of its percentiles; NaN and constant planes become 0.

    A channel that is empty nearly everywhere has equal percentiles: then its maximum counts.
    """
    values = np.asarray(plane, np.float32)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.zeros(values.shape, np.float32)
    low, high = np.percentile(finite, percentiles)
    if high <= low:
        high = finite.max()
    if high <= low:
        return np.zeros(values.shape, np.float32)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    stretched: npt.NDArray[np.float32] = np.clip((values - low) / (high - low), 0, 1) ** gamma
    return stretched.astype(np.float32)


def checked_crop(crop: Crop | None, shape: tuple[int, int]) -> Crop:
    """Return the crop, or everything; raise InputError where it does not lie in the array."""
    height, width = shape
    y0, y1, x0, x1 = crop or (0, height, 0, width)
    if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
        raise InputError(
            f"crop={crop!r} (y0, y1, x0, x1) does not lie in the {height} x {width} pixels."
        )
    return y0, y1, x0, x1


def checked_labels(labels: Plane | npt.ArrayLike, shape: tuple[int, int] | None = None) -> Plane:
    """Return a mask (y, x) of integers, of the given shape if there is one; unread if on disk."""
    mask = cast(Plane, labels if hasattr(labels, "dtype") else np.asarray(labels))
    if len(mask.shape) != 2 or 0 in mask.shape:
        raise ShapeError(f"A mask must be (y, x) and not empty, but has the shape {mask.shape}.")
    if np.dtype(mask.dtype).kind not in "uib":
        raise InputError(f"A mask must hold integers, but its dtype is {mask.dtype}.")
    if shape is not None and tuple(mask.shape) != shape:
        raise ShapeError(f"The mask is {mask.shape}, but the image is {shape}.")
    return mask


def enlargement(shape: tuple[int, int]) -> int:
    """Return the whole number by which to enlarge an array before its outlines are drawn."""
    return max(1, _SHARP // max(shape))


def show(
    figure: Figure,
    box: tuple[float, float, float, float],
    rgb: npt.NDArray[Any],
    crop: Crop,
    scale: float,
) -> Axes:
    """Draw a picture (y, x, 3) into a box (left, bottom, width, height, in inches).

    The axes count pixels of the full image, of which one of the array's holds ``scale``.
    """
    width, height = figure.get_size_inches()
    left, bottom = box[0] / width, box[1] / height
    axes = figure.add_axes((left, bottom, box[2] / width, box[3] / height), anchor="NW")
    y0, y1, x0, x1 = (scale * edge for edge in crop)
    axes.imshow(rgb, extent=(x0, x1, y1, y0), interpolation="auto")
    axes.set_xlabel("x (pixels)", fontsize=9)
    axes.set_ylabel("y (pixels)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.locator_params(nbins=max(2, int(box[2] / 1.0)), axis="x")
    return axes


def fitted(crop: Crop, longest: float) -> tuple[float, float]:
    """Return width and height in inches; strips are kept wide enough for their axis."""
    height, width = crop[1] - crop[0], crop[3] - crop[2]
    longer = max(height, width)
    return max(width / longer, 0.1) * longest, max(height / longer, 0.1) * longest
