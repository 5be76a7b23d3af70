"""SpatialData as input: image and masks, and what else stands there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scportrait_like import names
from scportrait_like.errors import InputError, MissingInputError, ShapeError, StoreError
from scportrait_like.identity import digest, files_identity
from scportrait_like.io import zarr_metadata as meta
from scportrait_like.io.copying import RasterInput
from scportrait_like.io.loaders import array_input, image_input
from scportrait_like.io.twins import quiet_spatialdata

if TYPE_CHECKING:
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

# The name that an input's own "global" gets where it is not pixels.
_INPUT_GLOBAL: Final = "global_of_input"
# Names in a project that have a meaning; other elements must not take them.
_RESERVED: Final = frozenset(
    {names.INPUT_IMAGE}.union(
        *({name, names.CENTERS_PREFIX + name} for name in names.LABELS_OF_KIND.values())
    )
)
# What spatialdata and its readers raise on a damaged store.
_READ_ERRORS: Final = (OSError, LookupError, ValueError, TypeError, AssertionError, AttributeError)


@dataclass(frozen=True)
class SpatialInput:
    """What is taken from a SpatialData store or object.

    Attributes
    ----------
    image
        The input image.
    masks
        By the element's name in the project.
    others
        Elements that are kept under their own names: rasters as inputs, the rest as they are.
    identities
        Of the elements in `others` that are no rasters.
    """

    image: RasterInput
    masks: dict[str, RasterInput]
    others: dict[str, Any] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)


def spatial_input(
    source: str | Path | SpatialData,
    image_name: str,
    masks: dict[str, str],
    cell_id_identifier: str | None = None,
    keep_all: bool = True,
    remove_duplicates: bool = True,
) -> SpatialInput:
    """Look into a SpatialData store or object.

    Parameters
    ----------
    source
        Path of a store, or an object.
    image_name
        Its image.
    masks
        Its labels, by the name that they get in the project.
    cell_id_identifier
        Column of the tables that annotate the masks, with the cells' ids.
    keep_all
        Take the other elements along.
    remove_duplicates
        Do not keep image and masks under their old names as well.

    Raises
    ------
    StoreError
        The path is no SpatialData store.
    MissingInputError
        No element of that name; the message lists those that are there.
    ShapeError, InputError
        A mask that does not show the same pixels as the image.
    """
    sdata, path = _open(source)
    image = _element(sdata.images, image_name, "image", path)
    before = _transforms(image)
    given_image = _raster(image, image_name, path, _pixels_first(before), is_image=True)
    given_masks = {}
    for target, name in masks.items():
        mask = _element(sdata.labels, name, "labels", path)
        _check_aligned(before, _transforms(mask), image_name, name)
        given_masks[target] = _raster(mask, name, path, _pixels_first(_transforms(mask)))
        _check_shape(given_image, given_masks[target])
    found = SpatialInput(given_image, given_masks)
    if not keep_all:
        return found
    taken = {image_name, *masks.values()} if remove_duplicates else set()
    renamed = {old: new for new, old in masks.items()}
    for kind, name, element in sdata.gen_elements():
        if name in taken:
            continue
        if name in _RESERVED:
            logger.info("%s is not kept: the project has a %s of its own", name, name)
        elif kind in meta.RASTERS and _is_plain(element):
            transforms = _beside(_transforms(element), before.get(names.GLOBAL))
            found.others[name] = _raster(element, name, path, transforms, is_image=kind == "images")
        else:
            found.identities[name] = _identity(name, element, path, renamed, cell_id_identifier)
            if kind == "tables":
                element = _annotating(element, renamed, cell_id_identifier, remove_duplicates)
            else:
                element = _placed(element, before.get(names.GLOBAL))
            found.others[name] = element
    return found


def _open(source: str | Path | SpatialData) -> tuple[SpatialData, Path | None]:
    """Open a store; the path is None for an object, which may differ from its files."""
    import spatialdata

    if isinstance(source, spatialdata.SpatialData):
        return source, None
    path = Path(source)
    if not path.exists():
        raise MissingInputError(f"{path}: no such SpatialData store")
    try:
        root = meta.read_root(path)
    except StoreError:
        root = None
    if root is None:
        raise StoreError(
            f"{path} is not a SpatialData store; for an OME-Zarr image use load_input_from_omezarr"
        )
    with quiet_spatialdata():
        try:
            return spatialdata.read_zarr(path), path
        except _READ_ERRORS as error:
            raise StoreError(
                f"{path} cannot be read as SpatialData: {type(error).__name__}: {error}"
            ) from error


def _element(group: Any, name: str, kind: str, path: Path | None) -> Any:
    if name not in group:
        known = ", ".join(sorted(group)) or "none"
        raise MissingInputError(f"{path or 'the object'} has no {kind} {name}; it has: {known}")
    return group[name]


def _transforms(element: Any) -> dict[str, Any]:
    from spatialdata.transformations import get_transformation

    return dict(get_transformation(element, get_all=True))


def _is_plain(element: Any) -> bool:
    """Whether a raster can be copied by regions: (c,) y, x of numbers."""
    from spatialdata.models import get_axes_names

    source, _, _ = array_input(element)
    return "z" not in get_axes_names(element) and source.dtype.kind in "uif"


def _raster(
    element: Any,
    name: str,
    path: Path | None,
    transforms: dict[str, Any],
    *,
    is_image: bool = False,
) -> RasterInput:
    from spatialdata.models import get_channel_names

    source, identity, _ = array_input(element)
    what = f"{path}/{name}" if path else f"element {name}"
    if is_image:
        channels = [str(channel) for channel in get_channel_names(element)]
        return image_input(source, identity, what, None, None, transforms, channels)
    return RasterInput(source, identity, what, (), transforms)


def _identity(
    name: str, element: Any, path: Path | None, renamed: Mapping[str, str], column: str | None
) -> str:
    """Identity of an element that is no raster: of its files, else of its content."""
    from dask.base import tokenize

    kinds = meta.element_kinds(path) if path is not None else {}
    if path is not None and name in kinds:
        content = files_identity(path / kinds[name] / name)
    else:
        content = str(tokenize(element))
    return digest(name, content, dict(renamed), column)


def _pixels_first(transforms: Mapping[str, Any]) -> dict[str, Any]:
    """Make ``global`` mean pixels; what it meant before is kept under a name of its own."""
    from spatialdata.transformations import Identity

    before = transforms.get(names.GLOBAL)
    if before is None or isinstance(before, Identity):
        return {**transforms, names.GLOBAL: Identity()}
    return {**transforms, names.GLOBAL: Identity(), _INPUT_GLOBAL: before}


def _beside(transforms: Mapping[str, Any], image: Any) -> dict[str, Any]:
    """Transformations of another element where ``global`` was made to mean the image's pixels."""
    from spatialdata.transformations import Identity, Sequence

    mine = transforms.get(names.GLOBAL)
    if mine is None or image is None or isinstance(image, Identity):
        return dict(transforms)
    moved = Sequence([mine, image.inverse()])
    return {**transforms, names.GLOBAL: moved, _INPUT_GLOBAL: mine}


