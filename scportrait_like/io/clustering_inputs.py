"""What a pixel clustering reads: an image, perhaps a mask, and perhaps a saved map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scportrait_like import names
from scportrait_like.errors import InputError, MissingInputError, ShapeError
from scportrait_like.filehandler import FileHandler
from scportrait_like.identity import digest
from scportrait_like.io.inputs_of_steps import Channels
from scportrait_like.pixels.images import PixelImage
from scportrait_like.pixels.trained_som import TrainedSom
from scportrait_like.raster.sources import ZarrSource
from scportrait_like.run.rundir import read_fingerprint

# What a fingerprint holds of a saved map.
Record = dict[str, str | None]
_PATH: Final = "path"
_CONTENT: Final = "content"


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


@dataclass(frozen=True)
class SavedMap:
    """A saved map that is applied instead of training one.

    The output that was made with it holds a copy, which stands in for a file that is gone.

    Attributes
    ----------
    given
        Path as the config has it: of a ``model.json``, or of the folder of a pixel clustering's
        output, of all of them, or of a project.
    project
        Folder that a relative path starts from; where it leads to no map, the working directory.
    output
        Folder of the output of the section that applies it.
    """

    given: str
    project: Path
    output: Path

    def path(self) -> Path:
        """Find the file.

        Raises
        ------
        MissingInputError
            There is none, nor a copy of what this path led to; the message lists the places.
        InputError
            A folder with the maps of several sections.
        """
        given = Path(self.given).expanduser()
        folders = self.project, Path.cwd()
        places = dict.fromkeys((folder / given).resolve() for folder in folders)
        for place in places:
            found = _maps_in(place)
            if len(found) > 1:
                raise InputError(
                    f"{place} has several saved maps: {', '.join(map(str, found))}; name one of "
                    "them"
                )
            if found:
                return found[0]
        if self._copy.is_file() and _record_in(self.output).get(_PATH) == self.given:
            return self._copy
        raise MissingInputError(
            f"no saved map is at {' or '.join(map(str, places))}; give a {names.SOM_FILE}, or the "
            "folder of a project whose pixels are clustered"
        )

    def load(self) -> TrainedSom:
        """Read it.

        Raises
        ------
        MissingInputError, InputError
            See `path` and `TrainedSom.load`.
        """
        path = self.path()
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(
                f"{path} is no saved map: that is a text, the {names.SOM_FILE} of a project whose "
                "pixels are clustered"
            ) from None
        return TrainedSom.load(path)

    def record(self, run: Path) -> Record:
        """Return what a fingerprint holds of it: the path as given, and a hash of its content.

        The same content is the same map: it keeps the path in the fingerprint of `run`, the folder
        of a run that goes on, or of the output. None is the content of what is not there.
        """
        try:
            path = self.path()
            content = digest(path.read_bytes().decode("latin-1"))
        except (InputError, MissingInputError, OSError):
            return {_PATH: self.given, _CONTENT: None}
        if path == self._copy:
            return _record_in(self.output)
        known = (_record_in(folder) for folder in (run, self.output))
        same = (each for each in known if each.get(_CONTENT) == content)
        return next(same, {_PATH: self.given, _CONTENT: content})

    @property
    def _copy(self) -> Path:
        return self.output / names.SOM_FILE


def saved_map_changes(before: Record, after: Record) -> list[str]:
    """Say in what two records of a saved map differ, one line or none."""
    if before == after:
        return []
    what = f"the saved map {after[_PATH]}"
    if after[_CONTENT] is None:
        return [f"{what} is not there"]
    if before[_PATH] == after[_PATH]:
        return [f"{what} has changed"]
    return [f"{what} is another one than {before[_PATH]}"]


def _record_in(folder: Path) -> Record:
    """Return the record in a fingerprint; empty where there is none."""
    return (read_fingerprint(folder) or {}).get("model") or {}


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
