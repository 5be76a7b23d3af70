"""A run that was begun and left does not stand between a complete output and its guard."""

from __future__ import annotations

from pathlib import Path

import pytest

from scportrait_like import names
from scportrait_like.errors import StaleRunError
from scportrait_like.run.rundir import RunDirectory

from .helpers import Array, aggregation_digests
from .test_aggregation import again, make, state_of


def leave(project: Path, with_result: bool) -> RunDirectory:
    """A run of other settings that was permitted once."""
    run = RunDirectory(project / names.AGGREGATION_DIR / f".{names.EXTRACTION_DATA}.run")
    run.start({"step": "Aggregation", "config": {"statistics": ["sum"]}})
    if with_result:
        run.unit_file("tile-000000").write_bytes(b"")
    return run


@pytest.mark.parametrize("with_result", [False, True])
def test_a_leftover_permits_nothing(
    tmp_path: Path, image: Array, labels: Array, with_result: bool
) -> None:
    first = make(tmp_path, image, labels)
    first.aggregate()
    before = aggregation_digests(tmp_path)
    leave(tmp_path, with_result)
    with pytest.raises(StaleRunError, match=r"config\.statistics"):
        again(first, {"statistics": ["max"]}).aggregate()
    assert aggregation_digests(tmp_path) == before


@pytest.mark.parametrize("with_result", [False, True])
def test_a_leftover_without_a_result_goes(
    tmp_path: Path, image: Array, labels: Array, with_result: bool
) -> None:
    project = make(tmp_path, image, labels)
    project.aggregate()
    run = leave(tmp_path, with_result)
    project.aggregate()
    assert state_of(project) == "complete"
    assert run.exists() == with_result
