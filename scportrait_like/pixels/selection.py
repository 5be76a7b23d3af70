"""Exact percentiles of values that are too many to be held: a sample tells between which bounds.

1. From a sample of the values a *guess*: bounds between which a percentile lies, all but certainly.
2. All values are looked at once: those between the bounds are kept, the others counted.
3. The *check*: the values beside the percentile's rank are among those that were kept. Where they
   are not, the values are looked at *again*, without the bound that was wrong.

So the result is exact, and does not depend on the sample; only the work does. Small integers need
none of this: each of their values is counted. Zeros and NaN are left out everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, sqrt
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.kernels.histograms import select_between
from scportrait_like.pixels.stages import PixelTask, Stage
from scportrait_like.raster.reading import Reading
from scportrait_like.run.plan import Unit
from scportrait_like.run.unitfile import UnitReader, UnitWriter

# How many standard deviations of the sample's share the bounds lie apart from it.
_SIGMAS: Final = 8.0
# Kept values that are put together at once.
_TOGETHER: Final = 1 << 25

Array = NDArray[Any]
Float64 = NDArray[np.float64]


class Values(Protocol):
    """Values of which percentiles are wanted, in one or several columns; frozen, and it pickles."""

    @property
    def name(self) -> str:
        """Of the stages."""

    @property
    def percentile(self) -> float:
        """Which one, in 0..100."""

    @property
    def may_be_negative(self) -> bool:
        """Whether percentiles of 0 and below are of use."""

    def columns(self, task: PixelTask) -> int:
        """How many columns there are."""

    def counts(self, task: PixelTask, image: int) -> tuple[int, NDArray[np.int64]] | None:
        """The smallest value, and how often each from there up occurs, (columns, n).

        None: they are too many to be counted.
        """

    def samples(self, task: PixelTask, image: int) -> Iterator[Array]:
        """Some of an image's values, (runs, length), column by column: a run has neighbours."""

    def of_tile(
        self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading, first: bool
    ) -> Iterator[tuple[int, Array]]:
        """All values of a tile, column by column; more may be left, where it is the first time."""

    def describe(self, task: PixelTask, columns: Sequence[int]) -> str:
        """What some of the columns are, for messages: "channel A has"."""

    def of_nothing(self, task: PixelTask, columns: Sequence[int]) -> str:
        """What is wrong with columns without any value."""


def selection_stages(values: Values, *, counted: bool) -> list[Stage]:
    """The stages that find percentiles; `counted`: all values of all images are."""
    found = Stage(f"{values.name}-found", Found(values, counted), tiled=False)
    if counted:
        return [found]
    return [
        Stage(f"{values.name}-guess", Guess(values), tiled=False),
        Stage(values.name, Collect(values, again=False)),
        Stage(f"{values.name}-check", Check(values), tiled=False),
        Stage(f"{values.name}-again", Collect(values, again=True)),
        found,
    ]


def found_by(task: PixelTask, name: str) -> tuple[float, ...]:
    """Percentiles of all columns that the stages of that name have found."""
    return tuple(task.left(f"{name}-found")["found"].tolist())


