"""The stages of a preparation: a survey of all pixels, then exact percentiles, one after the other.

The survey is the first pass over an image. It leaves the borders of each tile, which later blurs
look at (`scportrait_like.pixels.halos`), counts small integers, and takes a sample of short runs of
pixels, which tells later passes between which bounds a percentile lies
(`scportrait_like.pixels.selection`). So each percentile costs one pass: `p` of floats, `p_sum`, and
`p_post`, the only one that blurs everything; that of small integers comes with the survey.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.kernels.blurring import blur_plane, blur_runs
from scportrait_like.kernels.boxes import cut_pixels
from scportrait_like.kernels.histograms import count_small, select_between
from scportrait_like.kernels.rows import add_scaled, relate_to_sums, scale_values
from scportrait_like.pixels.halos import Borders
from scportrait_like.pixels.prepared import (
    PERCENTILES,
    SURVEY,
    Percentiles,
    Preparation,
    PreparedPixels,
    check_known,
    is_small,
    percentiles_of,
    plain,
    related_rows,
)
from scportrait_like.pixels.prepared_values import (
    POST,
    SUMS,
    BlurSample,
    ChannelValues,
    PostValues,
    SumValues,
    keep_rows,
    no_runs,
    numbers_so_far,
    runs_of,
    take_runs,
)
from scportrait_like.pixels.selection import found_by, selection_stages
from scportrait_like.pixels.stages import PixelTask, Stage
from scportrait_like.raster.reading import Reading
from scportrait_like.run.plan import Unit
from scportrait_like.run.unitfile import UnitWriter

__all__ = [
    "Percentiles",
    "Preparation",
    "PreparedPixels",
    "constant_channels",
    "percentiles_of",
    "preparation_stages",
    "warm_up",
]

KEEP: Final = "keep"
CONSTANT: Final = "constant"

Array = NDArray[Any]


def preparation_stages(
    how: Preparation,
    dtype: np.dtype[Any],
    known: Percentiles | None = None,
    channels: Sequence[str] = (),
    keep: Sequence[Path] = (),
    *,
    trains: bool = False,
) -> list[Stage]:
    """Stages that find what `PreparedPixels` needs; `percentiles_of` tells the numbers they found.

    Parameters
    ----------
    how
        The preparation.
    dtype
        Of all images.
    known
        Percentiles that are applied instead of finding them; then nothing can be kept.
    channels
        Names of the columns, for messages.
    keep
        Zarr arrays (c, [z,] y, x) of the images, into which pixels are written as they are before
        the last division; none: they are not. A tile's place there is its own moved by the phase
        of the grid, so that it is made of whole chunks where chunks divide tiles.
    trains
        Whether something is to learn from the pixels: then channels are refused that have a single
        value, which is not seen any more once pixels are divided by their sums.
    """
    names, kept = tuple(channels), tuple(map(str, keep))
    if known is not None:
        if channels:
            check_known(how, known, len(channels))
        return [Stage(SURVEY, Survey(how, finds=False))] if how.reach else []
    stages = []
    if how.reach or how.wants_percentiles or (trains and how.norm_sum):
        stages.append(Stage(SURVEY, Survey(how, finds=True)))
        if trains:
            stages.append(Stage(CONSTANT, RefuseConstant(how, names), tiled=False))
    if how.p is not None:
        stages += selection_stages(ChannelValues(how, names), counted=is_small(dtype))
    if how.p_sum is not None:
        stages += selection_stages(SumValues(how, names), counted=False)
    elif how.p_post is not None and how.reach:
        stages.append(Stage(SUMS, BlurSample(how)))
    if how.p_post is not None:
        stages += selection_stages(PostValues(how, names, kept), counted=False)
    elif kept:
        stages.append(Stage(KEEP, Keep(how, kept)))
    return [*stages, Stage(PERCENTILES, Numbers(how), tiled=False)]


@dataclass(frozen=True)
class Survey:
    """The first look at a tile.

    Attributes
    ----------
    how
        The preparation.
    finds
        Whether percentiles are to be found.
    """

    how: Preparation
    finds: bool

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Leave borders, ``values`` with ``counts`` of channels by ``ends``, ``runs`` (c, n, m).

        And ``extremes`` (c, 2), see `_extremes`.
        """
        image, tile = task.place(unit)
        how, n_columns = self.how, len(image.channels)
        how.sigmas(n_columns)
        borders = Borders(how.reach)
        counts_all = self.finds and how.p is not None and is_small(image.source.dtype)
        counted: list[Array] = [np.zeros(0, np.int64)] * n_columns
        corners, length = runs_of(image, tile)
        runs = no_runs(n_columns, len(corners), how.dtype)
        extremes = np.empty((n_columns, 2))
        for column, plane in image.planes(tile, reading):
            pixels = plain(plane, how.dtype)
            if how.reach:
                borders.take(column, n_columns, pixels)
            if counts_all:
                counted[column] = count_small(pixels)
            if self.finds:
                runs[column, :, :length] = some = take_runs(pixels, corners, length)
                extremes[column] = _extremes(pixels, some)
            reading.lap("survey")
        borders.put(out)
        if self.finds:
            out.put("runs", runs)
            out.put("extremes", extremes)
        if counts_all:
            values = [np.flatnonzero(counts) for counts in counted]
            out.put("ends", np.cumsum([0, *map(len, values)]))
            out.put_pieces("values", [each.astype(np.uint16) for each in values])
            pieces = [counts[at] for counts, at in zip(counted, values, strict=True)]
            out.put_pieces("counts", pieces)


