"""What percentiles of a preparation are taken of: channels, their sums, and blurred channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels.blurring import blur_runs
from scportrait_like.kernels.boxes import cut_pixels, ragged_offsets
from scportrait_like.kernels.rows import add_scaled, relate_to_sums
from scportrait_like.pixels.halos import Surroundings
from scportrait_like.pixels.images import PixelImage
from scportrait_like.pixels.prepared import (
    SURVEY,
    Blur,
    Percentiles,
    Preparation,
    is_small,
    plain,
    related_rows,
)
from scportrait_like.pixels.selection import batches, found_by
from scportrait_like.pixels.stages import PixelTask
from scportrait_like.raster.reading import Reading
from scportrait_like.raster.tiles import Tile
from scportrait_like.run.plan import Unit
from scportrait_like.run.unitfile import UnitWriter

CHANNELS: Final = "channels"
SUMS: Final = "sums"
POST: Final = "post"
# Pixels of a sampled run: shorter ones cost more to blur, longer ones are more alike.
_RUN: Final = 16
# Sampled runs of an image of 4096 x 4096; of n times the pixels n^(2/3) times as many.
_RUNS: Final = 4096
_FEWEST: Final = 256
_MOST: Final = 1 << 19
# Pixels around sampled runs that are blurred at once.
_BLURRED: Final = 1 << 22
# Sampled pixels that are put together at once.
_TOGETHER: Final = 1 << 25

Array = NDArray[Any]


def runs_of(image: PixelImage, tile: Tile, inset: int = 0) -> tuple[NDArray[np.int64], int]:
    """Which short runs of a tile's pixels are sampled: their (n, 3) z, y, x, and their length.

    They do not touch a result, so they may depend on how the image is cut. All lie `inset` pixels
    or more away from the tile's borders.
    """
    extents = [edge.stop - edge.start for edge in tile.region]
    depth, h, w = [1, *extents][-3:]
    count = n_runs(image, tile)
    length = min(_RUN, w - 2 * inset)
    random = np.random.default_rng([tile.index, image.n_pixels])
    stop = [depth, h - inset, w - inset - length + 1]
    corners = random.integers([0, inset, inset], stop, (count, 3))
    return corners[np.lexsort(corners.T[::-1])], length


def n_runs(image: PixelImage, tile: Tile) -> int:
    """How many runs of a tile are sampled."""
    of_image = _RUNS * (image.n_pixels / 4096**2) ** (2 / 3)
    of_image = min(max(of_image, _FEWEST), _MOST)
    pixels = prod(edge.stop - edge.start for edge in tile.region)
    found: int = ceil(of_image * pixels / image.n_pixels)
    return found


def no_runs(n_columns: int, count: int, dtype: str) -> Array:
    """Runs (c, count, m), to be filled; what a narrow tile does not fill is NaN and left out."""
    return np.full((n_columns, count, _RUN), np.nan, dtype)


def take_runs(plane: Array, corners: NDArray[np.int64], length: int) -> Array:
    """Runs (n, length) of a plane ([z,] y, x)."""
    z, y, x = corners.T[..., None]
    found: Array = plane.reshape(-1, *plane.shape[-2:])[z, y, x + np.arange(length)]
    return found


@dataclass(frozen=True)
class Columns:
    """What the values of all stages have in common.

    Attributes
    ----------
    how
        The preparation.
    names
        Of the channels, or none.
    """

    how: Preparation
    names: tuple[str, ...] = ()

    def columns(self, task: PixelTask) -> int:
        """One for each channel."""
        return len(task.images[0].channels)

    def counts(self, task: PixelTask, image: int) -> tuple[int, NDArray[np.int64]] | None:
        """They are too many."""
        return None

    def describe(self, task: PixelTask, columns: Sequence[int]) -> str:
        """Channels by name, else by number."""
        if len(columns) == self.columns(task) > 1:
            return "every channel has"
        known = [self.names[c] if self.names else f"number {c + 1}" for c in columns]
        several = len(known) > 1
        return f"channel{'s' * several} {', '.join(known)} {'have' if several else 'has'}"

    def of_nothing(self, task: PixelTask, columns: Sequence[int]) -> str:
        """Say what alone is there."""
        return f"{self.describe(task, columns)} nothing but zeros and NaN"

    def samples(self, task: PixelTask, image: int) -> Iterator[Array]:
        """Sampled runs (n, length) of one column after the other."""
        looked_at, n_columns = task.images[image], self.columns(task)
        n = sum(n_runs(looked_at, looked_at.grid[tile]) for tile in range(len(looked_at.grid)))
        for columns in batches([n * _RUN] * n_columns, _TOGETHER):
            runs = np.empty((len(columns), n, _RUN), self.how.dtype)
            filled = 0
            for part in self.runs(task, image, slice(columns.start, columns.stop)):
                runs[:, filled : (filled := filled + part.shape[1])] = part
            yield from runs

    def runs(self, task: PixelTask, image: int, columns: slice) -> Iterator[Array]:
        """Sampled runs (columns, n, length) of some of the columns, tile by tile."""
        raise NotImplementedError


@dataclass(frozen=True)
class ChannelValues(Columns):
    """The pixels of each channel."""

    name = CHANNELS
    may_be_negative = False

    @property
    def percentile(self) -> float:
        """`p`."""
        return _given(self.how.p)

    def counts(self, task: PixelTask, image: int) -> tuple[int, NDArray[np.int64]] | None:
        """Of small integers."""
        dtype = task.images[image].source.dtype
        if not is_small(dtype):
            return None
        pixel = plain(np.zeros(1, dtype), self.how.dtype).dtype
        found = np.zeros((self.columns(task), 1 << 8 * pixel.itemsize), np.int64)
        for left in task.left_in_image(SURVEY, image):
            ends, values, counts = (np.array(left[part]) for part in ("ends", "values", "counts"))
            for column, (start, stop) in enumerate(pairwise(ends.tolist())):
                found[column, values[start:stop]] += counts[start:stop]
        return int(np.iinfo(pixel).min), found

    def of_nothing(self, task: PixelTask, columns: Sequence[int]) -> str:
        """Integers are never NaN."""
        of_integers = task.images[0].dtype.kind != "f"
        wrong = super().of_nothing(task, columns)
        return wrong.removesuffix(" and NaN") if of_integers else wrong

    def runs(self, task: PixelTask, image: int, columns: slice) -> Iterator[Array]:
        """Those that the survey has left."""
        for left in task.left_in_image(SURVEY, image):
            yield np.array(left["runs"][columns])
            left.release()

    def of_tile(
        self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading, first: bool
    ) -> Iterator[tuple[int, Array]]:
        """Yield the pixels of each channel."""
        image, tile = task.place(unit)
        for column, plane in image.planes(tile, reading):
            yield column, plain(plane, self.how.dtype).astype(self.how.dtype, copy=False)


@dataclass(frozen=True)
class SumValues(Columns):
    """The sums of each pixel's channels, divided by their percentiles, before the blur."""

    name = SUMS
    may_be_negative = True

    @property
    def percentile(self) -> float:
        """`p_sum`."""
        return _given(self.how.p_sum)

    def columns(self, task: PixelTask) -> int:
        """One."""
        return 1

    def describe(self, task: PixelTask, columns: Sequence[int]) -> str:
        """Say what is added up."""
        return "the sum over the channels has"

    def runs(self, task: PixelTask, image: int, columns: slice) -> Iterator[Array]:
        """Sums of the runs that the survey has left."""
        scales = _scales(task, self.how)
        for runs in ChannelValues(self.how).runs(task, image, slice(None)):
            yield np.tensordot(scales, runs, 1)[None]

    def of_tile(
        self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading, first: bool
    ) -> Iterator[tuple[int, Array]]:
        """Yield the sums; leave ``blurred`` runs (c, n, m), where they are needed later."""
        image, tile = task.place(unit)
        how, scales = self.how, _scales(task, self.how)
        sums = np.zeros(prod(edge.stop - edge.start for edge in tile.region))
        blurred = first and how.p_post is not None and how.reach > 0
        runs = _BlurredRuns(task, unit, Blur(how, scales)) if blurred else None
        for column, plane in image.planes(tile, reading):
            pixels = plain(plane, how.dtype)
            if how.p_sum is not None:
                add_scaled(pixels, scales[column], how.dtype, sums)
            if runs is not None:
                runs.take(column, pixels)
            reading.lap("sums")
        if runs is not None:
            out.put("blurred", runs.found)
        if how.p_sum is not None:
            yield 0, sums.astype(how.dtype)


