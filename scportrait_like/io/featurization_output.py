"""The output of a featurization: a table in the project's store, the ledger, the fitted model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.ledger import Ledger
from scportrait_like.io.tables import check_channels, embedding_table
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.unitfile import UnitReader

if TYPE_CHECKING:
    from anndata import AnnData

RowsOf = Callable[[Plan, Unit], NDArray[np.int64]]
Embeddings = Callable[[UnitReader], Iterator[NDArray[Any]]]


@dataclass(frozen=True)
class FeatureFacts:
    """What the table of a featurization is called and says of itself.

    Attributes
    ----------
    name
        Of the table.
    region
        The labels element that it annotates.
    features
        Names of the variables.
    ids_dtype
        Of the ids in `obs`.
    region_key, instance_key
        Columns of `obs`.
    about
        What made it: texts and numbers, for `uns`.
    attributes
        Our own attributes of the element.
    model
        File with what the model was fitted to, or None.
    """

    name: str
    region: str
    features: tuple[str, ...]
    ids_dtype: np.dtype[Any]
    region_key: str
    instance_key: str
    about: Mapping[str, Any]
    attributes: Mapping[str, str]
    model: Path | None


class FeaturizationSink:
    """Puts the features of finished units into a table, and keeps the ledger.

    Parameters
    ----------
    plan
        Of the run; its arrays tell what becomes of every id, and where the cells lie.
    output
        Folder of the output, for the ledger.
    filehandler
        Of the project; the table appears in its store, complete, when the sink is closed.
    facts
        Of the table.
    rows_of
        Which rows of the table a unit makes.
    embeddings
        What a unit's result holds: (n, d), batch by batch.
    """

    def __init__(
        self,
        plan: Plan,
        output: Path,
        filehandler: FileHandler,
        facts: FeatureFacts,
        rows_of: RowsOf,
        embeddings: Embeddings,
    ) -> None:
        self._plan, self._output, self._filehandler, self._facts = plan, output, filehandler, facts
        self._rows_of, self._embeddings = rows_of, embeddings
        self._units: list[tuple[Unit, UnitReader]] = []
        ledger = (np.asarray(plan.arrays[f"ledger_{part}"]) for part in ("id", "state", "reason"))
        self._ledger = Ledger(*ledger)

    def add(self, unit: Unit, result: UnitReader) -> None:
        """Keep one unit's result; it stays on the disk."""
        self._units.append((unit, result))
        ids = np.asarray(self._plan.arrays["ids"])
        self._ledger.credit(ids[self._rows_of(self._plan, unit)], unit.name)
        result.release()

    def flush(self) -> None:
        """Nothing is written before the end."""

    def close(self) -> None:
        """Write the ledger, keep the fitted model, and place the table."""
        facts, arrays = self._facts, self._plan.arrays
        self._ledger.save(self._output / names.LEDGER_FILE)
        if facts.model is not None:
            shutil.copyfile(facts.model, self._output / names.MODEL_FILE)
        table = feature_table(
            self._features(), np.asarray(arrays["ids"]), np.asarray(arrays["spatial"]), facts
        )
        self._filehandler.write_element(facts.name, table, True, facts.attributes)

    def _features(self) -> NDArray[np.float32]:
        """Features of all cells; the units are let go."""
        n_cells = len(self._plan.arrays["ids"])
        out = np.empty((n_cells, len(self._facts.features)), np.float32)
        for unit, result in self._units:
            rows, done = self._rows_of(self._plan, unit), 0
            for part in self._embeddings(result):
                out[rows[done : done + len(part)]] = part
                done += len(part)
            result.release()
        self._units.clear()
        return out

    def abort(self) -> None:
        """Let go of the units."""
        self._units.clear()


def feature_table(
    features: NDArray[np.float32],
    ids: NDArray[np.int64],
    spatial: NDArray[np.float64],
    facts: FeatureFacts,
) -> AnnData:
    """Make the table: cells x features, centroids (x, y) in ``obsm["spatial"]``.

    Parameters
    ----------
    features
        (n, d).
    ids
        (n,) the labels.
    spatial
        (n, 2).
    facts
        What it says of itself.
    """
    import pandas as pd
    from anndata import AnnData
    from spatialdata.models import TableModel

    check_channels(facts.features, facts.name)
    rows = embedding_table(
        spatial,
        {facts.region: ids.astype(facts.ids_dtype)},
        embedding_key="spatial",
        region_key=facts.region_key,
        instance_key=facts.instance_key,
    )
    table = AnnData(
        X=features,
        obs=rows.obs,
        var=pd.DataFrame(index=pd.Index(list(facts.features), dtype=object)),
        obsm=dict(rows.obsm),
        uns={names.FEATURIZATION_KEY: dict(facts.about)},
    )
    table.uns[TableModel.ATTRS_KEY] = rows.uns[TableModel.ATTRS_KEY]
    TableModel().validate(table)
    return table
