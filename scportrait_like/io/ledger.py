"""The ledger: what became of every id of the mask."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


class State(IntEnum):
    """What became of an id; the names, in lower case, stand in the file."""

    WRITTEN = 0
    DROPPED = 1
    NOT_SELECTED = 2


class Reason(IntEnum):
    """Why; nothing where all went well."""

    NONE = 0
    BORDER = 1
    NO_NUCLEUS = 2
    NO_CYTOSOL = 3


class Ledger:
    """One line an id: written, dropped with a reason, or not selected; and by which unit.

    Parameters
    ----------
    ids
        Ascending, int64, each once.
    states, reasons
        Codes of `State` and `Reason`, int8, one an id: texts of ten million ids take a gigabyte.
    """

    def __init__(
        self, ids: NDArray[np.int64], states: NDArray[np.int8], reasons: NDArray[np.int8]
    ) -> None:
        self.ids, self.states, self.reasons = ids, states, reasons
        self._units: list[str] = [""]
        self._unit = np.zeros(len(ids), np.int32)

    def credit(self, ids: NDArray[np.int64], unit: str) -> None:
        """Note which unit wrote some ids."""
        self._unit[np.searchsorted(self.ids, ids)] = len(self._units)
        self._units.append(unit)

    def save(self, path: Path) -> None:
        """Write as parquet with the columns id, state, reason, unit."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        reasons = ["" if reason is Reason.NONE else reason.name.lower() for reason in Reason]
        columns = {
            "id": pa.array(self.ids),
            "state": _texts(self.states, [state.name.lower() for state in State]),
            "reason": _texts(self.reasons, reasons),
            "unit": _texts(self._unit, self._units),
        }
        pq.write_table(pa.table(columns), path)


def _texts(codes: NDArray[Any], texts: list[str]) -> Any:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(texts))


def read_ledger(path: Path) -> pd.DataFrame:
    """Read a ledger: columns id (int64), state, reason, unit (texts)."""
    import pandas as pd

    return pd.read_parquet(path)
