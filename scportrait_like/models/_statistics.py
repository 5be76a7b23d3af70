"""The model ``intensity_statistics``: the features of scPortrait's CellFeaturizer.

Area of each mask; then of each channel, of each mask: mean, median, 75 % and 25 % quantile (linear
between two values), sum, and sum by area. With two masks a third one counts: the pixels that lie
in one of them only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import ragged_rows, ragged_sums

Floats = NDArray[np.float64]

_OF_PIXELS: Final = (
    "mean",
    "median",
    "quant75",
    "quant25",
    "summed_intensity",
    "summed_intensity_area_normalized",
)


def columns(channels: Sequence[str], masks: Sequence[str]) -> list[str]:
    """Names of the columns, as scPortrait has them."""
    if len(masks) == 2:
        masks = [*masks, f"{masks[1]}_only"]
    areas = [f"{mask}_area" for mask in masks]
    return areas + [f"{c}_{of}_{mask}" for c in channels for mask in masks for of in _OF_PIXELS]


def intensity_statistics(
    batch: NDArray[Any], *, mask: NDArray[Any], embedding_dimension: int
) -> Floats:
    """Take areas of masks and statistics of the pixels in them.

    Parameters
    ----------
    batch : (b, c, z, y, x), any real dtype
    mask : (b, m, z, y, x) bool
        With two masks, pixels in one of them only are a third.
    embedding_dimension
        As `columns` tells.

    Returns
    -------
    (b, embedding_dimension) float64. Without pixels in a mask: area and sums 0, others NaN. A NaN
    among the pixels makes their statistics NaN.
    """
    n, n_channels = batch.shape[:2]
    places = [_Places.of(own, n_channels) for own in _with_difference(mask)]
    size = mask[0, 0].size if n else 0
    pixels = batch.reshape(-1)
    parts: list[Floats] = [place.count[:, None].astype(np.float64) for place in places]
    for channel in range(n_channels):
        for place in places:
            values = _sortable(pixels[place.first + channel * size])
            parts.append(_statistics(values, place.offsets))
    return np.concatenate(parts, axis=1)


def _with_difference(mask: NDArray[Any]) -> list[NDArray[np.bool_]]:
    """Return the masks, each (b, pixels), and with two of them where they differ."""
    own = [one.reshape(len(mask), -1) for one in np.moveaxis(np.asarray(mask, bool), 1, 0)]
    return [*own, own[0] ^ own[1]] if len(own) == 2 else own


def _sortable(pixels: NDArray[Any]) -> NDArray[Any]:
    """Bring pixels into a dtype that the kernels know."""
    dtype = pixels.dtype
    if dtype.kind == "b":
        return pixels.view(np.uint8)
    if dtype.kind == "f" and dtype.itemsize == 2:
        return pixels.astype(np.float32)
    if dtype.itemsize >= 8:
        return pixels.astype(np.float64, copy=False)
    return pixels.astype(dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class _Places:
    """Where the pixels of a mask lie in a batch: those of row i at ``offsets[i]:offsets[i + 1]``.

    ``first`` (pixels,) are positions in the flat batch, in its first channel.
    """

    first: NDArray[np.int64]
    count: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, mask: NDArray[np.bool_], n_channels: int) -> _Places:
        """Find them in (b, pixels)."""
        n, size = mask.shape
        found = np.flatnonzero(mask)
        offsets = np.searchsorted(found, np.arange(n + 1) * size)
        count = np.diff(offsets)
        # Before a row lie the other channels of the rows above.
        found += np.repeat(np.arange(n) * (n_channels - 1) * size, count)
        return cls(found, count, offsets)


def _statistics(values: NDArray[Any], offsets: NDArray[np.int64]) -> Floats:
    """Statistics of ragged pixels, (b, 6)."""
    count = np.diff(offsets)
    # Sums of whole numbers of up to 16 bits are exact whatever the order.
    exact = values.dtype.kind != "f" and values.itemsize <= 2
    total = ragged_sums(values, offsets, exact=exact)[:, 0]
    with np.errstate(invalid="ignore"):
        mean = total / count  # 0 / 0 is NaN
    low, middle, high = _quantiles(values, offsets, count, (0.25, 0.5, 0.75))
    return np.stack([mean, middle, high, low, total, mean], axis=1)


def _quantiles(
    values: NDArray[Any], offsets: NDArray[np.int64], count: NDArray[np.int64], q: Sequence[float]
) -> list[Floats]:
    """Quantiles of ragged pixels, (b,) each; NaN where there is no pixel, or a NaN among them."""
    found = np.full((len(q), len(count)), np.nan)
    there = np.flatnonzero(count)
    if not len(there):
        return list(found)
    dtype = values.dtype
    last = np.inf if dtype.kind == "f" else np.iinfo(dtype).max
    rows = ragged_rows(values, offsets, last)
    # Of small numbers numpy's stable sort is a radix sort, fast on any machine.
    rows.sort(axis=1, kind="stable" if dtype.itemsize <= 2 else None)
    if dtype.kind == "f":  # NaN sorts last
        there = there[~np.isnan(rows[there, -1])]
    for number, share in enumerate(q):
        position = (count[there] - 1) * share
        below = np.floor(position).astype(np.int64)
        above = np.minimum(below + 1, count[there] - 1)
        a, b = (rows[there, at].astype(np.float64) for at in (below, above))
        step = np.zeros_like(a)  # equal values may be infinite
        np.subtract(b, a, out=step, where=a != b)
        found[number, there] = a + step * (position - below)
    return list(found)
