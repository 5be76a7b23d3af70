"""Several channels in one picture, with the outlines of masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.plot import _common as common

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Light enough for black, and as far apart from each other as six colours can be.
COLOURS: Final = ("#3d6bff", "#2fe05a", "#ff3b3b", "#ffd21f", "#ff4fe0", "#20e0e0")
LINES: Final = ("#ffffff", "#ffb000", "#9be7ff")
_AUTOMATIC: Final = 4  # channels shown where the caller names none
_SCORED: Final = 1024  # edge of the part that such channels are judged by

Mask = common.Plane | npt.ArrayLike
Masks = Mask | Mapping[str, Mask]


class Planes(Protocol):
    """What a picture is drawn of: an array, or anything on disk that is read like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, y, x)."""

    @property
    def dtype(self) -> Any:
        """Of the pixels."""

    def __getitem__(self, where: tuple[int, slice, slice]) -> Any:
        """Part of one channel."""


def plot_image(
    image: Planes | npt.ArrayLike,
    channel_names: Sequence[str] | None = None,
    *,
    channels: Sequence[str | int] | None = None,
    outlines: Masks | None = None,
    crop: common.Crop | None = None,
    scale: float = 1.0,
    percentiles: tuple[float, float] = (5.0, 99.8),
    gamma: float = 1.0,
    title: str | None = None,
    save: str | Path | None = None,
) -> Figure:
    """Draw up to six channels in colours of their own, and the outlines of masks over them.

    Parameters
    ----------
    image
        (c, y, x) or (y, x), any real dtype. A zarr array or an HDF5 data set is read channel by
        channel, and only where it is drawn. For a large image pass a level of its pyramid (see
        :func:`pick_level`), and its ``scale``.
    channel_names
        One name a channel; default: their numbers.
    channels
        Names or numbers of at most six channels. Default: all if there are at most four, else the
        four with the most structure.
    outlines
        A mask (y, x), or several by name; 0 is background. Read as the image is.
    crop
        (y0, y1, x0, x1) in pixels of ``image``.
    scale
        Pixels of the full image in one pixel of ``image``; the axes count those of the full image.
    percentiles
        Those of each channel that become black and full colour.
    gamma
        Below 1 lifts the dark parts.
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
        The arguments do not fit the image.
    """
    planes, names = _checked_image(image, channel_names)
    crop = common.checked_crop(crop, (planes.shape[1], planes.shape[2]))
    masks = _checked_outlines(outlines, (planes.shape[1], planes.shape[2]))
    y0, y1, x0, x1 = crop
    chosen = _chosen_channels(planes, crop, names, channels)
    colours = _colours(len(chosen))
    drawn = (np.asarray(planes[c, y0:y1, x0:x1]) for c in chosen)
    rgb = _composite(drawn, (y1 - y0, x1 - x0), colours, percentiles, gamma)
    times = common.enlargement((y1 - y0, x1 - x0))
    rgb = np.repeat(np.repeat(rgb, times, axis=0), times, axis=1)
    lines = LINES if len(chosen) > 1 else LINES[1:] + LINES[:1]
    for mask, line in zip(masks.values(), lines, strict=False):
        _draw_outlines(rgb, np.asarray(mask[y0:y1, x0:x1]), times, line)

    width, height = common.fitted(crop, 8.0)
    labels = [common.shorten(name, 24) for name in [*(names[c] for c in chosen), *masks]]
    hidden = len(names) - len(chosen)
    beside = 0.9 + 0.08 * max(map(common.text_width, [*labels, _more(hidden)]))
    top = 0.45 if title else 0.15
    tall = max(top + height + 0.55, 0.6 + 0.27 * (len(labels) + 1))
    figure = common.new_figure(0.75 + width + 0.15 + beside, tall)
    axes = common.show(figure, (0.75, tall - top - height, width, height), rgb, crop, scale)
    texts = (
        [axes.set_title(common.shorten(title, int(width / 0.11)), fontsize=11, loc="left")]
        if title
        else []
    )
    where = (1 - beside / figure.get_figwidth(), 1 - top / tall)
    legend = _legend(figure, where, labels, colours, lines, hidden)
    return common.finish(figure, [*texts, *legend.get_texts()], save)


def _checked_image(
    image: Planes | npt.ArrayLike, channel_names: Sequence[str] | None
) -> tuple[Planes, list[str]]:
    """Return the image as (c, y, x), unread where it is on disk, and one name a channel."""
    lazy = len(np.shape(image)) == 3 and hasattr(image, "dtype")
    planes = cast(Planes, image if lazy else np.asarray(image))
    if len(planes.shape) == 2:
        planes = cast(Planes, np.asarray(image)[None])
    if len(planes.shape) != 3 or 0 in planes.shape:
        raise ShapeError(
            f"The image must be (c, y, x) or (y, x) and not empty, but is {planes.shape}."
        )
    if np.dtype(planes.dtype).kind not in "uifb":
        raise InputError(f"The image must hold real numbers, but its dtype is {planes.dtype}.")
    n = planes.shape[0]
    names = [str(name) for name in (range(n) if channel_names is None else channel_names)]
    if len(names) != n:
        raise ShapeError(f"{len(names)} channel names were given for {n} channels.")
    return planes, names


def _checked_outlines(outlines: Masks | None, shape: tuple[int, int]) -> dict[str, common.Plane]:
    if outlines is None:
        return {}
    named = outlines if isinstance(outlines, Mapping) else {"mask": outlines}
    if len(named) > len(LINES):
        raise InputError(f"{len(named)} masks were given; at most {len(LINES)} can be told apart.")
    return {str(name): common.checked_labels(mask, shape) for name, mask in named.items()}


def _chosen_channels(
    planes: Planes, crop: common.Crop, names: list[str], channels: Sequence[str | int] | None
) -> list[int]:
    """Return the numbers of the channels to show."""
    n = planes.shape[0]
    if channels is None:
        if n <= _AUTOMATIC:
            return list(range(n))
        y, x = (_middle(*crop[:2]), _middle(*crop[2:]))
        scores = [_structure(np.asarray(planes[c, y, x])) for c in range(n)]
        return sorted(np.argsort(scores, kind="stable")[-_AUTOMATIC:].tolist())
    chosen = []
    for channel in channels:
        number = names.index(channel) if channel in names else channel
        if isinstance(number, str) or not 0 <= number < n:
            raise InputError(f"channels: {channel!r} is not one of {', '.join(names)}.")
        chosen.append(int(number))
    if not 1 <= len(chosen) <= len(COLOURS):
        raise InputError(f"channels: 1 to {len(COLOURS)} can be shown, {len(chosen)} were given.")
    return chosen


def _middle(start: int, stop: int) -> slice:
    """Return the middle of a stretch, where it is long."""
    cut = max(0, stop - start - _SCORED) // 2
    return slice(start + cut, stop - cut)


def _structure(plane: npt.NDArray[Any]) -> float:
    """Return how much of a channel is structure: the correlation of neighbouring pixels."""
    values = common.contrast(plane, (1, 99.7))
    left, right = values[:, :-1].ravel(), values[:, 1:].ravel()
    if left.size < 2 or left.std() == 0 or right.std() == 0:
        return -1.0
    return float(np.corrcoef(left, right)[0, 1])


def _colours(n: int) -> list[tuple[float, float, float]]:
    """Return n colours; one channel alone is drawn in grey."""
    from matplotlib.colors import to_rgb

    return [(1.0, 1.0, 1.0)] if n == 1 else [to_rgb(colour) for colour in COLOURS[:n]]


def _composite(
    planes: Iterable[npt.NDArray[Any]],
    shape: tuple[int, int],
    colours: list[tuple[float, float, float]],
    percentiles: tuple[float, float],
    gamma: float,
) -> npt.NDArray[np.float32]:
    """Blend channels into (y, x, 3) as projectors would, without clipping ("screen")."""
    dark = np.ones((*shape, 3), np.float32)
    for plane, colour in zip(planes, colours, strict=True):
        light = common.contrast(plane, percentiles, gamma)
        dark *= 1 - light[..., None] * np.asarray(colour, np.float32)
    return 1 - dark


def _draw_outlines(
    rgb: npt.NDArray[np.float32], mask: npt.NDArray[Any], times: int, line: str
) -> None:
    """Draw the boundary of every object into an enlarged picture."""
    from matplotlib.colors import to_rgb
    from skimage.segmentation import find_boundaries

    enlarged = np.repeat(np.repeat(mask, times, axis=0), times, axis=1)
    # Where cells are large on the page, two pixels of each side of the boundary.
    edge = find_boundaries(  # type: ignore[no-untyped-call]
        enlarged, mode="inner" if times < 4 else "thick"
    )
    # Where they are small, lines are faint, or there would be nothing but lines.
    diameter = times * np.sqrt(np.count_nonzero(mask) / max(len(np.unique(mask)) - 1, 1))
    opacity = np.float32(np.clip(diameter / 35, 0.4, 0.8))
    rgb[edge] = (1 - opacity) * rgb[edge] + opacity * np.asarray(to_rgb(line), np.float32)


def _more(hidden: int) -> str:
    return f"({hidden} more not shown)" if hidden else ""


def _legend(
    figure: Figure,
    where: tuple[float, float],
    labels: list[str],
    colours: list[tuple[float, float, float]],
    lines: Sequence[str],
    hidden: int,
) -> Any:
    """List the channels, then the masks, from the given corner downwards."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    n = len(colours)
    handles: list[Any] = [
        Patch(facecolor=colour, edgecolor="#404040", linewidth=0.5, label=label)
        for label, colour in zip(labels[:n], colours, strict=True)
    ]
    handles += [
        Line2D([], [], color=line, linewidth=2, label=label)
        for label, line in zip(labels[n:], lines, strict=False)
    ]
    if hidden:
        handles.append(Line2D([], [], linestyle="none", label=_more(hidden)))
    return figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=where,
        borderaxespad=0,
        fontsize=9,
        facecolor="#202020",  # as dark as the picture, or white lines could not be seen
        labelcolor="white",
        edgecolor="none",
        framealpha=1,
        borderpad=0.9,
        labelspacing=0.7,
    )
