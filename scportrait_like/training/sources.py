"""What the instances of a data set are read from: an `.h5sc` file, or image and mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.indexes import index_path
from scportrait_like.io.inputs_of_steps import check_elements, open_rasters
from scportrait_like.raster.index import CellIndex
from scportrait_like.raster.instance_runs import (
    Found,
    check_rasters,
    find_instances,
    instance_grid,
)
from scportrait_like.raster.sources import Source, view
from scportrait_like.raster.stored_portraits import StoredPortraits
from scportrait_like.run.memory import memory_budget
from scportrait_like.training.shards import PictureShards, Shards, WindowShards


def open_shards(
    source: Any,
    *,
    diameter: int | None,
    channels: Sequence[str] | None,
    ids: Iterable[int] | None,
    image: str | None,
    mask: str | None,
    remove_background: bool,
) -> Shards:
    """Find what a data set is made of; see `InstanceStream` for the parameters."""
    place = Path(getattr(source, "project_location", source)).expanduser().absolute()
    wanted = None if ids is None else np.unique(np.fromiter(ids, np.int64))
    if diameter is None:
        if image is not None or mask is not None or not remove_background:
            raise InputError("image, mask and remove_background need a diameter: windows are cut")
        return _pictures(place, channels, wanted)
    if place.is_file():
        raise InputError(
            f"{place}: pictures have a size, and no windows are cut from them: leave diameter out"
        )
    there = FileHandler(place)
    image, mask = _elements(there, image, mask)
    known = there.channel_names(image)
    taken = positions(known if channels is None else channels, known, f"image {image}")
    stored, (stored_mask,) = open_rasters(there, image, [mask])
    pixels, labels = _with_z(stored, 1), _with_z(stored_mask, 0)
    check_rasters(labels, pixels, diameter, mask)
    found = _found(there, mask, labels, pixels)
    found = found if wanted is None else found.of(wanted, mask)
    if not len(found.ids):
        raise InputError(f"{mask} has no instances" if wanted is None else "ids names no instance")
    return WindowShards.of(found, labels, pixels, taken, diameter, remove_background)


def _pictures(
    place: Path, channels: Sequence[str] | None, wanted: NDArray[np.int64] | None
) -> PictureShards:
    """Pictures of a file, or of the extraction of a project's folder."""
    path = place
    if place.is_dir():
        path = place / names.EXTRACTION_DIR / names.EXTRACTION_DATA / names.H5SC_FILE
    if not path.is_file():
        raise MissingInputError(
            f"{path} is not there: run project.extract(), or give a diameter to cut windows"
        )
    pictures = StoredPortraits.open(path)
    known = (*pictures.masks, *pictures.channels)
    planes = positions(pictures.channels if channels is None else channels, known, str(path))
    ids = pictures.ids()
    rows = np.arange(len(ids))
    if wanted is not None:
        missing = np.setdiff1d(wanted, ids)
        if len(missing):
            raise InputError(f"{path} has no picture of {_listed(missing)}, which ids names")
        rows = np.flatnonzero(np.isin(ids, wanted))
    if not len(rows):
        raise InputError(f"{path} has no pictures" if wanted is None else "ids names no instance")
    return PictureShards.of(pictures, rows, ids[rows], planes)


def positions(wanted: Sequence[str], known: Sequence[str], what: str) -> tuple[int, ...]:
    """Positions of channels by name, in the order wanted.

    Raises
    ------
    InputError
        One is not there, or twice; the message lists those that are.
    """
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    missing = [name for name in wanted if name not in known]
    if missing or not wanted or len(set(wanted)) < len(wanted):
        raise InputError(
            f"channels={wanted!r} does not do: give each channel once. {what} has "
            f"{', '.join(known)}"
        )
    return tuple(known.index(name) for name in wanted)


def _elements(there: FileHandler, image: str | None, mask: str | None) -> tuple[str, str]:
    """Names of image and mask: those asked for, or those of the loaders."""
    image = image or names.INPUT_IMAGE
    if mask is None:
        only_nucleus = names.SEG_NUCLEUS in there and names.SEG_CYTOSOL not in there
        mask = names.SEG_NUCLEUS if only_nucleus else names.SEG_CYTOSOL
        check_elements(there, image, [mask] if mask in there else [])
    check_elements(there, image, [mask])
    return image, mask


def _with_z(source: Source, lead: int) -> Source:
    """Source ([c,] z, y, x) of one that may be without z."""
    rest = (slice(None), slice(None))
    before = (slice(None),) * lead
    return source if len(source.shape) == lead + 3 else view(source, (*before, None, *rest))


def _found(there: FileHandler, mask: str, labels: Source, image: Source) -> Found:
    """Labels of the mask, from its index if that is stored."""
    path = index_path(there, mask)
    if not path.is_file():
        return find_instances(labels, instance_grid(labels, image), mask, memory_budget())
    index = CellIndex.load(path)
    return Found(index.ids, np.rint(index.centroid).astype(np.int64), index.box)


def targets_of(labels: Any, ids: NDArray[np.int64]) -> NDArray[Any]:
    """Look up the value of each instance.

    Parameters
    ----------
    labels
        A mapping of ids, or a pandas Series by id.
    ids
        (n,).

    Returns
    -------
    (n,)

    Raises
    ------
    InputError
        An instance has no value.
    """
    pairs = dict(labels.items())
    missing = [label for label in ids.tolist() if label not in pairs]
    if missing:
        raise InputError(
            f"labels has no value for {_listed(missing)}; ids=[...] takes some instances only"
        )
    return np.asarray([pairs[label] for label in ids.tolist()])


def _listed(ids: Any) -> str:
    first = ", ".join(map(str, list(ids[:10])))
    return f"{len(ids)} instances ({first}{', ...' * (len(ids) > 10)})"
