"""What a step reads: image, masks and channels, checked with messages that say what is there."""

from __future__ import annotations

from collections.abc import Sequence

from scportrait_like.errors import InputError, MissingInputError, ShapeError
from scportrait_like.filehandler import FileHandler
from scportrait_like.raster.sources import ZarrSource

Channels = tuple[tuple[int, str], ...]


def check_elements(filehandler: FileHandler, image: str, masks: Sequence[str]) -> None:
    """Raise `MissingInputError` unless the image and one mask or more are there."""
    if image not in filehandler:
        raise MissingInputError(
            f"{filehandler.directory} has no image {image}: load one with "
            "project.load_input_from_tif_files(...) or another loader"
        )
    if not masks:
        raise MissingInputError(
            f"{filehandler.directory} has no mask: load one with project.load_labels(mask) or "
            "project.load_input_from_sdata(...)"
        )
    for name in masks:
        if name not in filehandler:
            known = ", ".join(filehandler.element_names()) or "nothing"
            raise MissingInputError(f"labels {name} are not in the project; it holds {known}")


def open_rasters(
    filehandler: FileHandler, image: str, masks: Sequence[str]
) -> tuple[ZarrSource, list[ZarrSource]]:
    """Open an image (c, y, x) and masks (y, x) of the same pixels.

    Raises
    ------
    ShapeError
        They do not show the same pixels.
    """
    pixels = ZarrSource.open(filehandler.array_path(image))
    labels = [ZarrSource.open(filehandler.array_path(name)) for name in masks]
    for name, mask in zip(masks, labels, strict=True):
        if mask.shape != pixels.shape[1:]:
            raise ShapeError(
                f"mask {name} is {mask.shape} (y, x), but image {image} is {pixels.shape[1:]}; "
                "both must show the same pixels"
            )
    return pixels, labels


def find_channels(
    filehandler: FileHandler, image: str, wanted: Sequence[str] | None, section: str
) -> Channels:
    """Positions and names of the channels that a section asks for; None: all.

    Raises
    ------
    InputError
        A channel twice, or one that the image does not have; the message lists those it has.
    """
    known = filehandler.channel_names(image)
    if wanted is None:
        return tuple(enumerate(known))
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(
            f"section {section}: key channels: {wanted!r} is not allowed: give each channel once, "
            "or leave the key out for all"
        )
    if missing := [name for name in wanted if name not in known]:
        raise InputError(
            f"section {section}: key channels: {', '.join(missing)} not in the image; it has "
            f"{', '.join(known)}"
        )
    return tuple((known.index(name), name) for name in wanted)