def _extremes(pixels: Array, some: Array) -> tuple[float, float]:
    """A low and a high value of pixels, some of which suffice to tell that there are several.

    The two are equal only where all pixels are, and NaN where all are.
    """
    low, high = np.fmin.reduce(some, axis=None), np.fmax.reduce(some, axis=None)
    if not low < high:
        low, high = np.fmin.reduce(pixels, axis=None), np.fmax.reduce(pixels, axis=None)
    return float(low), float(high)


def constant_channels(task: PixelTask) -> dict[int, float]:
    """Columns that have a single value in all pixels of all images, NaN aside, and the value.

    Known after the survey, where one was made to find percentiles.
    """
    low, high = np.full((2, len(task.images[0].channels)), np.nan)
    for image in range(len(task.images)):
        for left in task.left_in_image(SURVEY, image):
            extremes = left["extremes"]
            low, high = np.fmin(low, extremes[:, 0]), np.fmax(high, extremes[:, 1])
            left.release()
    return {column: float(low[column]) for column in np.flatnonzero(low == high).tolist()}


@dataclass(frozen=True)
class RefuseConstant:
    """Refuses channels with a single value.

    Attributes
    ----------
    how
        The preparation: where percentiles of channels are asked for, they refuse zeros themselves.
    names
        Of the channels, or none.
    """

    how: Preparation
    names: tuple[str, ...]

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Leave nothing."""
        found = constant_channels(task)
        listed = ", ".join(
            f"{self.names[column] if self.names else f'number {column + 1}'} ({value:g})"
            for column, value in found.items()
            if value != 0 or self.how.p is None
        )
        if listed:
            images = ", ".join(image.name for image in task.images)
            raise InputError(
                f"these channels have a single value in all pixels of {images} and tell nothing "
                f"apart: {listed}; leave them out: name the others in channels"
            )


@dataclass(frozen=True)
class Keep:
    """Writes pixels, where no percentile of them is asked for."""

    how: Preparation
    keep: tuple[str, ...]

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Write a tile."""
        rows = related_rows(self.how, numbers_so_far(task, self.how), task, unit, reading)
        keep_rows(self.keep, task, unit, rows, reading)


@dataclass(frozen=True)
class Numbers:
    """Leaves all percentiles: ``channel`` (c,), ``threshold`` (1,), ``post`` (c,), float64."""

    how: Preparation

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Put them together."""
        numbers = numbers_so_far(task, self.how)
        if numbers.channel is not None:
            out.put("channel", np.array(numbers.channel))
        if numbers.threshold is not None:
            out.put("threshold", np.array([numbers.threshold]))
        if self.how.p_post is not None:
            out.put("post", np.array(found_by(task, POST)))


def warm_up(dtypes: Iterable[np.dtype[Any]], prepared: str) -> None:
    """Compile (or load) the kernels of a preparation, before workers start.

    Parameters
    ----------
    dtypes
        Of the images.
    prepared
        ``float32`` or ``float64``.
    """
    values = np.ones((2, 2), prepared)
    blur_plane(values, 0, [1.0], 1.0, values.copy())
    blur_runs(values, 0, [1.0], 1.0, np.zeros((1, 2), np.int64), values[:1].copy())
    select_between(values, 0, 1)
    relate_to_sums(values.copy(), 0, divide=True)
    scale_values(values.copy(), 1)
    for pixels in {plain(np.ones(2, dtype), prepared).dtype for dtype in dtypes}:
        add_scaled(np.ones(2, pixels), 1, prepared, np.zeros(2))
        cut_pixels(np.ones((1, 1), pixels), [[0, 0, 1, 1]], [0, 1], np.empty(1, pixels))
        if is_small(pixels):
            count_small(np.ones(2, pixels))
