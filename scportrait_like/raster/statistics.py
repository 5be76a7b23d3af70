"""Statistics as data: what each needs from a tile, how partials merge, how it is finished.

A statistic is one entry of `STATISTICS`. It says which *measures* it needs of a label's pixels in
a channel; a measure is taken in each tile and merged over tiles. The smallest entry uses measures
that are there::

    def spread(parts):
        return parts[EXTREMES][..., 1] - parts[EXTREMES][..., 0]

    STATISTICS["range"] = Statistic((EXTREMES,), spread)

and a measure of its own is a name, the numbers a label that it takes, and two functions::

    def take(vectors):           # the pixels of k labels, ragged
        squares = vectors.floats**2
        return np.add.reduceat(squares, vectors.offsets[:-1])[:, None]        # (k, 1)

    SQUARES = Measure("squares", 1, take, lambda a, b, count_a, count_b: a + b)
    STATISTICS["power"] = Statistic((SQUARES,), lambda parts: parts[SQUARES][..., 0])

(Functions at the top of a module: worker processes get them by name.) Quantiles have no small
partials that merge exactly; a `Rank` stands for the two sorted values next to one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.kernels import ragged_extremes, ragged_moments, ragged_sums

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# Names that other things have in a unit's file.
_TAKEN: Final = ("ranks", "pixels", "values", "below", "light", "heavy", "ids", "area")


@dataclass(frozen=True)
class Vectors:
    """The pixels of k labels in one channel, ragged.

    Attributes
    ----------
    values
        (offsets[-1],), dtype of the image.
    offsets
        (k + 1,) int64: the pixels of label i are ``values[offsets[i]:offsets[i + 1]]``, at least
        one.
    """

    values: NDArray[Any]
    offsets: Counts

    @cached_property
    def floats(self) -> Floats:
        """The values as float64."""
        return self.values.astype(np.float64)


@dataclass(frozen=True)
class Measure:
    """Some numbers of a label in a channel, taken tile by tile and merged.

    Attributes
    ----------
    name
        Unique; it names the numbers on disk.
    width
        Numbers a label.
    take
        `Vectors` of k labels -> (k, width) float64.
    merge
        (partials a, partials b, pixels of a, pixels of b) -> partials: (..., m, width) each, and
        (m,) int64. The pixels of a come before those of b.
    """

    name: str
    width: int
    take: Callable[[Vectors], Floats]
    merge: Callable[[Floats, Floats, Counts, Counts], Floats]

    def __post_init__(self) -> None:
        if self.name in _TAKEN:
            raise InputError(f"{self.name!r} cannot name a measure: other things are called so")


@dataclass(frozen=True)
class Rank:
    """The two values of a label between which a quantile lies, in sorted order.

    Attributes
    ----------
    q
        From 0 to 1.
    """

    q: float

    def position(self, count: Counts) -> Floats:
        """Where the quantile lies in the sorted values, from 0."""
        return np.asarray((count - 1) * self.q, np.float64)


@dataclass(frozen=True)
class Parts:
    """What statistics are finished from: the merged partials of n labels in some channels.

    ``parts[measure]`` is (c, n, width), ``parts[rank]`` (c, n, 2), ``parts.count`` (n,) int64; no
    count is 0. What the user should know goes into ``parts.notes``.
    """

    count: Counts
    found: Mapping[Measure | Rank, Floats] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)

    def __getitem__(self, need: Measure | Rank) -> Floats:
        return self.found[need]


@dataclass(frozen=True)
class Statistic:
    """One statistic.

    Attributes
    ----------
    needs
        Measures and ranks.
    finish
        `Parts` -> (c, n) float64.
    absent
        Its value for a label without pixels.
    per_channel
        False: `finish` gives (1, n) of the pixels' number alone; nothing may be needed.
    """

    needs: tuple[Measure | Rank, ...]
    finish: Callable[[Parts], Floats]
    absent: float = np.nan
    per_channel: bool = True

    def __post_init__(self) -> None:
        if self.needs and not self.per_channel:
            raise InputError("a statistic that needs pixels has a value for each channel")


# Measures


def _take_sums(vectors: Vectors) -> Floats:
    dtype = vectors.values.dtype
    if dtype.kind == "f" or dtype.itemsize < 8:
        # A vector of 2^21 pixels of 32 bits stays below 2^53; of 16 bits any does.
        small = dtype.kind != "f" and _longest(vectors) << (8 * dtype.itemsize) <= 1 << 53
        return ragged_sums(vectors.values, vectors.offsets, exact=small)
    # Whole numbers of 64 bits: their halves are exact as float64, each sum of halves too.
    halves = [(vectors.values >> 32).astype(np.float64) * 2.0**32]
    halves.append((vectors.values & dtype.type(2**32 - 1)).astype(np.float64))
    high, low = (ragged_sums(half, vectors.offsets) for half in halves)
    return _add_sums(high, low)


def _longest(vectors: Vectors) -> int:
    return int(np.diff(vectors.offsets).max(initial=0))


def _add_sums(a: Floats, b: Floats, *_: Counts) -> Floats:
    """Add (sum, rest) pairs; what rounding loses stays in the rest."""
    with np.errstate(invalid="ignore"):
        total = a[..., 0] + b[..., 0]
        part = total - a[..., 0]
        lost = (a[..., 0] - (total - part)) + (b[..., 0] - part)
        rest = a[..., 1] + b[..., 1] + lost
    rest[~np.isfinite(total)] = 0
    return np.stack([total, rest], axis=-1)


def _take_moments(vectors: Vectors) -> Floats:
    return ragged_moments(vectors.values, vectors.offsets)


def _merge_moments(a: Floats, b: Floats, count_a: Counts, count_b: Counts) -> Floats:
    """Merge (mean, M2, M3, M4) of two sets of pixels.

    Pébay (2008), Formulas for robust, one-pass parallel computation of covariances and
    arbitrary-order statistical moments, SAND2008-6212, equations 2.1 and 2.5.
    """
    n_a, n_b = count_a.astype(np.float64), count_b.astype(np.float64)
    n = n_a + n_b
    mean_a, a2, a3, a4 = np.moveaxis(a, -1, 0)
    mean_b, b2, b3, b4 = np.moveaxis(b, -1, 0)
    step = mean_b - mean_a
    share_a, share_b = n_a / n, n_b / n
    m2 = a2 + b2 + step**2 * (n_a * share_b)
    m3 = (
        a3
        + b3
        + step**3 * (n_a * share_b) * (share_a - share_b)
        + 3 * step * (share_a * b2 - share_b * a2)
    )
    m4 = (
        a4
        + b4
        + step**4 * (n_a * share_b) * (share_a**2 - share_a * share_b + share_b**2)
        + 6 * step**2 * (share_a**2 * b2 + share_b**2 * a2)
        + 4 * step * (share_a * b3 - share_b * a3)
    )
    return np.stack([mean_a + step * share_b, m2, m3, m4], axis=-1)


def _take_extremes(vectors: Vectors) -> Floats:
    return ragged_extremes(vectors.values, vectors.offsets)


def _merge_extremes(a: Floats, b: Floats, *_: Counts) -> Floats:
    low = np.minimum(a[..., 0], b[..., 0])  # NaN goes through
    return np.stack([low, np.maximum(a[..., 1], b[..., 1])], axis=-1)


SUMS: Final = Measure("sums", 2, _take_sums, _add_sums)
MOMENTS: Final = Measure("moments", 4, _take_moments, _merge_moments)
EXTREMES: Final = Measure("extremes", 2, _take_extremes, _merge_extremes)

# Statistics


def _count(parts: Parts) -> Floats:
    return parts.count[None].astype(np.float64)


def _sum(parts: Parts) -> Floats:
    total: Floats = parts[SUMS].sum(axis=-1)
    return total


def _mean(parts: Parts) -> Floats:
    return _sum(parts) / parts.count


def _var(parts: Parts) -> Floats:
    moments = parts[MOMENTS]
    # Rounding may leave less than nothing; NaN stays.
    found: Floats = np.maximum(moments[..., 1], 0) / parts.count
    # What is left of pixels of one value after rounding is no spread.
    found[found <= (2 * np.finfo(np.float64).eps * moments[..., 0]) ** 2] = 0
    return found


# Third and fourth moment of pixels without spread, such that skew and kurtosis are 0.
_OF_FLAT: Final = {3: 0.0, 4: 3.0}


def _standardised(power: int, parts: Parts) -> Floats:
    """Moment of a power, in units of the standard deviation; 0 where there is no spread."""
    moments = parts[MOMENTS]
    variance = _var(parts)
    flat = variance == 0
    if flat.any():
        parts.notes.add("some labels have pixels of one value only: their skew and kurtosis are 0")
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = moments[..., power - 1] / parts.count / variance ** (power / 2)
    found[flat] = _OF_FLAT[power]
    return found


def _skew(parts: Parts) -> Floats:
    return _standardised(3, parts)


def _kurtosis(parts: Parts) -> Floats:
    return _standardised(4, parts) - 3


def _extreme(side: int, parts: Parts) -> Floats:
    found: Floats = parts[EXTREMES][..., side]
    return found


def _between(rank: Rank, parts: Parts) -> tuple[Floats, Floats, Floats]:
    """The values beside a rank, and how far from the lower to the upper one it lies."""
    low, high = np.moveaxis(parts[rank], -1, 0)
    share = rank.position(parts.count) % 1
    return low, np.where(share > 0, high, low), share


def _median(rank: Rank, parts: Parts) -> Floats:
    low, high, _ = _between(rank, parts)
    return np.where(low == high, low, (low + high) / 2)


def _quantile(rank: Rank, parts: Parts) -> Floats:
    """Interpolate as numpy does, to the last bit: from the nearer of the two values."""
    low, high, share = _between(rank, parts)
    with np.errstate(invalid="ignore"):
        step = high - low
        found = np.where(share >= 0.5, high - step * (1 - share), low + step * share)
    return np.where(low == high, low, found)


def _median_statistic() -> Statistic:
    rank = Rank(0.5)
    return Statistic((rank,), partial(_median, rank))


STATISTICS: Final[dict[str, Statistic]] = {
    "count": Statistic((), _count, absent=0, per_channel=False),
    "sum": Statistic((SUMS,), _sum, absent=0),
    "mean": Statistic((SUMS,), _mean),
    "var": Statistic((MOMENTS,), _var),
    "skew": Statistic((MOMENTS,), _skew),
    "kurtosis": Statistic((MOMENTS,), _kurtosis),
    "min": Statistic((EXTREMES,), partial(_extreme, 0)),
    "max": Statistic((EXTREMES,), partial(_extreme, 1)),
    "median": _median_statistic(),
}

_QUANTILE: Final = re.compile(r"q(0?\.\d+|[01]|[01]\.0*)")


def resolve_statistics(names: str | Sequence[str]) -> dict[str, Statistic]:
    """Statistics by name: entries of `STATISTICS`, and quantiles such as ``q0.25``.

    Raises
    ------
    InputError
        A name that is none; the message lists those that are.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    found = {name: _resolve(name) for name in wanted}
    measures = {need for each in found.values() for need in each.needs if isinstance(need, Measure)}
    by_name = sorted(measure.name for measure in measures)
    if len(set(by_name)) < len(by_name):
        raise InputError(f"measures need names of their own; there are {', '.join(by_name)}")
    return found


def _resolve(name: str) -> Statistic:
    if name in STATISTICS:
        return STATISTICS[name]
    if _QUANTILE.fullmatch(str(name)):
        rank = Rank(float(name[1:]))
        return Statistic((rank,), partial(_quantile, rank))
    raise InputError(
        f"unknown statistic {name!r}; known are {', '.join(STATISTICS)}, and quantiles from q0 to "
        "q1, such as q0.25"
    )
