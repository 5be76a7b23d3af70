"""What a pixel clustering reads: an image, perhaps a mask, and perhaps a saved map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scportrait_like import names
from scportrait_like.errors import InputError, MissingInputError, ShapeError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.inputs_of_steps import Channels
from scportrait_like.pixels.images import PixelImage
from scportrait_like.raster.sources import ZarrSource


def clustered_image(
    filehandler: FileHandler, image: str, channels: Channels, mask: str | None
) -> PixelImage:
    """Open an image (c, [z,] y, x) and, where its cells are counted, a mask (y, x).

    Raises
    ------
    InputError
        The element is no image.
    ShapeError
        They do not show the same pixels.
    """
    if (kind := filehandler.element_names()[image]) != "images":
        raise InputError(f"{image} is one of the {kind}, not of the images")
    positions = tuple(position for position, _ in channels)
    pixels = ZarrSource.open(filehandler.array_path(image))
    if mask is None:
        return PixelImage.of(image, pixels, positions)
    labels = ZarrSource.open(filehandler.array_path(mask))
    if labels.shape != pixels.shape[1:] or len(labels.shape) != 2:
        raise ShapeError(
            f"mask {mask} is {labels.shape}, but image {image} is {pixels.shape[1:]}; both must "
            "show the same pixels (y, x). With count_in_cells: false the mask is not read"
        )
    return PixelImage.of(image, pixels, positions, labels)


def channels_of_map(filehandler: FileHandler, image: str, wanted: Sequence[str]) -> Channels:
    """Positions and names of the channels that a saved map was trained on.

    Raises
    ------
    InputError
        The image lacks some; the message lists those it has.
    """
    known = filehandler.channel_names(image)
    if missing := [name for name in wanted if name not in known]:
        raise InputError(
            f"the map was trained on channels that image {image} does not have: "
            f"{', '.join(missing)}; it has {', '.join(known)}"
        )
    return tuple((known.index(name), name) for name in wanted)


def transforms_of(filehandler: FileHandler, element: str) -> dict[str, Any]:
    """The spatialdata transformation of an element to each coordinate system."""
    from spatialdata.transformations import get_transformation

    return dict(get_transformation(filehandler.sdata[element], get_all=True))


def find_map(given: str, beside: Iterable[Path]) -> Path:
    """Find the file of a saved map.

    Parameters
    ----------
    given
        A ``model.json``, or the folder of a pixel clustering's output, of all of them, or of a
        project.
    beside
        Folders that a relative path may start from; the first one where it leads to a map counts.

    Raises
    ------
    MissingInputError
        There is none.
    InputError
        A folder with the maps of several sections.
    """
    for start in beside:
        found = _maps_in(start / Path(given).expanduser())
        if len(found) > 1:
            raise InputError(
                f"{given!r} has several saved maps: {', '.join(map(str, found))}; name one of them"
            )
        if found:
            return found[0]
    raise MissingInputError(
        f"{given!r}: no saved map is there; give a {names.SOM_FILE}, or the folder of a project "
        "whose pixels are clustered"
    )


def _maps_in(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    for inner in (".", "*", f"{names.PIXEL_CLUSTERING_DIR}/*"):
        found = [path for path in place.glob(f"{inner}/{names.SOM_FILE}") if not _is_hidden(path)]
        if found:
            return sorted(found)
    return []


def _is_hidden(path: Path) -> bool:
    """Whether it is of a run that goes on."""
    return path.parent.name.startswith(".")