def _placed(element: Any, image: Any) -> Any:
    """Points or shapes where ``global`` was made to mean the image's pixels."""
    from spatialdata.transformations import set_transformation

    before = _transforms(element)
    after = _beside(before, image)
    if after == before:
        return element
    moved = element.copy()
    set_transformation(moved, after, set_all=True)
    return moved


def _check_shape(image: RasterInput, mask: RasterInput) -> None:
    if mask.source.shape != image.source.shape[1:]:
        raise ShapeError(
            f"{mask.what} is {mask.source.shape} (y, x), but {image.what} is "
            f"{image.source.shape[1:]}; image and mask must show the same pixels"
        )


def _check_aligned(
    image: Mapping[str, Any], mask: Mapping[str, Any], image_name: str, mask_name: str
) -> None:
    """Refuse a mask whose pixels lie elsewhere in a coordinate system that both have."""
    import numpy as np

    for system in set(image) & set(mask):
        first, second = (t[system].to_affine_matrix(("x", "y"), ("x", "y")) for t in (image, mask))
        if not np.allclose(first, second, rtol=1e-9, atol=1e-9):
            raise InputError(
                f"mask {mask_name} lies elsewhere than image {image_name} in the coordinate system "
                f"{system}; both must have the same transformation. Resample the mask onto the "
                "image's pixels"
            )


def _annotating(
    table: Any, renamed: dict[str, str], cell_id_identifier: str | None, drop_old: bool
) -> Any:
    """Table whose region follows the masks' new names, with the cells' ids under our key."""
    from spatialdata.models import TableModel, get_table_keys

    try:
        regions, region_key, instance_key = get_table_keys(table)
    except (KeyError, ValueError):  # a table that annotates nothing
        return table
    listed = [regions] if isinstance(regions, str) else list(regions)
    if not any(region in renamed for region in listed):
        return table
    table = table.copy()
    column = cell_id_identifier or instance_key
    if column not in table.obs:
        raise InputError(
            f"cell_id_identifier {column!r} is no column of the table; it has "
            f"{', '.join(table.obs.columns)}"
        )
    table.obs[names.INSTANCE_KEY] = table.obs[column].to_numpy()
    if not drop_old:
        return table
    table.obs[region_key] = table.obs[region_key].astype(str).replace(renamed).astype("category")
    table.uns.pop(TableModel.ATTRS_KEY)
    return TableModel.parse(
        table,
        region=[renamed.get(region, region) for region in listed],
        region_key=region_key,
        instance_key=names.INSTANCE_KEY,
    )
