"""Values of cells: columns of a table, read only where they are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError

if TYPE_CHECKING:
    import zarr

X: Final = "X"
_X_STATISTIC: Final = "uns/X_statistic"  # the name of what X holds
_SCORED: Final = 100_000  # cells by which channels are judged


@dataclass(frozen=True)
class CellValues:
    """Some values of each cell of a mask.

    Attributes
    ----------
    ids
        (n,) integers, the labels.
    names
        c names of channels, or the one of a column of `obs`.
    values
        (n, c) float64.
    statistic
        What they are ("mean"); empty for a column of `obs`.
    hidden
        So many channels of the table are not among them.
    """

    ids: npt.NDArray[Any]
    names: list[str]
    values: npt.NDArray[np.float64]
    statistic: str
    hidden: int


@dataclass(frozen=True)
class ClusterValues:
    """What a table says of clusters 1..K of pixels.

    Attributes
    ----------
    means
        (K, c) float64; NaN where a cluster has no pixel.
    channels
        c names.
    pixels
        (K,) of each cluster.
    metaclusters
        (K,) that of each cluster; None: they are metaclusters themselves.
    """

    means: npt.NDArray[np.float64]
    channels: list[str]
    pixels: npt.NDArray[np.int64]
    metaclusters: npt.NDArray[np.int64] | None

    @classmethod
    def of(
        cls,
        table: CellTable,
        pixels: str,
        metacluster: str | None,
        channels: str | Sequence[str] | None = None,
    ) -> ClusterValues:
        """Read them.

        Parameters
        ----------
        table
            Clusters x channels.
        pixels, metacluster
            Columns of `obs`.
        channels
            Names; None: all.

        Raises
        ------
        InputError
            No such channel or column, or rows that are not the clusters 1..K.
        """
        region, wanted = table.regions[0], [channels] if isinstance(channels, str) else channels
        columns = len(wanted or table.channels)
        found = table.read(X, wanted, columns, region)
        order = np.argsort(found.ids, kind="stable")
        if not np.array_equal(found.ids[order], np.arange(1, len(order) + 1)):
            raise InputError(f"the table {table.name} has not one row for each cluster from 1 on")

        def column(name: str) -> npt.NDArray[np.int64]:
            values = table.read(name, None, 1, region).values[order, 0]
            return np.asarray(values, np.int64)

        groups = None if metacluster is None else column(metacluster)
        return cls(found.values[order], found.names, column(pixels), groups)


class CellTable:
    """A table of cells on disk, as anndata writes it.

    Parameters
    ----------
    group
        The zarr group.
    name
        Of the table, for messages.

    Raises
    ------
    InputError
        The table annotates no mask.
    """

    def __init__(self, group: zarr.Group, name: str) -> None:
        from anndata.io import read_elem

        self.name = name
        self._group, self._read = group, read_elem
        keys = [group.attrs.get(key) for key in ("region", "region_key", "instance_key")]
        if not all(keys):
            raise InputError(f"the table {name} annotates no mask, so its cells cannot be drawn")
        region, self._region_key, self._instance_key = keys
        self.regions = [region] if isinstance(region, str) else [str(each) for each in region]  # type: ignore[union-attr]
        self.channels = [str(channel) for channel in read_elem(group["var"]).index]

    @property
    def x_statistic(self) -> str:
        """What X holds; "X" where the table does not say."""
        return str(self._read(self._group[_X_STATISTIC])) if _X_STATISTIC in self._group else X

    @property
    def layers(self) -> list[str]:
        """Names of the other statistics."""
        return sorted(self._group["layers"].keys()) if "layers" in self._group else []  # type: ignore[union-attr]

    @property
    def columns(self) -> list[str]:
        """Columns of `obs` that hold numbers."""
        obs: Any = self._group["obs"]
        order = [str(name) for name in obs.attrs["column-order"]]
        dtypes = {name: getattr(obs[name], "dtype", None) for name in order}
        return [
            name
            for name, dtype in dtypes.items()
            if dtype is not None and dtype.kind in "uifb" and name != self._instance_key
        ]

    def read(
        self, statistic: str, channels: Sequence[str] | None, most: int, region: str
    ) -> CellValues:
        """Read some channels of a statistic, or a column of `obs`.

        Parameters
        ----------
        statistic
            "X" or what X holds, a layer, or a column of `obs`.
        channels
            Names; None: all if there are at most `most`, else those of the most spread.
        most
            So many at most.
        region
            The mask of the cells.

        Raises
        ------
        InputError
            There is no such thing: the message lists what is there.
        """
        cells = np.asarray(self._read(self._group[f"obs/{self._region_key}"])) == region
        ids = np.asarray(self._group[f"obs/{self._instance_key}"])[cells]
        path = self._path(statistic)
        if path.startswith("obs/"):
            if channels is not None:
                raise InputError(
                    f"channels={list(channels)}: {statistic} is a column of obs, which has no "
                    "channels; leave them out"
                )
            column = np.asarray(self._group[path], np.float64)[cells]
            return CellValues(ids, [statistic], column[:, None], "", 0)
        chosen = self._chosen(path, channels, most)
        values = self._matrix(path, slice(None), chosen)[cells]
        name = self.x_statistic if path == X else statistic
        hidden = len(self.channels) - len(set(chosen))
        return CellValues(ids, [self.channels[k] for k in chosen], values, name, hidden)

    def sample(self, region: str, most: int) -> tuple[CellValues, int]:
        """Read X of some cells, evenly spread over the rows.

        Parameters
        ----------
        region
            The mask of the cells.
        most
            So many cells at most.

        Returns
        -------
        Their values, and how many cells of the mask the table has.
        """
        cells = self._rows_of(region)
        some = cells[:: max(1, -(-len(cells) // most))]
        values = self._matrix(X, some, range(len(self.channels)))
        ids = np.asarray(self._group[f"obs/{self._instance_key}"])[some]
        return CellValues(ids, self.channels, values, self.x_statistic, 0), len(cells)

    def embedded(self, key: str, region: str, ids: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Read an entry of `obsm` (n, m) of some cells (n,) of a mask; 0 where one has no row."""
        rows = self._rows_of(region)
        known = np.asarray(self._group[f"obs/{self._instance_key}"])[rows]
        order = np.argsort(known, kind="stable")
        at = np.searchsorted(known, ids, sorter=order)
        there = at < len(known)
        there[there] = known[order[at[there]]] == ids[there]
        array: Any = self._group[f"obsm/{key}"]
        found = np.zeros((len(ids), array.shape[1]))
        if there.any():
            found[there] = array.oindex[rows[order[at[there]]], slice(None)]
        return found

    def commonest(
        self, key: str, region: str, ids: npt.NDArray[Any] | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Tell which column of an entry of `obsm` is the largest of each cell.

        Parameters
        ----------
        key
            Of the entry.
        region
            The mask of the cells.
        ids
            (n,) those asked for; None: all that the table has of the mask.

        Returns
        -------
        Their ids (n,), and the numbers (n,) of the columns, from 1: of several that are equal the
        lowest; 0 where none is above 0.
        """
        if ids is None:
            ids = np.asarray(self._group[f"obs/{self._instance_key}"])[self._rows_of(region)]
        values = self.embedded(key, region, ids)
        largest = values.max(axis=1, initial=0) > 0
        return ids, np.where(largest, values.argmax(axis=1) + 1, 0)

    def about(self, key: str) -> dict[str, Any]:
        """Read a mapping of `uns`; empty where there is none."""
        path = f"uns/{key}"
        return dict(self._read(self._group[path])) if path in self._group else {}

    def _rows_of(self, region: str) -> npt.NDArray[np.int64]:
        """Rows of the cells of a mask."""
        regions = np.asarray(self._read(self._group[f"obs/{self._region_key}"]))
        return np.flatnonzero(regions == region)

    def _path(self, statistic: str) -> str:
        if statistic in (X, self.x_statistic):
            return X
        if statistic in self.layers:
            return f"layers/{statistic}"
        if statistic in self.columns:
            return f"obs/{statistic}"
        x = self.x_statistic if self.x_statistic == X else f"{self.x_statistic} (in X)"
        raise InputError(
            f"statistic={statistic!r} is not in the table {self.name}; it has: "
            f"{', '.join([x, *self.layers])}; columns of obs: {', '.join(self.columns) or 'none'}"
        )

    def _chosen(self, path: str, channels: Sequence[str] | None, most: int) -> list[int]:
        """Positions of the channels to draw."""
        known = self.channels
        if channels is None:
            if len(known) <= most:
                return list(range(len(known)))
            n: int = self._group["obs"][self._instance_key].shape[0]  # type: ignore[index, union-attr]
            some = self._matrix(path, slice(None, None, max(1, n // _SCORED)), range(len(known)))
            order = np.argsort([-spread(column) for column in some.T], kind="stable")
            return sorted(order[:most].tolist())
        if missing := [name for name in channels if name not in known]:
            raise InputError(
                f"channels: {', '.join(missing)} not in the table {self.name}; it has: "
                f"{', '.join(known)}"
            )
        if not 1 <= len(channels) <= most:
            raise InputError(f"channels: 1 to {most} can be drawn, {len(channels)} were given")
        return [known.index(name) for name in channels]

    def _matrix(
        self, path: str, rows: slice | npt.NDArray[np.int64], columns: Sequence[int]
    ) -> npt.NDArray[np.float64]:
        """Some of X or of a layer (n, c)."""
        import zarr

        found: Any = self._group[path]
        if isinstance(found, zarr.Array):
            return np.asarray(found.oindex[rows, np.asarray(columns, np.int64)], np.float64)
        sparse = self._read(found)[rows][:, list(columns)]
        return np.asarray(sparse.toarray(), np.float64)


def spread(values: npt.NDArray[np.float64]) -> float:
    """How far values lie apart, on a logarithmic scale, where noise of bright channels is small."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return -1.0
    low, high = np.percentile(np.sign(finite) * np.log1p(np.abs(finite)), (5, 95))
    return float(high - low)
