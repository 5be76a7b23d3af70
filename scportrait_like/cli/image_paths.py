"""Images on disk: which of a project's loaders takes a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scportrait_like.errors import InputError, MissingInputError, StoreError
from scportrait_like.io import zarr_metadata as meta

if TYPE_CHECKING:
    from scportrait_like.project import Project


def load_image(
    project: Project,
    paths: Sequence[Path],
    channel_names: Sequence[str] | None = None,
    image_name: str | None = None,
    nucleus: str | None = None,
    cytosol: str | None = None,
) -> None:
    """Load an image by the loader that takes what lies at its path.

    Parameters
    ----------
    project
        Where to.
    paths
        TIFFs, or one OME-Zarr or SpatialData store.
    channel_names
        Of a TIFF or an OME-Zarr.
    image_name, nucleus, cytosol
        Names of elements of a SpatialData store; its image is found where it has only one.

    Raises
    ------
    InputError
        Something else, or arguments that do not go with it.
    MissingInputError
        There is no such path.
    """
    if missing := [str(path) for path in paths if not path.exists()]:
        raise MissingInputError(f"{', '.join(missing)}: no such file or folder")
    if _is_store(paths[0]):
        if channel_names:
            raise InputError(f"{paths[0]} is a SpatialData store; its channels keep their names")
        project.load_input_from_sdata(
            _only(paths), image_name or _only_image(paths[0]), nucleus, cytosol
        )
        return
    if image_name or nucleus or cytosol:
        raise InputError(
            f"{paths[0]} is no SpatialData store: it has no elements with names. A mask in a file "
            "of its own is loaded with --labels FILE --kind nucleus or cytosol"
        )
    if paths[0].is_dir():
        project.load_input_from_omezarr(_only(paths), channel_names=channel_names)
    else:
        project.load_input_from_tif_files(list(paths), channel_names)


def _only(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        raise InputError(
            f"{paths[0]} is a folder, and {len(paths) - 1} more were given; several files are "
            "TIFFs, one a channel"
        )
    return paths[0]


def _is_store(path: Path) -> bool:
    """Whether a SpatialData store lies there; an image within one is an OME-Zarr."""
    node = meta.read_node(path)
    if node is None or meta.dataset_paths(node["attributes"]):
        return False
    try:
        return meta.read_root(path) is not None
    except StoreError:
        return False


def _only_image(store: Path) -> str:
    """Name of the store's image, if it has no other."""
    images = [name for name, kind in meta.element_kinds(store).items() if kind == "images"]
    if len(images) == 1:
        return images[0]
    raise InputError(
        f"{store} has {len(images)} images ({', '.join(images) or 'none'}); name one with "
        "--image-name"
    )
