"""The memory law of the step Featurization, measured from outside."""

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
from .test_memory_law import MB, huge_store, measure  # noqa: F401

SCRIPT = Path(__file__).with_name("measured_featurization.py")

pytestmark = test_memory_law.pytestmark


SOURCES = {"images": {"source": "images", "diameter": 64}, "extraction": {}}


@pytest.mark.parametrize(
    ("source", "executor", "above"),
    [
        ("images", "threads", 700),
        ("images", "threads", 300),
        ("images", "processes", 700),
        ("images", "processes", 300),
        ("extraction", "threads", 300),
    ],
)
def test_peak_stays_below_the_limit(
    huge_store: Path,  # noqa: F811
    tmp_path: Path,
    source: str,
    executor: str,
    above: int,
) -> None:
    """2.7 GB of pixels and 150,000 cells, in so many MB above what the imports take."""
    config = {**SOURCES[source], "threads": 2, "executor": executor}
    try:
        found = measure(tmp_path / "project", huge_store, above * MB, config, SCRIPT)
        table = anndata.read_zarr(huge_store / "tables" / names.FEATURES)
    finally:
        # The store is shared: the next project finds it as this one did.
        with suppress(MissingInputError):
            FileHandler(huge_store.parent).delete_element(names.FEATURES)
    assert found.peak < found.limit, str(found)
    assert found.workers == 2 or above < 700
    assert table.shape[0] > 100_000
    assert table.shape[1] == 1 + 5 * 6
    assert re.search(r"by \d (threads|processes); .*peak \d+ MB of \d+ MB granted", found.log)
