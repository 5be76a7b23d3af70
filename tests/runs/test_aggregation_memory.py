"""The memory law of the step Aggregation, measured from outside."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import anndata
import pytest

from scportrait_like import names
from scportrait_like.errors import MissingInputError
from scportrait_like.filehandler import FileHandler

from . import test_memory_law
from .test_memory_law import CHANNELS, EDGE, MB, huge_store, measure  # noqa: F401

SCRIPT = Path(__file__).with_name("measured_aggregation.py")
STATISTICS = ["mean", "var", "skew", "median", "q0.25"]

pytestmark = test_memory_law.pytestmark


@pytest.mark.parametrize("above", [700, 250], ids="{} MB".format)
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_peak_stays_below_the_limit(
    huge_store: Path,  # noqa: F811
    tmp_path: Path,
    executor: str,
    above: int,
) -> None:
    """2.7 GB of pixels and 150,000 cells, in so much above what the imports take."""
    config = {"statistics": STATISTICS, "threads": 2, "executor": executor}
    folder = tmp_path / "project"
    try:
        found = measure(folder, huge_store, above * MB, config, SCRIPT)
        table = anndata.read_zarr(huge_store / "tables" / names.INTENSITIES)
    finally:
        # The store is shared: the next project finds it as this one did.
        with suppress(MissingInputError):
            FileHandler(huge_store.parent).delete_element(names.INTENSITIES)
    assert found.peak < found.limit, str(found)
    assert 2 * found.limit < 2 * CHANNELS * EDGE**2, "the test shows nothing"
    assert found.workers == 2 or above < 700
    assert table.shape[0] > 100_000
    assert table.shape[1] == CHANNELS
    assert set(table.layers) == set(STATISTICS[1:])
    assert re.search(r"by \d (threads|processes); .*peak \d+ MB of \d+ MB granted", found.log)
