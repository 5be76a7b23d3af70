"""The output of an extraction: pictures, ledger, and the list of dropped ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.io.h5sc import H5scFacts, H5scWriter
from scportrait_like.io.ledger import Ledger, Reason, State
from scportrait_like.raster.index import CellIndex
from scportrait_like.raster.portraits import Pick
from scportrait_like.run.durable import sync_file
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.unitfile import UnitReader


def ledger_arrays(pick: Pick, indexes: list[CellIndex]) -> dict[str, NDArray[Any]]:
    """What becomes of every id of all masks, as far as the plan knows."""
    main, others = indexes[0], indexes[1:]
    ids = np.unique(np.concatenate([index.ids for index in indexes]))
    at = np.searchsorted(ids, main.ids)
    state = np.full(len(ids), State.DROPPED, np.int8)
    reason = np.full(len(ids), Reason.NO_NUCLEUS, np.int8)
    kept = np.where(pick.dropped, State.DROPPED, State.WRITTEN)
    state[at] = np.where(pick.selected, kept, State.NOT_SELECTED)
    reason[at] = np.where(pick.selected & pick.dropped, Reason.BORDER, Reason.NONE)
    for other in others:
        lacking = (state == State.WRITTEN) & ~np.isin(ids, other.ids)
        reason[lacking] = Reason.NO_CYTOSOL
    return {"ledger_id": ids, "ledger_state": state, "ledger_reason": reason}


class ExtractionSink:
    """Places the pictures of finished units, and keeps the ledger."""

    def __init__(self, plan: Plan, output: Path, facts: H5scFacts) -> None:
        self._plan, self._output = plan, output
        self._writer = H5scWriter(output / names.H5SC_FILE, facts, np.asarray(plan.arrays["ids"]))
        arrays = plan.arrays
        self._ledger = Ledger(
            np.asarray(arrays["ledger_id"]),
            np.asarray(arrays["ledger_state"]),
            np.asarray(arrays["ledger_reason"]),
        )

    def add(self, unit: Unit, result: UnitReader) -> None:
        """Place one unit's pictures."""
        kind = "cell" if "tile" in unit.what else "border"
        rows = slice(*unit.what["cells"])
        self._writer.add(np.asarray(self._plan.arrays[f"{kind}_row"][rows]), result)
        self._ledger.credit(np.asarray(self._plan.arrays[f"{kind}_id"][rows]), unit.name)
        # To the disk while workers compute: at the end there would be nothing left to do beside.
        sync_file(self._output / names.H5SC_FILE)

    def flush(self) -> None:
        """Bring what was placed to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Complete the file, and write what became of every id."""
        self._writer.close()
        self._ledger.save(self._output / names.LEDGER_FILE)
        dropped = self._ledger.ids[self._ledger.states == State.DROPPED]
        text = "\n".join(map(str, dropped.tolist()))
        (self._output / names.REMOVED_FILE).write_text(text)

    def abort(self) -> None:
        """Close the unfinished file."""
        self._writer.close()