class _BlurredRuns:
    """The sampled runs of a tile, blurred.

    In a large tile they are those that need nothing from around it.
    """

    def __init__(self, task: PixelTask, unit: Unit, blur: Blur) -> None:
        image, tile = task.place(unit)
        self._blur, reach = blur, blur.how.reach
        is_large = min(edge.stop - edge.start for edge in tile.region[-2:]) > 16 * reach + _RUN
        self._corners, self._length = runs_of(image, tile, reach if is_large else 0)
        self._around = None if is_large else Surroundings(task, SURVEY, unit, reach)
        self.found = no_runs(len(image.channels), len(self._corners), blur.how.dtype)

    def take(self, column: int, pixels: Array) -> None:
        """Blur those of one channel's tile."""
        reach, dtype = self._blur.how.reach, self.found.dtype
        z, y, x = self._corners.T
        if self._around is None:
            y, x = y - reach, x - reach
        else:
            pixels = self._around.around(column, pixels, dtype)
        height, length = 2 * reach + 1, self._length + 2 * reach
        y = y + z * pixels.shape[-2]  # planes of a volume lie below each other
        boxes = np.stack([y, x, y + height, x + length], axis=1)
        runs = np.empty((len(z), self._length), dtype)
        together = max(1, _BLURRED // (height * length))
        for start in range(0, len(z), together):
            part = slice(start, start + together)
            self._blur_runs(column, pixels, boxes[part], runs[part])
        self.found[column, :, : self._length] = runs

    def _blur_runs(self, column: int, pixels: Array, boxes: Array, out: Array) -> None:
        """Blur runs, each of which needs a box of `pixels`."""
        length = self._length + 2 * self._blur.how.reach
        # All that they need, one above the other.
        needed = np.empty(int((boxes[:, 2] - boxes[:, 0]).sum()) * length, pixels.dtype)
        cut_pixels(pixels.reshape(-1, pixels.shape[-1]), boxes, ragged_offsets(boxes), needed)
        corners = np.zeros((len(boxes), 2), np.int64)
        corners[:, 0] = np.arange(len(boxes)) * (boxes[0, 2] - boxes[0, 0])
        blur_runs(
            needed.reshape(-1, length).astype(out.dtype),
            self._blur.how.reach,
            self._blur.weights[column],
            self._blur.scales[column],
            corners,
            out,
        )


@dataclass(frozen=True)
class BlurSample:
    """Leaves ``blurred`` runs where no sums are asked for."""

    how: Preparation

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Go through a tile."""
        for _ in SumValues(self.how).of_tile(task, unit, out, reading, first=True):
            pass


@dataclass(frozen=True)
class PostValues(Columns):
    """The pixels of each channel, blurred and related to their sums.

    Attributes
    ----------
    keep
        Zarr arrays into which they are written, or none.
    """

    keep: tuple[str, ...] = ()

    name = POST
    may_be_negative = False

    @property
    def percentile(self) -> float:
        """`p_post`."""
        return _given(self.how.p_post)

    def runs(self, task: PixelTask, image: int, columns: slice) -> Iterator[Array]:
        """Blurred runs, related to their sums."""
        numbers = numbers_so_far(task, self.how)
        for runs in self._blurred(task, image):
            rows = runs.reshape(len(runs), -1)
            relate_to_sums(rows, numbers.threshold, divide=self.how.norm_sum)
            yield rows.reshape(runs.shape)[columns]

    def _blurred(self, task: PixelTask, image: int) -> Iterator[Array]:
        if self.how.reach:
            for left in task.left_in_image(SUMS, image):
                yield np.array(left["blurred"])
                left.release()
            return
        scales = np.array(_scales(task, self.how))[:, None, None]
        for runs in ChannelValues(self.how).runs(task, image, slice(None)):
            runs *= scales
            yield runs

    def of_nothing(self, task: PixelTask, columns: Sequence[int]) -> str:
        """The image is not empty: it is what the threshold has left of it."""
        wrong = super().of_nothing(task, columns)
        threshold = numbers_so_far(task, self.how).threshold
        if threshold is None:
            return f"{wrong}, once prepared"
        above = f"percentile p_sum={self.how.p_sum:g} of the sums ({threshold:g})"
        if len(columns) == self.columns(task):
            return (
                f"no pixel has a blurred sum over the channels above {above}: lower p_sum or "
                "sigma, or leave p_sum out"
            )
        return (
            f"{wrong} in the pixels whose blurred sum is above {above}: lower p_sum, or leave the "
            "channel out"
        )

    def of_tile(
        self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading, first: bool
    ) -> Iterator[tuple[int, Array]]:
        """Yield the pixels of each channel, and keep them."""
        rows = related_rows(self.how, numbers_so_far(task, self.how), task, unit, reading)
        if first and self.keep:
            keep_rows(self.keep, task, unit, rows, reading)
        yield from enumerate(rows)


def keep_rows(
    paths: Sequence[str], task: PixelTask, unit: Unit, rows: Array, reading: Reading
) -> None:
    """Write a tile's rows into its image's array: whole chunks, or nobody else does meanwhile."""
    import zarr

    image, tile = task.place(unit)
    array: Any = zarr.open_array(Path(paths[unit.what["image"]]), mode="r+")
    extents = [edge.stop - edge.start for edge in tile.region]
    both = zip(tile.start, image.grid.phase, extents, strict=True)
    place = [slice(start + before, start + before + n) for start, before, n in both]
    for column, row in enumerate(rows):
        reading.check()
        array[(column, *place)] = row.reshape(extents)
    reading.lap("write")


def numbers_so_far(task: PixelTask, how: Preparation) -> Percentiles:
    """The percentiles that were found before those of the blurred pixels."""
    threshold = None if how.p_sum is None else found_by(task, SUMS)[0]
    return Percentiles(None if how.p is None else found_by(task, CHANNELS), threshold, None)


def _scales(task: PixelTask, how: Preparation) -> tuple[float, ...]:
    channel = None if how.p is None else found_by(task, CHANNELS)
    return Blur.of(how, channel, len(task.images[0].channels)).scales


def _given(value: float | None) -> float:
    if value is None:
        raise ValueError("this percentile was not asked for")
    return value
