"""The output of an aggregation: a table in the project's store, and the ledger."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scportrait_like import names
from scportrait_like.errors import InputError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.ledger import Ledger, State
from scportrait_like.io.tables import intensity_table
from scportrait_like.raster.aggregated import Aggregated, merge_units
from scportrait_like.raster.index import CellIndex
from scportrait_like.raster.statistics import Statistic
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.unitfile import UnitReader

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)


# Columns of `obs`: pixels, the bounding box (half open), and whether it touches the image's border.
GEOMETRY: Final = ("area", "min_y", "min_x", "max_y", "max_x", "touches_border")


@dataclass(frozen=True)
class TableFacts:
    """What the table of an aggregation is called and says of itself.

    Attributes
    ----------
    name
        Of the table.
    region
        The labels element that it annotates.
    channels
        Names of the variables.
    columns
        Where each of them stands among the channels that were aggregated.
    ids_dtype
        Of the ids in `obs`.
    statistics
        By name; the first one by channel becomes `X`.
    region_key, instance_key
        Columns of `obs`.
    attributes
        Our own attributes of the element.
    """

    name: str
    region: str
    channels: tuple[str, ...]
    columns: tuple[int, ...]
    ids_dtype: np.dtype[Any]
    statistics: Mapping[str, Statistic]
    region_key: str
    instance_key: str
    attributes: Mapping[str, str]


class AggregationSink:
    """Merges what the units found into a table, and keeps the ledger.

    Parameters
    ----------
    plan
        Of the run.
    output
        Folder of the output, for the ledger.
    filehandler
        Of the project; the table appears in its store, complete, when the sink is closed.
    index
        Of the mask.
    facts
        Of the table.
    """

    def __init__(
        self,
        plan: Plan,
        output: Path,
        filehandler: FileHandler,
        index: CellIndex,
        facts: TableFacts,
    ) -> None:
        self._plan, self._output, self._filehandler = plan, output, filehandler
        self._index, self._facts = index, facts
        self._units: dict[str, UnitReader] = {}
        states = np.full(len(index), State.WRITTEN, np.int8)
        self._ledger = Ledger(index.ids, states, np.zeros(len(index), np.int8))

    def add(self, unit: Unit, result: UnitReader) -> None:
        """Keep one unit's result; it stays on the disk."""
        self._units[unit.name] = result
        if "tile" in unit.what:
            self._ledger.credit(result["ids"], unit.name)
        result.release()

    def flush(self) -> None:
        """Nothing is written before the end."""

    def close(self) -> None:
        """Merge, write the ledger, and place the table."""
        facts = self._facts
        found = merge_units(self._plan, self._units, facts.statistics, len(facts.channels))
        self._units.clear()
        for note in found.notes:
            logger.warning("%s: %s", facts.name, note)
        self._ledger.save(self._output / names.LEDGER_FILE)
        self._filehandler.write_element(
            facts.name, cell_table(found, self._index, facts), True, facts.attributes
        )

    def abort(self) -> None:
        """Let go of the units."""
        self._units.clear()


def cell_table(found: Aggregated, index: CellIndex, facts: TableFacts) -> AnnData:
    """Make the table: cells x channels, geometry in `obs`, centroids in ``obsm["spatial"]``."""
    if not np.array_equal(found.ids, index.ids):
        raise InputError(f"{facts.region} is not the mask any more that was indexed; load it again")
    values, columns = {}, {}
    for name, each in facts.statistics.items():
        if each.per_channel:
            values[name] = found.values[name][:, facts.columns]
        elif name != "count":  # which is the area
            columns[name] = found.values[name][:, 0]
    shape = (index.area, *index.box.T, index.border)
    return intensity_table(
        values,
        facts.channels,
        index.ids.astype(facts.ids_dtype),
        facts.region,
        obs={**dict(zip(GEOMETRY, shape, strict=True)), **columns},
        obsm={"spatial": index.centroid[:, ::-1].copy()},
        region_key=facts.region_key,
        instance_key=facts.instance_key,
    )
