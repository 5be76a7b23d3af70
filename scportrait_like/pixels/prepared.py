"""Pixels prepared for a clustering: in proportion to their channels, blurred, and to their sums.

The published preparation of Pixie (Liu et al. 2023, Nature Communications 14:4618), in this order:
each channel is divided by a percentile of its own, blurred, related to the sum over all channels,
and divided by a percentile once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from math import isfinite
from numbers import Real
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.kernels.blurring import blur_plane, blur_radius, gaussian_weights
from scportrait_like.kernels.rows import relate_to_sums, scale_values
from scportrait_like.pixels.halos import Surroundings
from scportrait_like.pixels.stages import PixelTask
from scportrait_like.raster.reading import Reading
from scportrait_like.run.plan import Unit

SURVEY: Final = "survey"
PERCENTILES: Final = "percentiles"
_DTYPES: Final = ("float32", "float64")
# A blur may look so far whatever the image: it costs nothing.
_LITTLE: Final = 64

Array = NDArray[Any]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Preparation:
    """How pixels are prepared; whatever is None is left out.

    Attributes
    ----------
    p
        Each channel is divided by its own percentile `p`, in [0, 100].
    p_sum
        A pixel is NaN in all channels unless its blurred sum over the channels is above percentile
        `p_sum` of the sums before the blur. (So is a pixel with a NaN in any channel.)
    p_post
        In the end each channel is divided by its percentile `p_post`.
    sigma
        Of the Gaussian blur of each plane, in pixels: one for all channels, or one a channel.
    norm_sum
        Whether the channels of a pixel are divided by their blurred sum.
    cap_max
        Values above it become this.
    dtype
        ``float32`` or ``float64``: of the values.

    Raises
    ------
    InputError
        A value that is not allowed.
    """

    p: float | None = 99
    p_sum: float | None = 5
    p_post: float | None = 99.9
    sigma: float | tuple[float, ...] | None = 2
    norm_sum: bool = True
    cap_max: float | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("p", "p_sum", "p_post"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 <= value <= 100):
                raise InputError(f"{name}={value!r} is not allowed: a percentile is in 0..100")
        object.__setattr__(self, "sigma", _checked_sigma(self.sigma))
        if self.cap_max is not None and not (_is_number(self.cap_max) and self.cap_max > 0):
            raise InputError(f"cap_max={self.cap_max!r} is not allowed: give a number above 0")
        if self.dtype not in _DTYPES:
            raise InputError(f"the dtype {self.dtype!r} is not allowed: {' or '.join(_DTYPES)}")
        for name in ("p", "p_sum", "p_post", "cap_max"):  # numpy's numbers are no JSON
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(value))
        object.__setattr__(self, "norm_sum", bool(self.norm_sum))

    def sigmas(self, n_channels: int) -> tuple[float, ...]:
        """One for each channel; 0: it is not blurred.

        Raises
        ------
        InputError
            There are more or fewer than channels.
        """
        if not isinstance(self.sigma, tuple):
            return (self.sigma or 0.0,) * n_channels
        if len(self.sigma) != n_channels:
            raise InputError(
                f"sigma has {len(self.sigma)} values for {n_channels} channels: give one a "
                "channel, or one for all"
            )
        return self.sigma

    def check_differs(self, n_channels: int) -> None:
        """Raise `InputError` if prepared pixels of so many channels cannot differ."""
        self.sigmas(n_channels)
        if self.norm_sum and n_channels == 1:
            raise InputError(
                "of a single channel every pixel's share of the sum over the channels is 1: set "
                "norm_sum: false, or name more channels"
            )

    def check_reach(self, name: str, shape: Sequence[int]) -> None:
        """Raise `InputError` if a blur looks further than an image ([z,] y, x) is wide."""
        widest = max(_LITTLE, *shape[-2:])
        if self.reach > widest:
            raise InputError(
                f"sigma is too large for image {name}: its blur looks {self.reach} pixels "
                f"(4 sigma) to each side, and the image is {shape[-2]} x {shape[-1]}; "
                f"give {widest / 4:g} at most"
            )

    @property
    def reach(self) -> int:
        """How far the widest blur looks, in pixels."""
        given = self.sigma if isinstance(self.sigma, tuple) else (self.sigma or 0.0,)
        return max(map(blur_radius, given), default=0)

    @property
    def wants_percentiles(self) -> bool:
        """Whether any are asked for."""
        return not self.p is self.p_sum is self.p_post is None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, which `from_json` takes."""
        found = asdict(self)
        if isinstance(self.sigma, tuple):
            found["sigma"] = list(self.sigma)
        return found

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Preparation:
        """Return what was stored.

        Raises
        ------
        InputError
            It is something else.
        """
        _check_keys(given, cls)
        sigma = given["sigma"]
        return cls(**{**given, "sigma": tuple(sigma) if isinstance(sigma, list) else sigma})


