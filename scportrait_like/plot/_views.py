"""Views: a raster element at the resolution of the page, read only where it is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, isqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scportrait_like.errors import InputError
from scportrait_like.plot._common import Crop, checked_crop, pick_level

if TYPE_CHECKING:
    import zarr

MAX_PIXELS: Final = 4_000_000  # more than a page shows


@dataclass(frozen=True)
class View:
    """A level of a pyramid, as an array of another size: thinned where it is larger than the page.

    Attributes
    ----------
    array
        The level: (c, y, x), ([z,] y, x).
    shape
        Of the view. Each of its pixels is one of the level's, none is averaged.
    crop
        The part to look at, in pixels of the view.
    scale
        Pixels of the full image in one pixel of the view.
    lead
        What is looked at along the first axes of `array`, where the view has fewer.
    """

    array: zarr.Array[Any]
    shape: tuple[int, ...]
    crop: Crop
    scale: float
    lead: tuple[int, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype(self.array.dtype)

    def __getitem__(self, where: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """Read a part: an index or slice of channels, then slices of y and x."""
        *lead, y, x = where
        rows = _sampled(y, self.shape[-2], self.array.shape[-2])
        columns = _sampled(x, self.shape[-1], self.array.shape[-1])
        found = np.asarray(self.array[(*self.lead, *lead, rows[0], columns[0])])
        picked: np.ndarray[Any, Any] = found[..., rows[1], :][..., columns[1]]
        return picked

    def plane(self, share: float) -> View:
        """View one of the planes (z, y, x), at a share of their number from the first."""
        depth = self.array.shape[0]
        return replace(self, shape=self.shape[-2:], lead=(min(int(share * depth), depth - 1),))


def _sampled(part: slice, length: int, there: int) -> tuple[slice, Any]:
    """Return what to read along an axis, and which pixels of that to take.

    The view has `length` pixels where the level has `there`.
    """
    start, stop, _ = part.indices(length)
    if length == there:
        return slice(start, stop), slice(None)
    wanted = ((np.arange(start, stop) + 0.5) * (there / length)).astype(np.int64)
    step = max(1, there // length)
    return slice(int(wanted[0]), int(wanted[-1]) + 1, step), (wanted - wanted[0]) // step


def fitting_view(
    levels: Sequence[zarr.Array[Any]], crop: Crop | None = None, max_pixels: int = MAX_PIXELS
) -> View:
    """View a pyramid at the finest level that fits the page.

    Parameters
    ----------
    levels
        Of an image or of labels, finest first.
    crop
        In pixels of the full image; None is everything.
    max_pixels
        In the crop. Where even the coarsest level has more, it is thinned.

    Raises
    ------
    InputError
        The crop does not lie in the image.
    """
    height, width = levels[0].shape[-2:]
    y0, y1, x0, x1 = checked_crop(crop, (height, width))
    if max_pixels < 1:
        raise InputError(f"max_pixels={max_pixels}: expected at least 1")
    share = (y1 - y0) * (x1 - x0) / (height * width)
    array = levels[pick_level([array.shape for array in levels], int(max_pixels / share))]
    pixels = array.shape[-2] * array.shape[-1] * share
    step = max(1, isqrt(ceil(pixels / max_pixels) - 1) + 1)
    shape = (*array.shape[:-2], ceil(array.shape[-2] / step), ceil(array.shape[-1] / step))
    return _view(array, shape, (y0, y1, x0, x1), (height, width))


def view_like(levels: Sequence[zarr.Array[Any]], like: View) -> View:
    """View a pyramid as another view shows its own: of labels, pixel by pixel upon the image."""
    height, width = like.shape[-2:]
    fine = [a for a in levels if a.shape[-2] >= height and a.shape[-1] >= width]
    return View((fine or levels[:1])[-1], (height, width), like.crop, like.scale)


def _view(
    array: zarr.Array[Any], shape: tuple[int, ...], crop: Crop, full: tuple[int, int]
) -> View:
    """View a level, the crop in pixels of the full image."""
    height, width = shape[-2:]
    down, across = full[0] / height, full[1] / width
    y0, y1, x0, x1 = crop
    rows = int(y0 / down), max(int(y0 / down) + 1, min(height, ceil(y1 / down)))
    columns = int(x0 / across), max(int(x0 / across) + 1, min(width, ceil(x1 / across)))
    return View(array, shape, (*rows, *columns), max(down, across))