@dataclass(frozen=True)
class Guess:
    """Leaves ``bounds`` (images, columns, 2) float64; NaN where values are counted."""

    values: Values

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Look at the samples."""
        bounds = np.full((len(task.images), self.values.columns(task), 2), np.nan)
        for image in range(len(task.images)):
            if self.values.counts(task, image) is None:
                for column, runs in enumerate(self.values.samples(task, image)):
                    bounds[image, column] = bounds_of(runs, self.values.percentile / 100)
        out.put("bounds", bounds)
        reading.lap("percentiles")


def bounds_of(runs: Array, share: float) -> tuple[float, float]:
    """Bounds between which a quantile lies.

    Parameters
    ----------
    runs
        (n, length): a random sample of runs. Values of one run resemble each other, so each counts
        as one, or less where a few runs hold most of the values.
    share
        Of the values that lie below.
    """
    there = (runs != 0) & ~np.isnan(runs)
    by_run = there.sum(axis=1, dtype=np.float64)
    total = int(by_run.sum())
    if total == 0:
        return -np.inf, np.inf
    runs_that_count = by_run.sum() ** 2 / (by_run**2).sum()
    slack = _SIGMAS * (sqrt(share * (1 - share) / runs_that_count) + 1 / runs_that_count)
    first = floor((share - slack) * (total - 1))
    last = ceil((share + slack) * (total - 1))
    ranks = [rank for rank in (first, last) if 0 <= rank < total]
    ordered = runs[there]
    if ranks:
        ordered.partition(ranks)
    return (
        float(ordered[first]) if first >= 0 else -np.inf,
        float(ordered[last]) if last < total else np.inf,
    )


@dataclass(frozen=True)
class Collect:
    """Leaves of a tile ``counts`` (columns, 4), ``inside`` of all columns, and their ``ends``."""

    values: Values
    again: bool

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Look at a tile's values."""
        stage = f"{self.values.name}-{'check' if self.again else 'guess'}"
        bounds = np.array(task.left(stage)["bounds"][unit.what["image"]])
        wanted = ~np.isnan(bounds[:, 0])
        if not wanted.any():
            return
        counts = np.zeros((len(bounds), 4), np.int64)
        inside: list[Array] = [np.zeros(0)] * len(bounds)
        for column, values in self.values.of_tile(task, unit, out, reading, not self.again):
            low, high = bounds[column] if wanted[column] else (np.inf, np.inf)
            counts[column], inside[column] = select_between(values, low, high)
            reading.lap("percentiles")
        out.put("counts", counts)
        out.put("ends", np.cumsum([0, *map(len, inside)]))
        out.put_pieces("inside", inside)


@dataclass(frozen=True)
class Check:
    """Leaves ``found`` (images, columns), and ``bounds`` for those that are to be looked for again.

    Their bounds are NaN where all is well.
    """

    values: Values

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Put together what the tiles have left."""
        guessed = task.left(f"{self.values.name}-guess")["bounds"]
        found, bounds = np.full(guessed.shape[:2], np.nan), np.full(guessed.shape, np.nan)
        for image in range(len(task.images)):
            if not np.isnan(guessed[image]).any():
                found[image], bounds[image] = _settled(
                    task, self.values, self.values.name, image, np.array(guessed[image])
                )
        out.put("found", found)
        out.put("bounds", bounds)
        reading.lap("percentiles")


@dataclass(frozen=True)
class Found:
    """Leaves ``found`` (columns,) float64: the mean over the images."""

    values: Values
    counted: bool

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Put together what was found."""
        every = [self._of_image(task, image) for image in range(len(task.images))]
        out.put("found", np.mean(every, axis=0))
        reading.lap("percentiles")

    def _of_image(self, task: PixelTask, image: int) -> Float64:
        counts = self.values.counts(task, image)
        if counts is not None:
            lowest, by_column = counts
            found = np.array(
                [counted_quantile(lowest, n, self.values.percentile / 100) for n in by_column]
            )
            _refuse_empty(task, self.values, image, np.array([not n.any() for n in by_column]))
        else:
            checked = task.left(f"{self.values.name}-check")
            found, bounds = np.array(checked["found"][image]), np.array(checked["bounds"][image])
            missed = ~np.isnan(bounds[:, 0])
            if missed.any():
                name = f"{self.values.name}-again"
                found[missed] = _settled(task, self.values, name, image, bounds)[0][missed]
        what = f"a percentile {self.values.percentile:g} of"
        _refuse(task, self.values, image, np.isfinite(found), f"{what} infinity")
        if not self.values.may_be_negative:
            positive = f"{what} 0 or less, by which nothing can be divided"
            _refuse(task, self.values, image, found > 0, positive)
        return found


def _refuse(task: PixelTask, values: Values, image: int, fine: NDArray[np.bool_], has: str) -> None:
    if not fine.all():
        described = values.describe(task, np.flatnonzero(~fine).tolist())
        raise InputError(f"image {task.images[image].name}: {described} {has}")


def _refuse_empty(task: PixelTask, values: Values, image: int, empty: NDArray[np.bool_]) -> None:
    if empty.any():
        wrong = values.of_nothing(task, np.flatnonzero(empty).tolist())
        raise InputError(f"image {task.images[image].name}: {wrong}")


