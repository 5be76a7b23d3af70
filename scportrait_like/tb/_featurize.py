"""Embeddings of cells in a table of a SpatialData object."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError
from scportrait_like.io.elements import check_may_place
from scportrait_like.io.tables import check_keys, embedding_table, instance_dtype, place_table
from scportrait_like.models import ModelSpec, resolve_model
from scportrait_like.raster.fitting import fit_model
from scportrait_like.raster.heads import ModelHead
from scportrait_like.raster.instance_runs import Found, InstanceRun, window_edge
from scportrait_like.raster.instance_statistics import channel_means
from scportrait_like.raster.sources import source_of
from scportrait_like.tb._rasters import volumes
from scportrait_like.tb._rows import Rows, check_entry, rows_of

if TYPE_CHECKING:
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

_NO_KWARGS: Final[Mapping[str, Any]] = MappingProxyType({})


def featurize(
    sdata: SpatialData,
    image_name: str | Sequence[str],
    labels_name: str | Sequence[str],
    table_name: str | None,
    output_table_name: str,
    diameter: int | None,
    embedding_dimension: int | None,
    depth: int | None = None,
    remove_background: bool = True,
    model: Callable[..., Any] | str = channel_means,
    batch_size: int | None = None,
    model_kwargs: Mapping[str, Any] = _NO_KWARGS,
    embedding_obsm_key: str = "embedding",
    to_coordinate_system: str | Sequence[str] = "global",
    instance_key: str = "cell_ID",
    region_key: str = "fov_labels",
    cell_index_name: str = "cells",
    dtype: npt.DTypeLike = np.float32,
    run_on_gpu: bool = False,
    store_intermediate: bool = False,
    overwrite: bool = False,
    *,
    executor: Executor | str | None = None,
    memory_limit: int | str | None = None,
    **kwargs: Any,
) -> SpatialData:
    """Let a model make a vector of the window of each cell, and put these into a table.

    The window of a cell is the square of `diameter` pixels in (y, x), with all of z, that begins
    ``diameter // 2`` before the cell's centroid, rounded half to even; 0 beyond the labels. Each
    chunk of the image is read once, and of the windows nothing is kept. In a backed object the
    table is in the store as well, complete or not at all.

    Parameters
    ----------
    sdata
        Changed in place, at the end: when something fails it is as it was.
    image_name, labels_name
        An image (c, [z,] y, x) and labels ([z,] y, x), or a list of each, one region a pair. Each
        pixel of the labels must lie on exactly one pixel of the image; the labels may cover a part
        of it. Of several scales the finest is used.
    table_name
        The table whose cells are wanted: its rows, in their order. What it holds is kept. None: a
        new table without variables, a row a label, by region and ascending id.
    output_table_name
        Name of the table with the vectors. With that of `table_name` they are added there.
    diameter
        Edge of the windows in pixels; None: twice `depth`.
    embedding_dimension
        Numbers that the model makes of a window, d; None: it knows.
    depth
        Not needed, where `diameter` is given.
    remove_background
        Whether pixels of other labels, and of none, are 0.
    model
        Called as ``model(batch, embedding_dimension=d, **model_kwargs)`` with windows
        (b, c, z, y, x) in the image's dtype (of planes z is 1); returns (b, d). A function with a
        parameter ``mask`` also gets (b, 1, z, y, x) bool: where the cell is. A function, or the
        name of a model, see `scportrait_like.models`. Default: the mean of each channel over the
        window, cut to d columns, or with zeros behind them. Several threads may call it at once.
    batch_size
        Most windows that the model gets at once; None: as suit a core's cache.
    model_kwargs
        For each call of the model.
    embedding_obsm_key
        Entry of `obsm` that becomes the vectors, (cells, d).
    to_coordinate_system
        The coordinate system in which image and labels lie upon each other, or one for each region.
    instance_key, region_key, cell_index_name
        Of a new table: columns of `obs` for the ids and for the name of the labels, and name of the
        index, whose entries are ``{labels_name}_{id}``. A table that is there says its own.
    dtype
        Of the vectors.
    run_on_gpu
        Accepted; windows are cut by the CPU, and a model chooses its device by itself.
    store_intermediate
        Accepted for a backed object; nothing intermediate is stored.
    overwrite
        Whether a table `output_table_name` may be replaced, and with it vectors of that name.
        Adding vectors of a new name to the table itself needs none.
    executor
        A `concurrent.futures.Executor`, the name of one ("inline", "threads", "processes",
        "dask"), or None: an active dask client, else threads.
    memory_limit
        Bytes (or "4GB") for the process tree; None: `scportrait_like.settings.memory_limit`.
    **kwargs
        Not known; a warning names them.

    Returns
    -------
    spatialdata.SpatialData
        `sdata`.

    Raises
    ------
    MissingInputError
        There is no such image, labels or table; the message lists those that are there.
    InputError, ConfigError
        Lists that do not fit each other; an image and labels that do not lie pixel upon pixel; a
        table that annotates nothing, other regions, or labels that are not there; no such model, or
        one that cannot be called so; names that a table cannot have; labels that are empty.
    ElementExistsError
        A table, or vectors, of that name are there, and `overwrite` is False.
    ModelError
        The model failed, or what it returned does not fit.
    DiskFullError
        No space left; what was there is unharmed.
    """
    numbers = _number_type(dtype)
    regions = _regions(image_name, labels_name, to_coordinate_system)
    unused = {
        "depth": depth is not None and diameter is not None,
        "store_intermediate": store_intermediate,
    }
    _tell(run_on_gpu, [name for name, given in unused.items() if given], list(kwargs))
    if store_intermediate and not sdata.is_backed():
        raise InputError(
            "store_intermediate=True is for a SpatialData object with a store; leave it out "
            "(nothing intermediate is stored in any case), or write the object first (sdata.write)"
        )
    size = window_edge(diameter, depth)
    rows = None
    if table_name is None:
        check_keys([region_key, instance_key], cell_index_name)
        check_keys([embedding_obsm_key])
    else:
        rows = rows_of(sdata, table_name, [region.labels for region in regions])
        check_entry(rows.table, table_name, output_table_name, embedding_obsm_key, overwrite)
    same = output_table_name == table_name
    check_may_place(sdata, output_table_name, "tables", overwrite or same)
    spec = resolve_model(model, model_kwargs, embedding_dimension)

    pixels = {
        region.labels: volumes(sdata, region.image, region.labels, region.system)
        for region in regions
    }
    channels = {labels: image.shape[0] for labels, (_, image) in pixels.items()}
    head = ModelHead(spec, _dimension(spec, channels), numbers.name)
    runs = {
        labels: InstanceRun(
            source_of(mask),
            source_of(image),
            size,
            head,
            remove_background=remove_background,
            batch_size=batch_size,
            what=f"the labels {labels}",
            executor=executor,
            memory_limit=memory_limit,
        )
        for labels, (mask, image) in pixels.items()
    }
    found = {labels: _find(run, labels, rows) for labels, run in runs.items()}
    made = _embed(runs, found, head)
    if rows is None:
        ids = {
            labels: found[labels].ids.astype(instance_dtype(run.labels.dtype))
            for labels, run in runs.items()
        }
        table = embedding_table(
            np.concatenate(list(made.values())),
            ids,
            embedding_key=embedding_obsm_key,
            region_key=region_key,
            instance_key=instance_key,
            index_name=cell_index_name,
        )
    else:
        table = rows.table.copy()
        table.obsm[embedding_obsm_key] = rows.filled(found, made)
    place_table(sdata, output_table_name, table, overwrite=overwrite or same)
    return sdata


@dataclass(frozen=True)
class _Region:
    """An image, the labels upon it, and the coordinate system in which they are that."""

    image: str
    labels: str
    system: str


def _regions(
    images: str | Sequence[str], labels: str | Sequence[str], systems: str | Sequence[str]
) -> list[_Region]:
    image_names, labels_names, system_names = (
        [each] if isinstance(each, str) else list(each) for each in (images, labels, systems)
    )
    if len(system_names) == 1:
        system_names *= len(labels_names)
    if not labels_names or not len(image_names) == len(labels_names) == len(system_names):
        raise InputError(
            f"image_name names {len(image_names)}, labels_name {len(labels_names)} and "
            f"to_coordinate_system {len(system_names)} elements: give one image and one coordinate "
            "system for each labels element (or one coordinate system for all)"
        )
    if len(set(labels_names)) < len(labels_names):
        raise InputError(f"labels_name names an element twice: {', '.join(labels_names)}")
    return [_Region(*each) for each in zip(image_names, labels_names, system_names, strict=True)]


def _number_type(dtype: npt.DTypeLike) -> np.dtype[Any]:
    numbers = np.dtype(dtype)
    if numbers.kind not in "biuf":
        raise InputError(f"dtype={numbers} is not allowed: embeddings are real numbers")
    return numbers


def _tell(run_on_gpu: bool, unused: Sequence[str], unknown: Sequence[str]) -> None:
    """Say what was passed and does nothing."""
    if run_on_gpu:
        logger.info("run_on_gpu: windows are cut by the CPU; a model chooses its device by itself")
    if unused:
        logger.info("not needed: %s", ", ".join(unused))
    if unknown:
        logger.warning("not known, and not used: %s", ", ".join(unknown))


def _find(run: InstanceRun, labels: str, rows: Rows | None) -> Found:
    """Look through a mask for the cells that are wanted."""
    found = run.find()
    if rows is not None:
        wanted = np.unique(rows.ids[labels])
        return found.of(wanted, f"the table {rows.name!r} does not fit the labels: {labels}")
    if not len(found.ids):
        raise InputError(f"the labels {labels} are empty: there is no label other than 0.")
    return found


def _dimension(spec: ModelSpec, channels: Mapping[str, int]) -> int:
    """Numbers that a model makes of a window of any region; `channels` says how many it has."""
    known = {labels: spec.dimension(n_channels, 1) for labels, n_channels in channels.items()}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{number} of {labels}" for labels, number in known.items())
        raise InputError(
            f"model {spec.name} does not make as many numbers of each region's windows ({listed}): "
            "their images differ in channels. Make a table of each region."
        )
    return next(iter(known.values()))


def _embed(
    runs: Mapping[str, InstanceRun], found: Mapping[str, Found], head: ModelHead
) -> dict[str, npt.NDArray[Any]]:
    """Vectors of the labels found, (n, d), by region; a model is fitted once for all of them."""
    spec = fit_model(head.model, [(run, found[labels]) for labels, run in runs.items()])
    head = replace(head, model=spec)
    made = {}
    for labels, run in runs.items():
        made[labels] = np.empty((0, head.dimension), head.dtype)
        if len(found[labels].ids):
            made[labels] = replace(run, head=head).collect(found[labels])["embedding"]
    return made
