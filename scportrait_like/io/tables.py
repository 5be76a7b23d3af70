"""Tables of cells: AnnData that annotate a labels element, and their place in a SpatialData object.

A row is a cell. Which one it is stands in two columns of `obs`: the *region* (the name of the
labels element) and the *instance* (the id of the label).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.io.elements import place_element

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

# Key of `uns` for the statistic that `X` holds.
STATISTIC: Final = "X_statistic"
# What spatialdata takes for ids; smaller integers are widened.
_SMALLEST_ID: Final = np.dtype(np.int16)


def instance_dtype(labels: np.dtype[Any]) -> np.dtype[Any]:
    """Type of the ids in a table: that of the labels, where spatialdata takes it, else a wider one.

    Joins of tables with labels compare ids; int64 with uint64 would be compared as floats.
    """
    plain = np.dtype(labels).newbyteorder("=")
    if plain.itemsize > 1:
        return plain
    return np.dtype(np.uint16) if plain.kind == "u" else _SMALLEST_ID


def column_name(statistic: str, channel: str) -> str:
    """Column of `obs` for a statistic of a channel: ``{statistic}_{channel}``.

    spatialdata writes only letters, digits, "_", "-" and "." there; others become "_".
    """
    name = f"{statistic}_{channel}"
    return "".join(char if char.isalnum() or char in "_-." else "_" for char in name)


def intensity_table(
    values: Mapping[str, NDArray[Any]],
    channels: Sequence[str],
    ids: NDArray[Any],
    region: str,
    *,
    obs: Mapping[str, Any] | None = None,
    obsm: Mapping[str, NDArray[Any]] | None = None,
    region_key: str,
    instance_key: str,
    index_name: str = "cells",
) -> AnnData:
    """Make the table that annotates a labels element with values of its cells.

    Parameters
    ----------
    values
        One entry a statistic, (n, c) each: the first becomes `X`, and ``uns["X_statistic"]`` says
        which it is; the others are `layers` under their names. All are kept as float64.
    channels
        c names, all different, the names of the variables; any text.
    ids
        (n,) integers, all different: the labels.
    region
        The labels element.
    obs
        Further columns, (n,) each, such as ``{"shapeSize": pixels}``.
    obsm
        Further arrays, (n, k) each, such as ``{"spatial": centers}``.
    region_key, instance_key
        Columns of `obs` for the region (categorical) and for the ids (dtype of `ids`, at least 16
        bits).
    index_name
        Name of the index of `obs`, whose entries are ``{region}_{id}``.

    Returns
    -------
    anndata.AnnData
        As `spatialdata.models.TableModel` wants it.

    Raises
    ------
    InputError
        Columns or channels that do not differ, or names that spatialdata does not write.
    ShapeError
        Values that do not fit the ids or the channels.
    """
    import pandas as pd
    from anndata import AnnData

    ids = np.asarray(ids)
    if not values:
        raise InputError("a table needs at least one statistic")
    shape = (len(ids), len(channels))
    for name, matrix in values.items():
        if matrix.shape != shape:
            raise ShapeError(
                f"{name!r} has the shape {matrix.shape}, but there are {shape[0]} cells and "
                f"{shape[1]} channels"
            )
    check_channels(channels, f"the table of {region}")
    columns = dict(obs or {})
    check_keys([region_key, instance_key, *columns], index_name)
    keys = _keys({region: ids}, region_key, instance_key, index_name)
    first, *others = values
    table = AnnData(
        X=np.ascontiguousarray(values[first], np.float64),
        obs=keys.assign(**columns),
        var=pd.DataFrame(index=pd.Index(list(channels), dtype=object)),
        layers={name: np.ascontiguousarray(values[name], np.float64) for name in others},
        obsm=dict(obsm or {}),
        uns={STATISTIC: first},
    )
    return _annotating(table, [region], region_key, instance_key)


def embedding_table(
    embedding: NDArray[Any],
    ids: Mapping[str, NDArray[Any]],
    *,
    embedding_key: str,
    region_key: str,
    instance_key: str,
    index_name: str = "cells",
) -> AnnData:
    """Make a table without variables that annotates labels elements with vectors of their cells.

    Parameters
    ----------
    embedding
        (n, d): those of the cells of all regions, one region after the other.
    ids
        A labels element each: (n_r,) integers, all different.
    embedding_key
        Entry of `obsm`.
    region_key, instance_key, index_name
        As of `intensity_table`, and so are the errors.
    """
    from anndata import AnnData

    check_keys([region_key, instance_key], index_name)
    check_keys([embedding_key])
    keys = _keys(ids, region_key, instance_key, index_name)
    table = AnnData(obs=keys, obsm={embedding_key: embedding})
    return _annotating(table, list(ids), region_key, instance_key)


def _keys(
    ids: Mapping[str, NDArray[Any]], region_key: str, instance_key: str, index_name: str
) -> pd.DataFrame:
    """The columns of `obs` that say which cells the rows are, by region."""
    import pandas as pd

    own = [each.astype(instance_dtype(each.dtype)) for each in ids.values()]
    together = _common_dtype(own, ", ".join(ids))
    regions = [region for region, each in ids.items() for _ in each]
    names = [f"{region}_{id_}" for region, each in ids.items() for id_ in each.tolist()]
    keys = {
        region_key: pd.Categorical(regions, categories=list(ids)),
        instance_key: np.concatenate(own).astype(together),
    }
    return pd.DataFrame(keys, index=pd.Index(names, dtype=object, name=index_name))


def check_channels(channels: Sequence[str], what: str) -> None:
    """Refuse channels that do not differ.

    Parameters
    ----------
    channels
        Their names.
    what
        What has them, for the message.

    Raises
    ------
    InputError
        The message names them.
    """
    twice = sorted({name for name in channels if list(channels).count(name) > 1})
    if twice:
        raise InputError(
            f"{what}: channels must differ, but {', '.join(twice)} stands more than once among "
            f"{', '.join(channels)}."
        )


def check_keys(keys: Iterable[str], index_name: str | None = None) -> None:
    """Refuse names within a table that do not differ, or that spatialdata does not write.

    Parameters
    ----------
    keys
        Columns of `obs`, or entries of `obsm` or `layers`.
    index_name
        Name of the index of `obs`, which must not be that of a column.

    Raises
    ------
    InputError
        The message says which column, and why.
    """
    seen: dict[str, str] = {}
    for key in keys:
        plain = bool(key) and all(char.isalnum() or char in "_-." for char in key)
        if not plain or key.startswith("__") or key in (".", "..", "_index"):
            raise InputError(
                f"{key!r} cannot stand in a table: only letters, digits, '_', '-' and '.', "
                "no '__' at the start, and not '_index'."
            )
        if key.lower() in seen:
            raise InputError(
                f"a table cannot have both {seen[key.lower()]!r} and {key!r}, which "
                "spatialdata takes for the same: rename one (a key, or a channel of the image)."
            )
        seen[key.lower()] = key
    if index_name in seen.values():
        raise InputError(
            f"{index_name!r} names both the index (cell_index_name) and a column of the table: "
            "choose another name for one of them."
        )


def _annotating(
    table: AnnData, regions: Sequence[str], region_key: str, instance_key: str
) -> AnnData:
    """Let spatialdata check a table and note in it what it annotates."""
    from anndata import AnnData
    from spatialdata.models import TableModel

    # It counts the different values of every column, of which only the keys' are asked.
    keys = TableModel.parse(
        AnnData(obs=table.obs[[region_key, instance_key]].copy()),
        region=regions[0] if len(regions) == 1 else list(regions),
        region_key=region_key,
        instance_key=instance_key,
    )
    table.uns[TableModel.ATTRS_KEY] = keys.uns[TableModel.ATTRS_KEY]
    TableModel().validate(table)
    return table


def check_may_append(
    table: AnnData, name: str, region: str, statistic: str, region_key: str, instance_key: str
) -> None:
    """Refuse to append a region to a table that does not take it.

    Parameters
    ----------
    table, name
        The table there is, and its name for messages.
    region
        The labels element to come.
    statistic
        What its `X` will hold.
    region_key, instance_key
        As of `intensity_table`.

    Raises
    ------
    InputError
        The region is there already; the table annotates nothing, or by other keys; its `X` holds
        another statistic.
    """
    from spatialdata.models import TableModel, get_table_keys

    if TableModel.ATTRS_KEY not in table.uns:
        raise InputError(
            f"the table {name!r} annotates no element, so nothing can be appended to it: choose "
            "another name."
        )
    keys = tuple(get_table_keys(table)[1:])
    if keys != (region_key, instance_key):
        raise InputError(
            f"the table {name!r} has region_key={keys[0]!r} and instance_key={keys[1]!r}, not "
            f"{region_key!r} and {instance_key!r}: pass those, or choose another name."
        )
    regions = _regions(table, region_key)
    if region in regions:
        raise InputError(
            f"the table {name!r} annotates {region!r} already (regions: {', '.join(regions)}): "
            "choose another name, or make the table anew (append=False, overwrite=True)."
        )
    if table.uns.get(STATISTIC, statistic) != statistic:
        raise InputError(
            f"the table {name!r} holds the {table.uns[STATISTIC]} in X, to which the {statistic} "
            "cannot be appended: choose another name, or the same statistic."
        )
    if table.obs[instance_key].dtype.kind not in "iu":
        raise InputError(
            f"the table {name!r} has ids of type {table.obs[instance_key].dtype}, not integers: "
            "choose another name."
        )


def append_rows(table: AnnData, new: AnnData, name: str) -> AnnData:
    """Join two tables of different regions along the rows.

    Kept is what both have: channels (in the order of the first), columns of `obs`, layers and
    `obsm`; what only one has is left out, with a warning. `uns`, `var` and `varm` are the first's.

    Parameters
    ----------
    table
        The table there is; it is not changed.
    new
        The rows to come, as of `intensity_table`; `check_may_append` has passed them.
    name
        Of the table, for messages.

    Raises
    ------
    InputError
        They have no channel in common, or ids that no integer type holds.
    ShapeError
        An array of `obsm` has another number of columns, as have centers in the plane and in space.
    """
    import anndata
    from spatialdata.models import get_table_keys

    _, region_key, instance_key = get_table_keys(new)
    theirs = set(new.var_names)
    common = [channel for channel in table.var_names if channel in theirs]
    if not common:
        raise InputError(
            f"the table {name!r} has none of the channels {', '.join(new.var_names)}; it has "
            f"{', '.join(table.var_names)}."
        )
    for key in set(table.obsm) & set(new.obsm):
        if table.obsm[key].shape[1:] != new.obsm[key].shape[1:]:
            raise ShapeError(
                f"obsm[{key!r}] of the table {name!r} has the shape {table.obsm[key].shape}, and "
                f"that of the new rows {new.obsm[key].shape}: choose another name for the table."
            )
    _warn_of_loss(table, new, name)
    parts = [part[:, common].copy() for part in (table, new)]
    together = _common_dtype([part.obs[instance_key] for part in parts], name)
    for part in parts:
        part.obs[instance_key] = part.obs[instance_key].astype(together)
    joined = anndata.concat(parts, join="inner", merge="first", uns_merge="first")
    joined.obs_names_make_unique()
    joined.obs.index.name = table.obs.index.name
    regions = [*_regions(table, region_key), *_regions(new, region_key)]
    return _annotating(joined, regions, region_key, instance_key)


def place_table(sdata: SpatialData, name: str, table: AnnData, overwrite: bool = False) -> None:
    """Put a table into a SpatialData object and, where it is backed by a store, into that.

    See `scportrait_like.io.elements.place_element`.
    """
    place_element(sdata, name, table, overwrite)


def _regions(table: AnnData, region_key: str) -> list[str]:
    return [str(region) for region in table.obs[region_key].unique()]


def _common_dtype(columns: Sequence[Any], name: str) -> np.dtype[Any]:
    """An integer type that holds the ids of all columns."""
    together = np.result_type(*(column.dtype for column in columns))
    if together.kind in "iu":
        return together
    largest = max((int(column.max()) for column in columns if len(column)), default=0)
    smallest = min((int(column.min()) for column in columns if len(column)), default=0)
    if largest <= np.iinfo(np.int64).max:
        return np.dtype(np.int64)
    if smallest >= 0:
        return np.dtype(np.uint64)
    raise InputError(
        f"no integer type holds the ids of the table {name!r} and the new ones, {smallest} to "
        f"{largest}: choose another name for the table."
    )


def _warn_of_loss(table: AnnData, new: AnnData, name: str) -> None:
    """Say what only one of two tables has."""
    for what, ours, theirs in (
        ("channels", table.var_names, new.var_names),
        ("columns of obs", table.obs.columns, new.obs.columns),
        ("layers", table.layers, new.layers),
        ("obsm", table.obsm, new.obsm),
    ):
        lost = sorted(set(ours) ^ set(theirs))
        if lost:
            logger.warning("%s: %s that not all regions have are left out: %s", name, what, lost)
    if len(table.obsp):
        logger.warning("%s: obsp is left out: %s", name, sorted(table.obsp))