@dataclass(frozen=True)
class Percentiles:
    """The numbers of a preparation; None where they were not asked for.

    Attributes
    ----------
    channel
        (c,): percentile `p` of each channel, the mean over the images.
    threshold
        Percentile `p_sum` of the sums.
    post
        (c,): percentile `p_post` of each channel.
    """

    channel: tuple[float, ...] | None
    threshold: float | None
    post: tuple[float, ...] | None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; floats stay exact."""
        return {
            "channel": None if self.channel is None else list(self.channel),
            "threshold": self.threshold,
            "post": None if self.post is None else list(self.post),
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Percentiles:
        """Return what was stored.

        Raises
        ------
        InputError
            It is something else.
        """
        _check_keys(given, cls)
        channel, threshold, post = (given[field.name] for field in fields(cls))
        for numbers in (channel, None if threshold is None else [threshold], post):
            if numbers is not None and not (
                isinstance(numbers, (list, tuple)) and all(map(_is_number, numbers))
            ):
                raise InputError(f"{numbers!r} are no percentiles of a preparation")
        return cls(
            None if channel is None else tuple(map(float, channel)),
            None if threshold is None else float(threshold),
            None if post is None else tuple(map(float, post)),
        )


def check_known(how: Preparation, known: Percentiles, n_channels: int) -> None:
    """Raise `InputError` unless percentiles are those that a preparation of channels asks for."""
    how.sigmas(n_channels)
    threshold = None if known.threshold is None else (known.threshold,)
    for name, key, given, n in (
        ("channel", "p", known.channel, n_channels),
        ("threshold", "p_sum", threshold, 1),
        ("post", "p_post", known.post, n_channels),
    ):
        asked = getattr(how, key)
        if (asked is None) != (given is None):
            there = "percentiles are" if given is not None else "no percentiles are"
            raise InputError(
                f"the preparation has {key}={asked if asked is None else f'{asked:g}'}, but "
                f"{there} given for it as {name}"
            )
        if given is None:
            continue
        if len(given) != n:
            raise InputError(
                f"{len(given)} percentiles are given as {name}, not {n}: one a channel"
            )
        least = -np.inf if name == "threshold" else 0
        if wrong := [value for value in given if not least < value < np.inf]:
            above = "" if name == "threshold" else " above 0"
            raise InputError(
                f"the percentiles given as {name} are finite numbers{above}, not {wrong[0]:g}"
            )


def _checked_sigma(given: Any) -> float | tuple[float, ...] | None:
    if given is None:
        return None
    several = isinstance(given, (tuple, list, np.ndarray))
    values = tuple(given) if several else (given,)
    if not values or not all(_is_number(value) and 0 <= value < np.inf for value in values):
        raise InputError(
            f"sigma={given!r} is not allowed: give 0 or more pixels, one value or one a channel, "
            "or None for no blur"
        )
    return tuple(map(float, values)) if several else float(values[0])


def _is_number(value: Any) -> bool:
    """Whether a value is a real number, and no truth value and no NaN."""
    kind = np.asarray(value).dtype.kind if isinstance(value, Real) else ""
    return kind in "iuf" and kind != "" and not np.isnan(value)


def _check_keys(given: Any, cls: type) -> None:
    wanted = {field.name for field in fields(cls)}
    if not isinstance(given, Mapping) or set(given) != wanted:
        raise InputError(f"a stored {cls.__name__} has {', '.join(sorted(wanted))}, not {given!r}")


def percentiles_of(task: PixelTask) -> Percentiles:
    """The percentiles that a run has found, or was given."""
    if isinstance(task.prepared, PreparedPixels) and task.prepared.known is not None:
        return task.prepared.known
    left = task.left(PERCENTILES)

    def found(name: str) -> tuple[float, ...] | None:
        return tuple(left[name].tolist()) if name in left else None

    threshold = found("threshold")
    return Percentiles(found("channel"), None if threshold is None else threshold[0], found("post"))


def plain(plane: Array, dtype: str) -> Array:
    """Pixels in one of the few types that kernels are compiled for, without loss where they fit.

    Integers of up to 16 bits stay integers; all else becomes `dtype`.
    """
    kind, size = plane.dtype.kind, plane.dtype.itemsize
    if kind == "b":
        return plane.view(np.uint8)
    if is_small(plane.dtype):
        wanted = "u1" if size == 1 and kind == "u" else f"{kind}2"
        return plane.astype(wanted, copy=False)
    with np.errstate(over="ignore"):
        return plane.astype(dtype, copy=False)


def is_small(dtype: np.dtype[Any]) -> bool:
    """Whether every value of a dtype can be counted by itself."""
    return dtype.kind in "iub" and dtype.itemsize <= 2


@dataclass(frozen=True)
class Blur:
    """The blur of a tile's channels.

    Attributes
    ----------
    how
        The preparation.
    scales
        (c,): what each channel is multiplied by.
    """

    how: Preparation
    scales: tuple[float, ...]

    @classmethod
    def of(cls, how: Preparation, channel: tuple[float, ...] | None, n_channels: int) -> Blur:
        """A blur of channels that are divided by their percentiles."""
        return cls(how, (1.0,) * n_channels if channel is None else tuple(1 / q for q in channel))

    @cached_property
    def weights(self) -> list[Float64]:
        """Of each channel."""
        return [gaussian_weights(sigma) for sigma in self.how.sigmas(len(self.scales))]

    def rows(self, task: PixelTask, unit: Unit, reading: Reading) -> Array:
        """Rows of a tile's pixels (c, n): scaled and blurred."""
        image, tile = task.place(unit)
        extents = tuple(edge.stop - edge.start for edge in tile.region)
        dtype = np.dtype(self.how.dtype)
        rows = np.empty((len(self.scales), *extents), dtype)
        reach = self.how.reach
        around = Surroundings(task, SURVEY, unit, reach) if reach else None
        reading.lap("borders")
        for column, plane in image.planes(tile, reading):
            pixels, scale = plain(plane, self.how.dtype), self.scales[column]
            if around is None:
                rows[column] = pixels
                scale_values(rows[column], scale)
            else:
                self._blur(around.around(column, pixels, dtype), column, rows[column])
            reading.lap("blur")
        return rows.reshape(len(rows), -1)

    def _blur(self, padded: Array, column: int, out: Array) -> None:
        reach, weights, scale = self.how.reach, self.weights[column], self.scales[column]
        planes = padded.reshape(-1, *padded.shape[-2:]), out.reshape(-1, *out.shape[-2:])
        for before, after in zip(*planes, strict=True):
            blur_plane(before, reach, weights, scale, after)


