"""An image and labels that lie upon each other, as arrays of the same pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from scportrait_like.errors import InputError
from scportrait_like.io.alignment import place_labels
from scportrait_like.io.elements import full_resolution, raster
from scportrait_like.io.tables import check_channels

if TYPE_CHECKING:
    import dask.array as da
    from spatialdata import SpatialData


def beneath(image: Any, start: Sequence[int], shape: Sequence[int]) -> da.Array:
    """The part of an image element (c, [z,] y, x) that lies beneath labels.

    Parameters
    ----------
    image
        Full resolution is meant.
    start
        ([z,] y, x) of the first pixel, from `place_labels`.
    shape
        Of the labels.
    """
    pixels: da.Array = full_resolution(image).data
    if tuple(shape) == pixels.shape[1:]:
        return pixels
    window = (slice(a, a + edge) for a, edge in zip(start, shape, strict=True))
    part: da.Array = pixels[(slice(None), *window)]
    return part


def volumes(
    sdata: SpatialData, image_name: str, labels_name: str, system: str
) -> tuple[da.Array, da.Array]:
    """Labels (z, y, x) and the image beneath them (c, z, y, x); of planes z is 1.

    Raises
    ------
    MissingInputError, InputError
        As of `raster` and `place_labels`.
    """
    labels, image = raster(sdata, labels_name, "labels"), raster(sdata, image_name, "images")
    start = place_labels(image, labels, image_name, labels_name, system)
    mask = full_resolution(labels).data
    pixels = beneath(image, start, mask.shape)
    return (mask[None], pixels[:, None]) if mask.ndim == 2 else (mask, pixels)


def channels_of(
    image: Any, image_name: str, wanted: str | int | Iterable[str | int] | None
) -> tuple[list[str], list[int]]:
    """Names and positions of the channels of an image that are wanted; None: all.

    Raises
    ------
    InputError
        A channel that the image does not have, or names that do not differ.
    """
    from spatialdata.models import get_channel_names

    there = [str(name) for name in get_channel_names(image)]
    check_channels(there, image_name)
    if wanted is None:
        return there, list(range(len(there)))
    names = [str(name) for name in ([wanted] if isinstance(wanted, (str, int)) else wanted)]
    unknown = [name for name in names if name not in there]
    if unknown or not names:
        raise InputError(
            f"{image_name} has no channel {', '.join(unknown) or '(none was given)'}; it has "
            f"{', '.join(there)}."
        )
    check_channels(names, "channels")
    return names, [there.index(name) for name in names]
