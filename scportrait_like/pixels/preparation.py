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
    "percentiles_of",
    "preparation_stages",
    "warm_up",
]

KEEP: Final = "keep"

Array = NDArray[Any]


def preparation_stages(
    how: Preparation,
    dtype: np.dtype[Any],
    known: Percentiles | None = None,
    channels: Sequence[str] = (),
    keep: Sequence[Path] = (),
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
    """
    names, kept = tuple(channels), tuple(map(str, keep))
    finds = known is None and how.wants_percentiles
    stages = [Stage(SURVEY, Survey(how, finds))] if how.reach or finds else []
    if known is not None:
        _check_known(how, known)
        return stages
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


def _check_known(how: Preparation, known: Percentiles) -> None:
    """Raise `InputError` unless the percentiles are those that the preparation asks for."""
    asked = {"channel": how.p, "threshold": how.p_sum, "post": how.p_post}
    wrong = [name for name, p in asked.items() if (p is None) != (getattr(known, name) is None)]
    if wrong:
        raise InputError(
            f"percentiles do not fit their preparation: {', '.join(wrong)} of {known} and {how}"
        )


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
        """Leave borders, ``values`` with ``counts`` of channels by ``ends``, ``runs`` (c, n, m)."""
        image, tile = task.place(unit)
        how, n_columns = self.how, len(image.channels)
        how.sigmas(n_columns)
        borders = Borders(how.reach)
        counts_all = self.finds and how.p is not None and is_small(image.source.dtype)
        counted: list[Array] = [np.zeros(0, np.int64)] * n_columns
        corners, length = runs_of(image, tile)
        runs = no_runs(n_columns, len(corners), how.dtype)
        for column, plane in image.planes(tile, reading):
            pixels = plain(plane, how.dtype)
            if how.reach:
                borders.take(column, n_columns, pixels)
            if counts_all:
                counted[column] = count_small(pixels)
            if self.finds:
                runs[column, :, :length] = take_runs(pixels, corners, length)
            reading.lap("survey")
        borders.put(out)
        if self.finds:
            out.put("runs", runs)
        if counts_all:
            values = [np.flatnonzero(counts) for counts in counted]
            out.put("ends", np.cumsum([0, *map(len, values)]))
            out.put_pieces("values", [each.astype(np.uint16) for each in values])
            pieces = [counts[at] for counts, at in zip(counted, values, strict=True)]
            out.put_pieces("counts", pieces)


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
