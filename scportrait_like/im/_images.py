"""Images of a SpatialData object whose pixels are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scportrait_like.errors import InputError
from scportrait_like.io.elements import check_may_place, full_resolution, raster
from scportrait_like.io.tables import check_channels
from scportrait_like.pixels.images import PixelImage
from scportrait_like.raster.sources import source_of

if TYPE_CHECKING:
    from spatialdata import SpatialData

Names = str | Iterable[str]
Channels = str | int | Iterable[str | int] | None


def listed(given: Names, argument: str) -> list[str]:
    """One or several names.

    Raises
    ------
    InputError
        There is none.
    """
    found = [given] if isinstance(given, str) else [str(name) for name in given]
    if not found:
        raise InputError(f"{argument} is empty: give a name, or several")
    return found


def check_outputs(sdata: SpatialData, names: Sequence[str], kind: str, overwrite: bool) -> None:
    """Refuse names of elements that could not be placed, before any work is done.

    Raises
    ------
    InputError
        Two that differ in nothing but upper case, or what `check_may_place` refuses.
    ElementExistsError
        One is there, and may not be replaced.
    """
    lower = [name.lower() for name in names]
    if twice := sorted({name for name in names if lower.count(name.lower()) > 1}):
        raise InputError(
            f"what is made needs names of its own; {', '.join(twice)} stand twice, or differ in "
            "upper case only"
        )
    for name in names:
        check_may_place(sdata, name, kind, overwrite)


def clustered_images(
    sdata: SpatialData, names: Sequence[str], channels: Channels = None
) -> tuple[list[str], list[PixelImage]]:
    """Names of the channels that are wanted, and the images, which all have them.

    Raises
    ------
    MissingInputError
        There is no such image.
    InputError
        A channel that an image lacks; with `channels` None, images of different channels; an image
        named twice.
    """
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"image_name names {', '.join(twice)} twice")
    there = {name: _channel_names(raster(sdata, name, "images"), name) for name in names}
    first = names[0]
    wanted = _wanted(there[first], first, channels)
    for name, known in there.items():
        if channels is None and set(known) != set(wanted):
            only = sorted(set(known) ^ set(wanted))
            raise InputError(
                f"{first} and {name} have different channels ({', '.join(only)}): name those that "
                "both have in channels"
            )
        if missing := [channel for channel in wanted if channel not in known]:
            raise InputError(
                f"{name} has no channel {', '.join(missing)}; it has {', '.join(known)}"
            )
    images = [
        PixelImage.of(
            name,
            source_of(full_resolution(raster(sdata, name)).data),
            tuple(map(known.index, wanted)),
        )
        for name, known in there.items()
    ]
    return wanted, images


def _channel_names(image: Any, name: str) -> list[str]:
    from spatialdata.models import get_channel_names

    found = [str(channel) for channel in get_channel_names(image)]
    check_channels(found, name)
    return found


def _wanted(known: list[str], name: str, channels: Channels) -> list[str]:
    """Channels by name or position, as names."""
    if channels is None:
        return known
    asked = [channels] if isinstance(channels, (str, int, np.integer)) else list(channels)
    wanted = []
    for channel in asked:
        is_place = isinstance(channel, (int, np.integer)) and not isinstance(channel, bool)
        if str(channel) not in known and is_place and 0 <= int(channel) < len(known):
            channel = known[int(channel)]
        if str(channel) not in known:
            raise InputError(f"{name} has no channel {channel!r}; it has {', '.join(known)}")
        wanted.append(str(channel))
    if not wanted:
        raise InputError("channels is empty: name one or more, or leave it out for all")
    check_channels(wanted, "channels")
    return wanted


def scratch_place(sdata: SpatialData) -> Path | None:
    """Folder for scratch files: beside the object's store; None: the system's."""
    if sdata.path is None or "://" in str(sdata.path):
        return None
    return Path(sdata.path).absolute().parent
