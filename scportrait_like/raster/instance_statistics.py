"""Heads without a model: windows themselves, a user's function, quantiles, extent in space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError, ModelError
from scportrait_like.raster.instances import Instances
from scportrait_like.raster.ranks import padded_batches, take_ranks
from scportrait_like.raster.statistics import Parts, Rank, Statistic, Vectors, resolve_statistics

# Pixels of a channel that are sorted at once.
_SORTED: Final = 1 << 20
# What rounding leaves of a variance that is 0, relative to the largest one.
_ROUNDING: Final = 16 * np.finfo(np.float64).eps

Floats = NDArray[np.float64]


def channel_means(batch: NDArray[Any], embedding_dimension: int) -> Floats:
    """Mean of each channel over its window: the model where none is named.

    Parameters
    ----------
    batch : (b, c, z, y, x)
    embedding_dimension
        Columns: so many of the channels' means, and zeros behind them if it is more than channels.

    Returns
    -------
    (b, embedding_dimension) float64.
    """
    means: Floats = batch.mean(axis=(2, 3, 4), dtype=np.float64)[:, :embedding_dimension]
    return np.pad(means, ((0, 0), (0, embedding_dimension - means.shape[1])))


def pixel_means(pixels: NDArray[Any]) -> Floats:
    """Mean of each channel (c, N) -> (c, 1): the statistic where no function is given."""
    means: Floats = pixels.mean(axis=1, dtype=np.float64, keepdims=True)
    return means


@dataclass(frozen=True)
class WindowHead:
    """Hands out windows as they are.

    Attributes
    ----------
    image, masks, labels
        Whether ``image`` (n, c, z, d, d), ``masks`` (n, 1, z, d, d) bool and ``labels``, the same
        in the mask's dtype, are wanted.
    """

    image: bool = True
    masks: bool = False
    labels: bool = False

    def __call__(self, instances: Instances) -> Mapping[str, NDArray[Any]]:
        """Lay them out."""
        found: dict[str, NDArray[Any]] = {}
        if self.image:
            found["image"] = instances.images()
        if self.masks:
            found["masks"] = instances.masks()
        if self.labels:
            found["labels"] = instances.label_windows()
        return found


@dataclass(frozen=True)
class FunctionHead:
    """A user's function of each cell: ``statistic`` (n, c, s) of its pixels, or (n, s) of its mask.

    Attributes
    ----------
    function
        Gets the cell's own pixels inside the window (c, N) and returns (c, s); or gets the mask's
        window (z, d, d), other labels 0, and returns (s,).
    dimension
        s.
    of_image
        Whether it gets pixels.
    kwargs
        For each call.
    """

    function: Callable[..., Any]
    dimension: int
    of_image: bool = True
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, instances: Instances) -> Mapping[str, Floats]:
        """Call it on each cell; where none of its pixels lies in the window the result is NaN.

        Raises
        ------
        ModelError
            It raised something, or returned another shape or no real numbers.
        """
        masks = None if self.of_image else instances.label_windows()[:, 0]
        shape: tuple[int, ...] = (self.dimension,)
        if self.of_image:
            shape = len(_values(instances)), self.dimension
        out = np.full((len(instances), *shape), np.nan)
        count = own_pixels(instances)[1]
        for number in np.flatnonzero(count).tolist():
            given = instances.pixels(number) if masks is None else masks[number]
            out[number] = self._checked(given, shape, int(instances.ids[number]))
        return {"statistic": out}

    def _checked(self, given: NDArray[Any], shape: tuple[int, ...], label: int) -> NDArray[Any]:
        name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        what = f"fn {name}, label {label}: on {given.shape} of {given.dtype} it"
        try:
            found = np.asarray(self.function(given, **self.kwargs))
        except Exception as error:
            raise ModelError(f"{what} failed: {type(error).__name__}: {error}") from error
        if found.shape != shape:
            axes = "(channels, statistic_dimension)" if self.of_image else "(statistic_dimension,)"
            raise ModelError(f"{what} returned the shape {found.shape}, wanted is {shape} = {axes}")
        if found.dtype.kind not in "biuf":
            raise ModelError(f"{what} returned {found.dtype}, wanted are real numbers")
        return found


@dataclass(frozen=True)
class QuantileHead:
    """Quantiles of the cells' own pixels inside their windows: ``statistic`` (n, c, q) float64.

    Interpolated linearly, as `numpy.quantile` does of float64; NaN where a pixel is NaN, and where
    none of the cell's pixels lies in the window.

    Attributes
    ----------
    q
        From 0 to 1.
    """

    q: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.q or not all(0 <= q <= 1 for q in self.q):
            raise InputError(f"q={list(self.q)} is not allowed: give numbers from 0 to 1")

    def __call__(self, instances: Instances) -> Mapping[str, Floats]:
        """Take them."""
        values = _values(instances)
        places, count = own_pixels(instances)
        order = np.argsort(count, kind="stable")
        order = order[count[order] > 0]
        starts = np.cumsum(count) - count
        out = np.full((len(instances), len(values), len(self.q)), np.nan)
        for batch in padded_batches(count[order], _SORTED):
            cells = order[batch]
            mine = np.concatenate([places[starts[i] : starts[i] + count[i]] for i in cells])
            offsets = np.concatenate([[0], np.cumsum(count[cells])])
            for channel, pixels in enumerate(values):
                vectors = Vectors(pixels.reshape(-1)[mine], offsets)
                out[cells, channel] = self._of(vectors, count[cells])
        return {"statistic": out}

    def _of(self, vectors: Vectors, count: NDArray[np.int64]) -> Floats:
        """Quantiles (k, q) of k cells in a channel."""
        statistics = _quantiles(self.q)
        ranks = [rank for _, rank in statistics]
        found = np.moveaxis(take_ranks(vectors, ranks)[None], 2, 0)
        parts = Parts(count, dict(zip(ranks, found, strict=True)))
        return np.stack([each.finish(parts)[0] for each, _ in statistics], axis=1)


def _quantiles(q: tuple[float, ...]) -> list[tuple[Statistic, Rank]]:
    names = [f"q{np.format_float_positional(each, trim='-')}" for each in q]
    found = resolve_statistics(names)
    ranks = [rank for name in names for rank in found[name].needs if isinstance(rank, Rank)]
    return [(found[name], rank) for name, rank in zip(names, ranks, strict=True)]


@dataclass(frozen=True)
class ExtentHead:
    """How the cells' own pixels inside their windows spread: ``covariance`` (n, 3, 3) float64.

    The sample covariance of the coordinates (z, y, x), pixels². Of a single pixel it is 0, of none
    NaN.
    """

    def __call__(self, instances: Instances) -> Mapping[str, Floats]:
        """Sum up the coordinates, which are whole numbers: exact up to 2^53."""
        places, count = own_pixels(instances)
        cells = instances.cells
        z, pixel = np.divmod(places, max(1, cells.pixels))
        owner = np.repeat(np.arange(len(cells)), count)
        width = (cells.boxes[:, 3] - cells.boxes[:, 1])[owner]
        y, x = np.divmod(pixel - cells.offsets[owner], width)
        axes = np.stack([z, y, x]).astype(np.float64)
        n = np.where(count, count, np.nan)

        def summed(of: Floats) -> Floats:
            return np.bincount(owner, of, len(cells)).astype(np.float64)

        sums = [summed(axis) for axis in axes]
        out = np.empty((len(cells), 3, 3))
        for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
            squares = summed(axes[a] * axes[b]) - sums[a] * sums[b] / n
            out[:, a, b] = out[:, b, a] = squares / np.maximum(n - 1, 1)
        return {"covariance": out}


def principal_axes(covariance: Floats) -> tuple[Floats, Floats]:
    """Principal axes of points, from their covariances.

    Parameters
    ----------
    covariance : (n, 3, 3)
        Symmetric; NaN gives NaN.

    Returns
    -------
    variances : (n, 3)
        Along the axes, descending, 0 or more.
    axes : (n, 3, 3)
        One a row, of length 1. The coordinate of largest magnitude is positive: of equal ones the
        first. Where variances are equal, any axes of their plane or space.
    """
    variances = np.full((len(covariance), 3), np.nan)
    axes = np.full((len(covariance), 3, 3), np.nan)
    known = np.isfinite(covariance).all(axis=(1, 2))
    found, vectors = np.linalg.eigh(covariance[known])
    found, vectors = found[:, ::-1], vectors[:, :, ::-1].transpose(0, 2, 1)
    variances[known] = np.where(found > _ROUNDING * found[:, :1], found, 0)
    # Magnitudes that only rounding tells apart are equal.
    largest = np.abs(vectors).round(9).argmax(axis=2)[..., None]
    axes[known] = vectors * np.where(np.take_along_axis(vectors, largest, 2) < 0, -1, 1)
    return variances, axes


def own_pixels(instances: Instances) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the cells' own pixels lie.

    Returns
    -------
    places
        In the flattened planes (z, pixels) of a channel; cell by cell, then plane by plane.
    count
        (n,) pixels of each cell.
    """
    offsets = instances.cells.offsets
    places = np.flatnonzero(instances.bits)
    if not len(places):
        return places, np.zeros(len(instances), np.int64)
    owner = np.searchsorted(offsets, places % offsets[-1], "right") - 1
    if len(instances.bits) > 1:
        places = places[np.argsort(owner, kind="stable")]
    return places, np.bincount(owner, minlength=len(instances))


def _values(instances: Instances) -> NDArray[Any]:
    """Pixels of the boxes (c, z, pixels), bool as 0 and 1."""
    if instances.values is None:
        raise ValueError("there is no image")
    values = instances.values
    return values.view(np.uint8) if values.dtype == np.bool_ else values
