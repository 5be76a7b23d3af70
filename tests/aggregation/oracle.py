"""Statistics of labels, stated plainly with numpy and scipy: what every test compares with.

Sums of integers are Python integers, moments are taken in two passes in extended precision, and
every label is one sorted vector: slow, and short enough to be believed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]

MOMENTS = ("var", "skew", "kurtosis")
STATISTICS = ("count", "sum", "mean", *MOMENTS, "min", "max", "median", "q0", "q0.25", "q0.9", "q1")
# Sums up to here are exact in float64.
EXACT = 2**53
EPSILON = 2.0**-52
# A mean that is so many standard deviations from 0 counts as "a huge offset".
HUGE_OFFSET = 1e5


@dataclass
class Expected:
    """What an aggregation must give, a row a label in the order that was asked for.

    Attributes
    ----------
    ids
        Labels (n,).
    count, centroid
        Pixels (n,), and their mean index (n, 3) in (z, y, x).
    values
        Statistics by name (n, c); "count" (n, 1).
    magnitude
        Sum of |x| of each label and channel (n, c): what rounding is measured by.
    offset
        |mean| / standard deviation (n, c); 0 where either is not finite or the latter is 0.
    """

    ids: Array
    count: Array
    centroid: Array
    values: dict[str, Array]
    magnitude: Array
    offset: Array
    integer: bool = field(default=False)


def expect(
    mask: Array, image: Array | None, statistics: Sequence[str] = (), index: Any = None
) -> Expected:
    """Aggregate an image (c, z, y, x) by the labels of a mask (z, y, x)."""
    flat = mask.ravel()
    order = np.argsort(flat, kind="stable")
    present, starts = np.unique(flat[order], return_index=True)
    pieces = dict(zip(present.tolist(), np.split(order, starts[1:]), strict=True))
    ids = present if index is None else np.asarray(index)
    n, channels = len(ids), 0 if image is None else len(image)
    count, centroid = np.zeros(n, np.int64), np.full((n, 3), np.nan)
    values = {name: np.full((n, channels), np.nan) for name in statistics}
    magnitude, offset = np.zeros((n, channels)), np.zeros((n, channels))
    for row, label in enumerate(ids.tolist()):
        where = pieces.get(label)
        if where is None:
            for name in {"sum", "count"} & set(statistics):
                values[name][row] = 0
            continue
        count[row] = len(where)
        axes = np.unravel_index(where, mask.shape)
        centroid[row] = [sum(axis.tolist()) / len(where) for axis in axes]
        for channel in range(channels):
            x = image[channel].ravel()[where]
            magnitude[row, channel], offset[row, channel] = scales(x)
            for name in statistics:
                values[name][row, channel] = of_vector(name, x)
    if "count" in values:
        values["count"] = count[:, None].astype(float)
    integer = image is not None and image.dtype.kind in "iub"
    return Expected(ids, count, centroid, values, magnitude, offset, integer)


def scales(x: Array) -> tuple[float, float]:
    with np.errstate(all="ignore"):
        plain = x.astype(np.float64)
        sd = plain.std()
        offset = abs(plain.mean()) / sd if sd > 0 else 0.0
        return float(np.abs(plain).sum()), offset if np.isfinite(offset) else 0.0


def of_vector(name: str, x: Array) -> float:
    """One statistic of the pixels of one label in one channel."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "count":
            return float(len(x))
        if name in ("sum", "mean"):
            total = total_of(x)
            return float(total) if name == "sum" else float(total / len(x))
        if name in MOMENTS:
            return moment(name, x)
        plain = x.astype(np.float64)
        if name in ("min", "max"):
            return float(getattr(np, name)(plain))
        if name == "median":
            return float(np.median(plain))
        if name.startswith("q"):
            return quantile(plain, float(name[1:]))
    raise KeyError(name)


def quantile(x: Array, q: float) -> float:
    """As numpy's, save that between two equal infinities numpy has NaN."""
    low, high = (np.quantile(x, q, method=method) for method in ("lower", "higher"))
    return float(low if low == high else np.quantile(x, q))


def total_of(x: Array) -> int | float:
    """The sum: of integers a Python integer, of floats rounded once."""
    if x.dtype.kind in "iub":
        return int(sum(x.tolist()))
    if np.isfinite(x).all():
        return math.fsum(x.tolist())
    return float(x.astype(np.float64).sum())


def moment(name: str, x: Array) -> float:
    """Population variance, skewness and Fisher's kurtosis in two passes."""
    wide = x.astype(np.longdouble)
    if not np.isfinite(wide).all():
        return math.nan
    if (wide == wide[0]).all():
        return 0.0
    away = wide - wide.mean()
    away -= away.mean()
    m2 = np.mean(away**2)
    if name == "var":
        return float(m2)
    if name == "skew":
        return float(np.mean(away**3) / m2**1.5)
    return float(np.mean(away**4) / m2**2 - 3)


def same(found: Array, wanted: Array) -> Array:
    return (found == wanted) | (np.isnan(found) & np.isnan(wanted))


def near(found: Array, wanted: Array, tolerance: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return same(found, wanted) | (np.abs(found - wanted) <= tolerance)


def agreement(name: str, found: Array, expected: Expected) -> Array:
    """Where a statistic (n, c) lies within what is promised of it."""
    wanted = expected.values[name]
    size = np.abs(wanted)
    magnitude = np.where(np.isfinite(expected.magnitude), expected.magnitude, 0)
    bound = np.where(expected.offset > HUGE_OFFSET, 1e-6, 1e-9)
    if name == "sum":
        exact = expected.integer & (magnitude <= EXACT)
        rounded = near(found, wanted, 1e-15 * size + 1e-28 * magnitude)
        return same(found, wanted) | (~exact & rounded)
    if name == "mean":
        # Where floats cancel, what is left is relative to what was added.
        per_pixel = magnitude / np.maximum(expected.count, 1)[:, None]
        return near(found, wanted, 1e-13 * size + 1e-28 * per_pixel)
    if name == "var":
        # Constant floats have a mean that is rounded.
        rounding = EPSILON * magnitude / np.maximum(expected.count, 1)[:, None]
        return near(found, wanted, bound * size + rounding**2)
    if name in MOMENTS:
        return near(found, wanted, bound * np.maximum(size, 1))
    return same(found, wanted)


def check(name: str, found: Array, expected: Expected, about: Any = "") -> None:
    """Compare a statistic (n, c) with what is promised; says where it first differs."""
    wanted = expected.values[name]
    assert found.shape == wanted.shape, f"{name}: {found.shape}, not {wanted.shape}; {about}"
    good = agreement(name, np.asarray(found, float), expected)
    if not good.all():
        row, column = np.argwhere(~good)[0]
        raise AssertionError(
            f"{name}: {(~good).sum()} of {good.size} differ, first label {expected.ids[row]} "
            f"({expected.count[row]} pixels) channel {column}: {found[row, column]!r}, "
            f"not {wanted[row, column]!r}; {about}"
        )


def check_centroid(found: Array, expected: Expected, about: Any = "") -> None:
    good = near(found, expected.centroid, 1e-13 * np.abs(expected.centroid))
    assert good.all(), (expected.ids[~good.all(axis=1)][:3], about)


def ndimage_centers(mask: Array, labels: Array) -> Array:
    """Centers of mass (n, 3) as scipy has them."""
    return np.array(ndimage.center_of_mass(np.ones(mask.shape), mask, labels)).reshape(-1, 3)
