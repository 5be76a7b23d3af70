"""Which cells the rows of a table are, and vectors in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import ElementExistsError, InputError, MissingInputError
from scportrait_like.io.tables import check_keys
from scportrait_like.raster.instance_runs import Found

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Rows:
    """The cells that a table's rows are.

    Attributes
    ----------
    table, name
        The table.
    rows
        Positions of the rows, by region.
    ids
        Their ids, by region.
    """

    table: AnnData
    name: str
    rows: Mapping[str, npt.NDArray[np.intp]]
    ids: Mapping[str, npt.NDArray[np.int64]]

    def filled(
        self, found: Mapping[str, Found], made: Mapping[str, npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        """Vectors in the order of the rows, from those of each region's labels."""
        first = next(iter(made.values()))
        out = np.empty((self.table.n_obs, first.shape[1]), first.dtype)
        for region, rows in self.rows.items():
            out[rows] = made[region][np.searchsorted(found[region].ids, self.ids[region])]
        return out


def rows_of(sdata: SpatialData, name: str, regions: Sequence[str]) -> Rows:
    """Look up which cells a table is about, and refuse one about others than those of `regions`."""
    from spatialdata.models import TableModel, get_table_keys

    if name not in sdata.tables:
        raise MissingInputError(
            f"the SpatialData object has no table {name!r}; it has "
            f"{', '.join(sdata.tables) or 'none'}. table_name=None makes a new one.",
            name=name,
        )
    table = sdata.tables[name]
    if TableModel.ATTRS_KEY not in table.uns:
        raise InputError(
            f"the table {name!r} annotates no element, so nobody knows which cells its rows are: "
            "pass it through spatialdata.models.TableModel.parse, or table_name=None."
        )
    _, region_key, instance_key = get_table_keys(table)
    where, ids = table.obs[region_key].astype(str).to_numpy(), table.obs[instance_key].to_numpy()
    there = list(dict.fromkeys(where.tolist()))
    if table.n_obs and set(there) != set(regions):
        raise InputError(
            f"the table {name!r} annotates {', '.join(there)}, but labels_name is "
            f"{', '.join(regions)}: pass image and labels of each of its regions, or take the rows "
            "that you want into a table of their own."
        )
    if ids.dtype.kind not in "iu":
        raise InputError(f"the table {name!r} has ids of type {ids.dtype}, not integers.")
    # As masks' ids are looked up: uint64 beside them would be compared as floats.
    ids = ids.astype(np.int64)
    rows = {region: np.flatnonzero(where == region) for region in regions}
    return Rows(table, name, rows, {region: ids[own] for region, own in rows.items()})


def check_entry(table: AnnData, name: str, output_name: str, key: str, overwrite: bool) -> None:
    """Refuse vectors under a name that the table cannot have, or has already."""
    check_keys([*(other for other in table.obsm if other != key), key])
    if output_name == name and key in table.obsm and not overwrite:
        raise ElementExistsError(
            f"the table {name!r} has obsm[{key!r}]; overwrite=True replaces it.", name=name
        )
