"""Tables of intensities of the clusters of pixels of a SpatialData object."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.io.cluster_tables import METACLUSTER, METACLUSTERS, groups_table
from scportrait_like.io.elements import check_may_place, raster
from scportrait_like.io.tables import append_rows, check_keys, place_table
from scportrait_like.raster.aggregate import aggregate
from scportrait_like.raster.sources import SelectSource, source_of
from scportrait_like.raster.statistics import resolve_statistics
from scportrait_like.tb._rasters import channels_of, volumes

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from scportrait_like.raster.aggregated import Aggregated

logger = logging.getLogger(__name__)

_MEAN: Final = "mean"
_CLUSTERS: Final = "clusters"

Ints = NDArray[np.int64]


def cluster_intensity(
    sdata: SpatialData,
    mapping: Mapping[int, int] | Any,
    image_name: str | Iterable[str],
    labels_name: str | Iterable[str],
    output_table_name: str = "cluster_intensities",
    channels: str | int | Iterable[str | int] | None = None,
    to_coordinate_system: str | Iterable[str] = "global",
    chunks: Any = None,
    region_key: str = "fov_labels",
    instance_key: str = "cell_ID",
    overwrite: bool = False,
    *,
    executor: Executor | str | None = None,
    memory_limit: int | str | None = None,
) -> SpatialData:
    """Make a table of the mean intensities of clusters of pixels, as `im.flowsom` finds them.

    Parameters
    ----------
    sdata
        Changed in place.
    mapping
        The metacluster of each cluster, as `im.flowsom` returns it: a pandas Series or a mapping,
        ids and values from 1.
    image_name
        An image (c, [z,] y, x), or several with the same channels: best the prepared ones that were
        clustered. Of several scales the finest is used.
    labels_name
        Labels of the clusters ([z,] y, x), one for each image, pixel upon pixel; 0 is no cluster.
    output_table_name
        Name of the table.
    channels
        One or several by name, in the order wanted; None: all.
    to_coordinate_system
        The coordinate system in which image and labels lie upon each other; one, or one an image.
    chunks
        Accepted and not needed: the tiles follow the chunks of the arrays.
    region_key, instance_key
        Columns of `obs` for the name of the labels and for the clusters.
    overwrite
        Whether a table of that name may be replaced.
    executor
        A `concurrent.futures.Executor`, the name of one ("inline", "threads", "processes",
        "dask"), or None: an active dask client, else threads.
    memory_limit
        Bytes (or "4GB") for the process tree; None: `scportrait_like.settings.memory_limit`.

    Returns
    -------
    spatialdata.SpatialData
        `sdata`. The table annotates the labels: in each of them a row for each cluster of
        `mapping`; X (rows, channels) float64 is the mean of its pixels, NaN where it has none;
        ``obs["metacluster"]``, ``obs["pixels"]``, and ``obs["share"]`` of the labels' pixels.
        ``uns["clusters"]`` and ``uns["metaclusters"]`` tell the same over all labels together:
        ``ids`` (n,), ``pixels`` (n,) and ``mean`` (n, channels).

    Raises
    ------
    MissingInputError
        There is no such image or no such labels.
    InputError
        An unknown channel, images of different channels, image and labels that do not lie pixel
        upon pixel, a cluster that `mapping` does not have.
    ElementExistsError
        A table of that name is there, and `overwrite` is False.
    """
    if chunks is not None:
        logger.info("chunks=%s is not needed: the tiles follow the chunks of the arrays", chunks)
    images, labels, systems = _regions(image_name, labels_name, to_coordinate_system)
    clusters, groups = _checked_mapping(mapping)
    names = _common_channels(sdata, images, channels)
    check_keys([region_key, instance_key, METACLUSTER, "pixels", "share"], _CLUSTERS)
    check_may_place(sdata, output_table_name, "tables", overwrite)

    found, tables = [], []
    for image, name, system in zip(images, labels, systems, strict=True):
        mask, pixels = volumes(sdata, image, name, system)
        _, positions = channels_of(raster(sdata, image, "images"), image, names)
        one = aggregate(
            source_of(mask),
            SelectSource(source_of(pixels), tuple(positions)),
            [_MEAN],
            background=False,
            what=f"the labels {name}",
            executor=executor,
            memory_limit=memory_limit,
        )
        if unknown := sorted(set(one.ids.tolist()) - set(clusters.tolist())):
            raise InputError(
                f"the labels {name} hold {', '.join(map(str, unknown[:10]))}, which the mapping "
                "does not have: are they the clusters that it is of?"
            )
        found.append(one.reindex(clusters, resolve_statistics([_MEAN])))
        table = groups_table(
            found[-1].values[_MEAN],
            found[-1].count,
            names,
            name,
            mask.dtype,
            ids=clusters,
            obs={METACLUSTER: groups},
            region_key=region_key,
            instance_key=instance_key,
        )
        tables.append(table)

    def joined(table: AnnData, more: AnnData) -> AnnData:
        return append_rows(table, more, output_table_name)

    table = reduce(joined, tables)
    of_groups = np.unique(groups)
    table.uns |= {
        _CLUSTERS: _pooled(found, clusters, clusters),
        METACLUSTERS: _pooled(found, groups, of_groups),
    }
    place_table(sdata, output_table_name, table, overwrite=overwrite)
    return sdata


def _regions(
    image_name: str | Iterable[str], labels_name: str | Iterable[str], system: str | Iterable[str]
) -> tuple[list[str], list[str], list[str]]:
    """Names of images, of their labels, and of coordinate systems, as many of each."""
    images, labels, systems = (
        [given] if isinstance(given, str) else list(given)
        for given in (image_name, labels_name, system)
    )
    if len(systems) == 1:
        systems *= len(images)
    if not images or len(labels) != len(images) or len(systems) != len(images):
        raise InputError(
            f"{len(images)} images need as many labels and coordinate systems, not {len(labels)} "
            f"and {len(systems)}"
        )
    if len(set(labels)) < len(labels):
        raise InputError(f"labels_name names one twice: {', '.join(labels)}")
    return images, labels, systems


def _checked_mapping(mapping: Any) -> tuple[Ints, Ints]:
    """Clusters, ascending, and the metacluster of each."""
    refused = InputError(
        "mapping: give the metacluster of each cluster, a pandas Series or a mapping with whole "
        "numbers from 1, as im.flowsom returns it"
    )
    try:
        items = sorted(dict(mapping).items())
    except (TypeError, ValueError):  # a list, or keys of several kinds
        raise refused from None
    clusters, groups = (np.array([pair[i] for pair in items]) for i in range(2))
    for ids in (clusters, groups):
        if not len(ids) or ids.dtype.kind not in "iu" or ids.min() < 1:
            raise refused
    return clusters.astype(np.int64), groups.astype(np.int64)


def _common_channels(
    sdata: SpatialData, images: Sequence[str], channels: str | int | Iterable[str | int] | None
) -> list[str]:
    """Channels that are wanted; without a word about them all, which all images have."""
    names, _ = channels_of(raster(sdata, images[0], "images"), images[0], channels)
    for image in images[1:]:
        there, _ = channels_of(raster(sdata, image, "images"), image, None)
        if channels is None and set(there) != set(names):
            only = ", ".join(sorted(set(there) ^ set(names)))
            raise InputError(
                f"{images[0]} and {image} have different channels ({only}): name those that both "
                "have in channels"
            )
    return names


def _pooled(found: Sequence[Aggregated], groups: Ints, ids: Ints) -> dict[str, Any]:
    """Means and pixels of groups of clusters, over all labels together."""
    sums = np.zeros((len(ids), found[0].values[_MEAN].shape[1]))
    pixels = np.zeros(len(ids), np.int64)
    at = np.searchsorted(ids, groups)
    for one in found:
        some = one.count > 0
        np.add.at(sums, at[some], one.values[_MEAN][some] * one.count[some, None])
        np.add.at(pixels, at, one.count)
    means = np.full_like(sums, np.nan)
    np.divide(sums, pixels[:, None], out=means, where=pixels[:, None] > 0)
    return {"ids": ids, "pixels": pixels, "mean": means}