@dataclass(frozen=True)
class PreparedPixels:
    """Prepares the pixels of tiles, wherever a run asks for them.

    Attributes
    ----------
    how
        The preparation.
    known
        Its numbers; None: the run finds them itself (`preparation_stages`).
    """

    how: Preparation
    known: Percentiles | None = None

    def pixels(self, task: PixelTask, unit: Unit, reading: Reading) -> Array:
        """Rows of a tile's pixels as (c, n), n in row-major order."""
        numbers = percentiles_of(task) if self.known is None else self.known
        rows = related_rows(self.how, numbers, task, unit, reading)
        finish = finishing(self.how, numbers)
        for column, row in enumerate(rows):
            finish(column, row)
        reading.lap("prepare")
        return rows


def related_rows(
    how: Preparation, numbers: Percentiles, task: PixelTask, unit: Unit, reading: Reading
) -> Array:
    """Rows (c, n) of a tile: blurred and related to their sums."""
    image, _ = task.place(unit)
    rows = Blur.of(how, numbers.channel, len(image.channels)).rows(task, unit, reading)
    relate_to_sums(rows, numbers.threshold, divide=how.norm_sum)
    reading.lap("prepare")
    return rows


def finishing(how: Preparation, numbers: Percentiles) -> Callable[[int, Array], None]:
    """What is done last, in place, with values of a channel: divided by a percentile and capped."""
    cap = np.inf if how.cap_max is None else how.cap_max

    def finish(column: int, values: Array) -> None:
        if numbers.post is not None or isfinite(cap):
            scale_values(values, 1.0 if numbers.post is None else 1 / numbers.post[column], cap)

    return finish