def _settled(
    task: PixelTask, values: Values, stage: str, image: int, bounds: Float64
) -> tuple[Float64, Float64]:
    """Percentiles (columns,) of an image, and bounds (columns, 2) to look between again, or NaN."""
    counts = np.zeros((len(bounds), 4), np.int64)
    sizes = np.zeros(len(bounds), np.int64)
    for left in task.left_in_image(stage, image):
        counts += left["counts"]
        sizes += np.diff(left["ends"])
        left.release()
    wanted = ~np.isnan(bounds[:, 0])
    _refuse_empty(task, values, image, wanted & (counts[:, 0] == 0))
    found, again = np.full(len(bounds), np.nan), np.full((len(bounds), 2), np.nan)
    share = values.percentile / 100
    for columns in batches(sizes.tolist(), _TOGETHER):
        inside = _gathered(task.left_in_image(stage, image), columns, sizes)
        for column, kept in zip(columns, inside, strict=True):
            if wanted[column]:
                total, below, at_low, at_high = counts[column].tolist()
                low, high = bounds[column].tolist()
                selection = Selection(total, below, at_low, at_high, kept, low, high)
                found[column], again[column] = selection.quantile(share)
    return found, again


def batches(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Neighbouring columns of such sizes that have no more than `most` together, or are alone."""
    start, held = 0, 0
    for column, size in enumerate(sizes):
        if column > start and held + size > most:
            yield range(start, column)
            start, held = column, 0
        held += size
    yield range(start, len(sizes))


def _gathered(left: Iterator[UnitReader], columns: range, sizes: NDArray[np.int64]) -> list[Array]:
    """The kept values of columns; each is held once."""
    found: list[Array] = []
    filled = [0] * len(columns)
    for reader in left:
        ends, inside = np.array(reader["ends"]), reader["inside"]
        found = found or [np.empty(sizes[column], inside.dtype) for column in columns]
        for number, column in enumerate(columns):
            piece = inside[ends[column] : ends[column + 1]]
            found[number][filled[number] : filled[number] + len(piece)] = piece
            filled[number] += len(piece)
        reader.release()
    return found


@dataclass
class Selection:
    """What is known of many values: how many there are, and those between two bounds.

    Attributes
    ----------
    total, below, at_low, at_high
        Counts: of all, of those below the bounds, and of those equal to one of them.
    inside
        Those between; it is put in order.
    low, high
        The bounds.
    """

    total: int
    below: int
    at_low: int
    at_high: int
    inside: Array
    low: float
    high: float

    def quantile(self, share: float) -> tuple[float, tuple[float, float]]:
        """Quantile by linear interpolation, and bounds to look between again.

        One of the two is NaN: it was found, or it lies beyond one of the bounds.
        """
        first, second, weight = rank(self.total, share)
        if first < self.below:
            return np.nan, (-np.inf, self.high)
        begin = self.below + self.at_low
        if second >= begin + len(self.inside) + self.at_high:
            return np.nan, (self.low, np.inf)
        places = sorted({k - begin for k in (first, second) if 0 <= k - begin < len(self.inside)})
        if places:
            self.inside.partition(places)
        return between(self._at(first - begin), self._at(second - begin), weight), (np.nan,) * 2

    def _at(self, place: int) -> float:
        if place < 0:
            return self.low
        return float(self.inside[place]) if place < len(self.inside) else self.high


def counted_quantile(lowest: int, counts: NDArray[np.int64], share: float) -> float:
    """Quantile of integers of which it is known how often each occurs, from the lowest up."""
    ends = np.cumsum(counts)
    if ends[-1] == 0:
        return np.nan
    first, second, weight = rank(int(ends[-1]), share)
    low, high = np.searchsorted(ends, [first, second], side="right").tolist()
    return between(float(lowest + low), float(lowest + high), weight)


def rank(total: int, share: float) -> tuple[int, int, float]:
    """The two ranks beside a quantile, from 0, and the weight of the second one."""
    place = (total - 1) * share
    first = floor(place)
    return first, min(first + 1, total - 1), place - first


def between(low: float, high: float, weight: float) -> float:
    """Interpolate as numpy does."""
    if low == high or not (isfinite(low) and isfinite(high)):
        return low if low == high or weight == 0 else low + high
    if weight < 0.5:
        return low + (high - low) * weight
    return high - (high - low) * (1 - weight)
