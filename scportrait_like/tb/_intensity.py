"""Tables of intensities of the cells of a SpatialData object."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal

from scportrait_like.errors import InputError
from scportrait_like.io.alignment import affine_to, place_labels, to_system
from scportrait_like.io.elements import check_may_place, full_resolution, raster
from scportrait_like.io.tables import (
    append_rows,
    check_keys,
    check_may_append,
    column_name,
    instance_dtype,
    intensity_table,
    place_table,
)
from scportrait_like.raster.aggregate import aggregate
from scportrait_like.raster.sources import SelectSource, Source, source_of
from scportrait_like.raster.statistics import Statistic, resolve_statistics
from scportrait_like.tb._rasters import beneath, channels_of

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from scportrait_like.raster.aggregated import Aggregated

logger = logging.getLogger(__name__)

_MODES: Final = ("mean", "sum")
_COUNT: Final = "count"


def allocate_intensity(
    sdata: SpatialData,
    image_name: str,
    labels_name: str,
    output_table_name: str = "table_intensities",
    channels: str | int | Iterable[str | int] | None = None,
    mode: Literal["mean", "sum"] = "mean",
    obs_stats: str | Iterable[str] | None = None,
    to_coordinate_system: str = "global",
    chunks: Any = None,
    append: bool = False,
    calculate_center_of_mass: bool = True,
    region_key: str = "fov_labels",
    instance_key: str = "cell_ID",
    spatial_key: str = "spatial",
    instance_size_key: str = "shapeSize",
    cell_index_name: str = "cells",
    run_on_gpu: bool = False,
    overwrite: bool = True,
    *,
    executor: Executor | str | None = None,
) -> SpatialData:
    """Make a table of the intensities of every cell in every channel.

    All statistics come from one pass over the pixels. The background (label 0) is left out. In a
    backed object the table is in the store as well; other tables are kept.

    Parameters
    ----------
    sdata
        Changed in place.
    image_name
        An image (c, y, x) or (c, z, y, x); of several scales the finest is used.
    labels_name
        Labels (y, x) or (z, y, x). Each pixel must lie on exactly one pixel of the image in
        `to_coordinate_system`; the labels may cover a part of the image.
    output_table_name
        Name of the table.
    channels
        One or several channels by name, in the order wanted; None: all.
    mode
        Statistic in `X`: "mean" or "sum"; ``uns["X_statistic"]`` says which.
    obs_stats
        One or several statistics for `obs`: "count", "sum", "mean", "var", "skew", "kurtosis",
        "min", "max", "median", quantiles ("q0.25"). Each becomes columns ``{statistic}_{channel}``
        (characters that spatialdata does not write there become "_"), but "count", the number of
        pixels, is the one column `instance_size_key`.
    to_coordinate_system
        The coordinate system in which image and labels lie upon each other.
    chunks
        Accepted and not needed: the tiles follow the chunks of the arrays.
    append
        Add the rows to the table of that name (in its place, whatever `overwrite` says), over the
        channels, columns and layers that both have. Without such a table one is made.
    calculate_center_of_mass
        Whether to make ``obsm[spatial_key]``: the mean coordinates (x, y) or (x, y, z) of each
        cell's pixels, float64, in the units of the coordinate system. The labels' transformation
        is applied to pixel coordinates, of which the centre of the first pixel is 0.
    region_key, instance_key
        Columns of `obs` for the name of the labels (categorical) and for the ids (integers, as in
        the labels but of 16 bits at least).
    spatial_key, instance_size_key
        See above.
    cell_index_name
        Name of the index of `obs`; its entries are ``{labels_name}_{id}``.
    run_on_gpu
        Accepted; there are no kernels for the GPU yet, the CPU is used.
    overwrite
        Whether a table of that name may be replaced.
    executor
        A `concurrent.futures.Executor`, the name of one ("inline", "threads", "processes",
        "dask"), or None: an active dask client, else threads.

    Returns
    -------
    spatialdata.SpatialData
        `sdata`. The table has `X` (cells, channels) float64 and a row a cell, by ascending id.

    Raises
    ------
    MissingInputError
        There is no such image or no such labels; the message lists those that are there.
    InputError
        An unknown channel, mode or statistic; an image and labels that do not lie pixel upon
        pixel; labels that are empty; with `append` a region that the table has already, or a table
        of another mode; columns that do not differ.
    ElementExistsError
        A table of that name is there, and `overwrite` is False.
    DiskFullError
        No space left; what was there is unharmed.
    """
    if chunks is not None:
        logger.info("chunks=%s is not needed: the tiles follow the chunks of the arrays", chunks)
    if run_on_gpu:
        logger.info("run_on_gpu: there are no kernels for the GPU yet; the CPU is used")
    extra = resolve_statistics(obs_stats if isinstance(obs_stats, str) else [*(obs_stats or ())])
    if mode not in _MODES:
        raise InputError(f"mode={mode!r} is not known; known are {', '.join(_MODES)}.")
    labels, image = raster(sdata, labels_name, "labels"), raster(sdata, image_name, "images")
    names, positions = channels_of(image, image_name, channels)
    start = place_labels(image, labels, image_name, labels_name, to_coordinate_system)
    columns = _columns(extra, names, instance_size_key)
    check_keys([region_key, instance_key, *chain(*columns.values())], cell_index_name)
    check_keys([spatial_key])
    there = sdata.tables.get(output_table_name) if append else None
    check_may_place(
        sdata, output_table_name, "tables", there is not None or (overwrite and not append)
    )
    if there is not None:
        check_may_append(there, output_table_name, labels_name, mode, region_key, instance_key)

    mask = full_resolution(labels)
    found = aggregate(
        source_of(mask.data),
        _beneath(image, positions, start, mask.shape),
        list(dict.fromkeys([mode, *extra])),
        background=False,
        what=f"the labels {labels_name}",
        executor=executor,
    )
    for note in found.notes:
        warnings.warn(note, RuntimeWarning, stacklevel=2)
    if not len(found.ids):
        raise InputError(f"the labels {labels_name} are empty: there is no label other than 0.")
    obsm: dict[str, Any] = {}
    if calculate_center_of_mass:
        matrix = affine_to(labels, labels_name, to_coordinate_system)
        obsm[spatial_key] = to_system(matrix, found.centroid, mask.ndim)
    table = intensity_table(
        {mode: found.values[mode]},
        names,
        found.ids.astype(instance_dtype(mask.dtype)),
        labels_name,
        obs=_obs(columns, found),
        obsm=obsm,
        region_key=region_key,
        instance_key=instance_key,
        index_name=cell_index_name,
    )
    if there is not None:
        table = append_rows(there, table, output_table_name)
    place_table(sdata, output_table_name, table, overwrite=overwrite or there is not None)
    return sdata


def _columns(
    statistics: Mapping[str, Statistic], channels: Sequence[str], size_key: str
) -> dict[str, list[str]]:
    """The columns of `obs` for each statistic."""
    return {
        name: [size_key]
        if name == _COUNT
        else [column_name(name, channel) for channel in channels]
        if statistic.per_channel
        else [name]
        for name, statistic in statistics.items()
    }


def _obs(columns: Mapping[str, Sequence[str]], found: Aggregated) -> dict[str, Any]:
    """The columns of `obs` with their values."""
    obs: dict[str, Any] = {}
    for statistic, keys in columns.items():
        values = found.count[:, None] if statistic == _COUNT else found.values[statistic]
        obs.update(zip(keys, values.T, strict=True))
    return obs


def _beneath(
    image: Any, positions: Sequence[int], start: Sequence[int], shape: Sequence[int]
) -> Source:
    """The part of an image that lies beneath labels of that shape, some of its channels."""
    pixels = beneath(image, start, shape)
    source = source_of(pixels)
    if list(positions) == list(range(pixels.shape[0])):
        return source
    return SelectSource(source, tuple(positions))
