"""Elements of a SpatialData object: looked up, and added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scportrait_like import names
from scportrait_like.errors import InputError, ShapeError
from scportrait_like.io.elements import check_may_place, full_resolution, place_element, raster
from scportrait_like.io.pyramids import AXES
from scportrait_like.io.twins import quiet_spatialdata

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData
    from spatialdata.transformations import BaseTransformation
    from xarray import DataArray


def get_dataarray(sdata: SpatialData, element_name: str) -> DataArray:
    """Return an image or labels element at full resolution.

    Parameters
    ----------
    sdata
        Where it is looked up.
    element_name
        An image or labels element, single-scale or multi-scale.

    Returns
    -------
    xarray.DataArray
        Image (c, y, x) or (c, z, y, x), labels (y, x) or (z, y, x), lazy; its `data` is a dask
        array. It is the element itself, not a copy.

    Raises
    ------
    MissingInputError
        If there is none of that name; the message lists those that are there.
    """
    return full_resolution(raster(sdata, element_name))


def add_image(
    sdata: SpatialData,
    arr: NDArray[Any] | Any,
    output_image_name: str,
    dims: Sequence[str] | None = None,
    chunks: str | int | Sequence[int] | Mapping[str, int] | None = None,
    transformations: BaseTransformation | Mapping[str, BaseTransformation] | None = None,
    scale_factors: Sequence[int | Mapping[str, int]] | None = None,
    c_coords: str | Sequence[str] | None = None,
    overwrite: bool = False,
) -> SpatialData:
    """Add an image to a SpatialData object and, where it is backed by a store, to that.

    Parameters
    ----------
    sdata
        Changed in place.
    arr
        numpy or dask, (c, y, x) or (c, z, y, x) unless `dims` says otherwise; (y, x) is one
        channel. A lazy one is computed chunk by chunk while it is written, else not at all.
    output_image_name
        Name of the image.
    dims
        The axes of `arr` in their order, such as ``("y", "x", "c")``.
    chunks
        Of the image, in the order (c, [z,] y, x) or by axis. None: those of a dask array if they
        are regular, else 1 along c and z, 2048 along y and x.
    transformations
        One for each coordinate system, or one alone for "global"; None: Identity to "global".
    scale_factors
        Of each coarser level against the one before; None: a single scale.
    c_coords
        The names of the channels, all different; None: 0, 1, ...
    overwrite
        Whether an image of that name may be replaced.

    Returns
    -------
    spatialdata.SpatialData
        `sdata`.

    Raises
    ------
    InputError, ShapeError
        An array that is none of an image, or names, chunks or scales that do not fit it.
    ElementExistsError
        An image of that name is there, and `overwrite` is False.
    DiskFullError
        No space left; what was there is unharmed.
    """
    from spatialdata.models import Image2DModel, Image3DModel

    check_may_place(sdata, output_image_name, "images", overwrite)
    pixels, axes = _canonical(arr, dims)
    channels = [c_coords] if isinstance(c_coords, str) else c_coords
    if channels is not None:
        channels = [str(channel) for channel in channels]
        if len(channels) != pixels.shape[0] or len(set(channels)) != len(channels):
            raise InputError(
                f"c_coords: {pixels.shape[0]} different names are needed, one a channel, not "
                f"{', '.join(channels) or 'none'}."
            )
    pixels = pixels.rechunk(_chunks(pixels, axes, chunks))
    if transformations is not None and not isinstance(transformations, Mapping):
        transformations = {names.GLOBAL: transformations}
    model = Image3DModel if "z" in axes else Image2DModel
    with quiet_spatialdata():
        try:
            image = model.parse(
                pixels,
                dims=axes,
                c_coords=channels,
                transformations=None if transformations is None else dict(transformations),
                scale_factors=None if scale_factors is None else list(scale_factors),
                # Without them a pyramid is made of chunks as large as dask sees fit.
                chunks={axis: edges[0] for axis, edges in zip(axes, pixels.chunks, strict=True)},
            )
        except (ValueError, TypeError, ArithmeticError) as error:
            raise InputError(f"{output_image_name} cannot be made: {error}") from error
    place_element(sdata, output_image_name, image, overwrite)
    return sdata


def _canonical(arr: Any, dims: Sequence[str] | None) -> tuple[Any, tuple[str, ...]]:
    """A dask array (c, [z,] y, x) of the pixels, and its axes."""
    import dask.array as da

    given = getattr(arr, "data", arr) if hasattr(arr, "dims") else arr
    pixels = given if isinstance(given, da.Array) else np.asarray(given)
    if dims is None:
        dims = getattr(arr, "dims", None) or {2: ("y", "x"), 3: AXES["images", 3]}.get(
            pixels.ndim, AXES["images", 4]
        )
    axes = AXES["images", 4 if "z" in dims else 3]
    if not (set(axes) - {"c"} <= set(dims) <= set(axes)) or len(set(dims)) != pixels.ndim:
        raise ShapeError(
            f"an array of shape {pixels.shape} with the axes {tuple(dims)} is no image: dims names "
            "each of its axes once, y and x, and c and z where there are such."
        )
    if pixels.dtype.kind not in "iufb" or 0 in pixels.shape:
        raise InputError(f"an array of {pixels.shape} {pixels.dtype} is no image.")
    pixels = pixels.transpose([list(dims).index(axis) for axis in axes if axis in dims])
    if "c" not in dims:
        pixels = pixels[None]
    if not isinstance(pixels, da.Array):
        pixels = da.from_array(  # type: ignore[no-untyped-call]
            pixels, chunks=_standard(pixels.shape)
        )
    return pixels, axes


def _standard(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (len(shape) - 2) + tuple(min(edge, names.CHUNK) for edge in shape[-2:])


def _chunks(
    pixels: Any, axes: tuple[str, ...], chunks: str | int | Sequence[int] | Mapping[str, int] | None
) -> Any:
    """Regular chunks, since zarr has no others."""
    from dask.array.core import normalize_chunks

    if isinstance(chunks, Mapping):
        chunks = [chunks.get(axis, -1) for axis in axes]
    try:
        wanted = pixels.chunks
        if chunks is not None:
            plain = chunks if isinstance(chunks, (str, int)) else tuple(chunks)
            wanted = normalize_chunks(  # type: ignore[no-untyped-call]
                plain, shape=pixels.shape, dtype=pixels.dtype
            )
    except (ValueError, TypeError, ArithmeticError) as error:
        raise InputError(
            f"chunks={chunks!r} do not fit an image of shape {pixels.shape} ({', '.join(axes)}): "
            f"{error}"
        ) from error
    regular = all(
        len(set(edges[:-1])) <= 1 and edges[-1] <= edges[0] and min(edges) > 0 for edges in wanted
    )
    return wanted if regular else _standard(pixels.shape)
