"""Loaders: arrays, dask arrays and OME-Zarr as `RasterInput`. TIFF and SpatialData stand beside."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.identity import array_identity, digest, files_identity
from scportrait_like.io import zarr_metadata as meta
from scportrait_like.io.copying import RasterInput
from scportrait_like.raster.sources import (
    Region,
    SelectSource,
    Source,
    StackSource,
    ZarrSource,
    source_of,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SqueezedSource:
    """A source without some of its axes of length one.

    Attributes
    ----------
    source
        What is read.
    kept
        The axes that stay.
    """

    source: Source
    kept: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Edge lengths of the axes kept."""
        return tuple(self.source.shape[axis] for axis in self.kept)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.source.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Those of the axes kept."""
        return tuple(self.source.chunks[axis] for axis in self.kept)

    def read(self, region: Region) -> NDArray[Any]:
        """Read a region."""
        full = [slice(0, 1)] * len(self.source.shape)
        for axis, part in zip(self.kept, region, strict=True):
            full[axis] = part
        values = self.source.read(tuple(full))
        return values.reshape([values.shape[axis] for axis in self.kept])


def image_input(
    source: Source,
    identity: str,
    what: str,
    channel_names: Sequence[str] | str | None = None,
    remap: Sequence[int] | None = None,
    transforms: dict[str, Any] | None = None,
    found: Sequence[str] | None = None,
) -> RasterInput:
    """Check an image and name its channels.

    Parameters
    ----------
    source
        (c, y, x), or (y, x) for one channel.
    identity, what
        See `RasterInput`.
    channel_names
        One a channel, all different, in the order of the source; default: `found`.
    remap
        New order of the channels, as positions in the source; names move along.
    transforms
        See `RasterInput`.
    found
        Names that the source itself tells; default ``channel_0``, ``channel_1``, ...

    Raises
    ------
    InputError
        Not an image, or names that do not fit.
    """
    if source.dtype.kind not in "uif" or source.dtype.itemsize > 8:
        raise InputError(
            f"{what} holds {source.dtype}, but an image holds integers or floats of at most 64 bits"
        )
    if len(source.shape) == 2:
        source = StackSource((source,))
    if len(source.shape) != 3 or 0 in source.shape:
        raise InputError(f"{what} has the shape {source.shape}, but an image is (c, y, x)")
    labels = _channel_names(source.shape[0], what, channel_names, found)
    if remap is not None:
        order = list(remap)
        if sorted(order) != list(range(len(labels))):
            raise InputError(f"remap {order} is not an order of the channels 0..{len(labels) - 1}")
        order = [int(position) for position in order]
        source = SelectSource(source, tuple(order))
        labels = [labels[position] for position in order]
        identity = digest(identity, "remap", order)
    return RasterInput(source, identity, what, tuple(labels), transforms)


def _channel_names(
    count: int, what: str, given: Sequence[str] | str | None, found: Sequence[str] | None
) -> list[str]:
    if given is not None:
        labels = [given] if isinstance(given, str) else [str(label) for label in given]
        where = "channel_names"
        if len(labels) != count:
            raise InputError(
                f"{what} has {count} channels, but {len(labels)} channel_names were given: "
                f"{', '.join(labels) or 'none'}"
            )
    elif found is not None and len(found) == count:
        labels = [str(label) for label in found]
        where = f"the metadata of {what}"
    else:
        if found is not None:
            logger.warning(
                "%s has %d channels, but its metadata name %d: they are numbered instead",
                what,
                count,
                len(found),
            )
        return default_names(count)
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice or not all(label.strip() for label in labels):
        problem = f"{', '.join(twice)} stands twice" if twice else "one is empty"
        raise InputError(
            f"{where}: {problem} among {', '.join(labels)}; each channel needs a name of its own: "
            "give channel_names"
        )
    return labels


def default_names(count: int) -> list[str]:
    """Names of channels that nobody named."""
    return [f"channel_{number}" for number in range(count)]


def array_input(array: Any) -> tuple[Source, str, str]:
    """Source, identity and name of an array that a user hands in.

    Raises
    ------
    InputError
        What is no array of numbers.
    """
    if hasattr(array, "children") and hasattr(array, "data_vars"):  # xarray's tree of scales
        array = next(iter(next(iter(array.children.values())).data_vars.values()))
    if hasattr(array, "dims") and hasattr(array, "transpose"):  # xarray
        if {"y", "x"} <= set(array.dims):
            array = array.transpose(..., "y", "x")
        array = array.data
    if hasattr(array, "__dask_graph__"):
        return dask_input(array)
    try:
        source = source_of(array)
    except (ValueError, OSError) as error:  # a ragged list, a path that is no array
        raise InputError(f"an array is needed: {error}") from error
    if isinstance(source, ZarrSource):
        return source, files_identity(Path(source.path)), source.path
    if source.dtype.kind not in "biufc":
        raise InputError(
            f"an array of numbers is needed; {type(array).__name__} makes one of {source.dtype}"
        )
    pixels = source.read(tuple(slice(0, n) for n in source.shape))
    return source, array_identity(pixels), f"an array of {source.shape} {source.dtype}"


def dask_input(array: Any) -> tuple[Source, str, str]:
    """Source, identity and name of a dask array; one that plainly reads zarr is read as zarr.

    Raises
    ------
    InputError
        No dask array, or one whose shape is not known.
    """
    if not hasattr(array, "__dask_graph__") or not hasattr(array, "chunks"):
        raise InputError(f"dask_array must be a dask array, not {type(array).__name__}")
    if any(np.isnan(length) for length in array.shape):
        raise InputError(
            f"dask array {array.name} does not know its shape; call compute_chunk_sizes() first"
        )
    source = source_of(array)
    if isinstance(source, ZarrSource):
        return source, files_identity(Path(source.path)), source.path
    what = f"dask array {array.name} of {array.shape} {array.dtype}"
    return source, digest("dask", array.name, _files_behind(array)), what


def _files_behind(array: Any) -> list[str]:
    """Identity of the zarr arrays that a graph reads: its name tells their path only."""
    import zarr

    found = []
    for layer in array.dask.layers.values():
        if len(layer) > 1:  # an array stands in a layer of its own
            continue
        for value in layer.values():
            value = getattr(value, "value", value)
            if isinstance(value, zarr.Array):
                store = value.store_path.store
                root = Path(getattr(store, "root", getattr(store, "path", "")))
                if (folder := root / value.store_path.path).is_dir():
                    found.append(files_identity(folder))
    return sorted(found)


def mask_input(source: Any) -> RasterInput:
    """Mask from an array, a dask array, or the path of a TIFF or a zarr."""
    from scportrait_like.io.tiff import is_tiff, tiff_plane

    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.exists():
            raise MissingInputError(f"{path}: no such file or folder")
        if is_tiff(path):
            found, identity, what = tiff_plane(path)
        elif path.is_dir():
            found, identity, what = _zarr_path(path)
        else:
            raise InputError(f"{path} is neither a TIFF nor a zarr folder")
    else:
        found, identity, what = array_input(source)
    extra = len(found.shape) - 2
    if extra > 0 and set(found.shape[:extra]) == {1}:
        found = SqueezedSource(found, (extra, extra + 1))
    if 0 in found.shape:
        raise InputError(f"{what} has the shape {found.shape}, but a mask is (y, x)")
    return RasterInput(found, identity, what)


def _zarr_path(path: Path) -> tuple[Source, str, str]:
    """Zarr array in a folder, or the finest level of an OME-Zarr group."""
    node = meta.read_node(path)
    if node is None:
        raise InputError(f"{path} is not zarr")
    levels = meta.dataset_paths(node["attributes"])
    if not levels and node["node_type"] != "array":
        raise InputError(
            f"{path} is a zarr group, but neither an array nor an OME-Zarr; give the path of one "
            "(for labels of a SpatialData store: STORE/labels/NAME)"
        )
    source = ZarrSource.open(path / levels[0] if levels else path)
    return source, files_identity(path), str(path)


def omezarr_input(
    path: str | Path, channel_names: Sequence[str] | None, remap: Sequence[int] | None
) -> RasterInput:
    """Image from an OME-Zarr group (NGFF 0.4 or 0.5): its finest level.

    Raises
    ------
    InputError
        No OME-Zarr image, or axes of time or depth longer than one.
    """
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"{path}: no such OME-Zarr")
    node = meta.read_node(path)
    levels = meta.dataset_paths(node["attributes"]) if node else []
    if node is None or not levels:
        hint = f"; give {path / '0'}" if meta.read_node(path / "0") else ""
        raise InputError(f"{path} is no OME-Zarr image: it has no multiscales metadata{hint}")
    source: Source = ZarrSource.open(path / levels[0])
    axes, scale = _axes_and_scale(node["attributes"])
    source = drop_axes(source, [axis["name"] for axis in axes], str(path))
    try:
        found = meta.channel_labels(node["attributes"])
    except KeyError:  # labels are optional
        found = None
    sizes = {axis["name"]: (step, axis.get("unit")) for axis, step in zip(axes, scale, strict=True)}
    transforms = pixel_transforms(sizes.get("y"), sizes.get("x"))
    identity = files_identity(path)
    return image_input(source, identity, str(path), channel_names, remap, transforms, found)


def _axes_and_scale(attributes: dict[str, Any]) -> tuple[list[dict[str, str]], list[float]]:
    """Axes of a multiscales group, and the size of a pixel of its finest level along each."""
    scales = attributes.get("ome", attributes)["multiscales"][0]
    # Before NGFF 0.4 axes were plain names, and before 0.3 always t, c, z, y, x.
    axes = [{"name": a} if isinstance(a, str) else a for a in scales.get("axes", "tczyx")]
    size = [1.0] * len(axes)
    for group in (scales["datasets"][0], scales):
        for transform in group.get("coordinateTransformations", []):
            if transform.get("type") == "scale":
                size = [a * b for a, b in zip(size, transform["scale"], strict=True)]
    return axes, size


def drop_axes(source: Source, axes: Sequence[str], what: str) -> Source:
    """Leave out axes of length one other than (c,) y, x; refuse longer ones."""
    kept = [position for position, axis in enumerate(axes) if axis in "cyx"]
    if [axes[position] for position in kept] not in (["c", "y", "x"], ["y", "x"]):
        raise InputError(f"{what} has the axes {', '.join(axes)}; (c, y, x) is needed")
    for position, axis in enumerate(axes):
        if position not in kept and source.shape[position] > 1:
            raise InputError(
                f"{what} has {source.shape[position]} positions along axis {axis}; (c, y, x) is "
                "needed: give one of them"
            )
    return source if len(kept) == len(axes) else SqueezedSource(source, tuple(kept))


_MICROMETERS = {"micrometer": 1.0, "µm": 1.0, "um": 1.0, "nanometer": 1e-3, "nm": 1e-3}
_MICROMETERS |= {"millimeter": 1e3, "mm": 1e3, "meter": 1e6, "m": 1e6}


def pixel_transforms(
    y: tuple[float, str | None] | None, x: tuple[float, str | None] | None
) -> dict[str, Any] | None:
    """Transformations of an image with a physical pixel size: pixels, and micrometers."""
    if not (y and x) or y[1] not in _MICROMETERS or x[1] not in _MICROMETERS:
        return None
    from spatialdata.transformations import Identity, Scale

    factors = [y[0] * _MICROMETERS[y[1]], x[0] * _MICROMETERS[x[1]]]
    return {names.GLOBAL: Identity(), names.MICROMETER: Scale(factors, axes=("y", "x"))}
