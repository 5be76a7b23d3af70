"""A slow model that is killed inside a unit goes on with the next batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scportrait_like import names
from scportrait_like.errors import RunError
from scportrait_like.run import batches as kept_batches
from scportrait_like.run.batches import Batches, in_batches

from .featurizing import features_of
from .helpers import Array
from .test_featurization import make, section

BATCH = 4


class Slow:
    """Counts its calls, and fails at one of them."""

    calls: list[int] = []  # noqa: RUF012
    fails_at: int | None = None


def slow(batch: Array, embedding_dimension: int = 2) -> Array:
    Slow.calls.append(len(batch))
    if len(Slow.calls) == Slow.fails_at:
        raise ArithmeticError("at last")
    return batch.astype(float).sum(axis=(2, 3, 4))[:, :2]


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
@pytest.mark.parametrize("source", ["images", "extraction"])
def test_finished_batches_stay(
    tmp_path: Path,
    image: Array,
    labels: Array,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    seconds: float,
) -> None:
    monkeypatch.setattr(kept_batches, "SECONDS", seconds)
    monkeypatch.setattr("scportrait_like.raster.tiles.TILE_EDGE", 10_000)  # one unit
    given = {"model": f"{__name__}:slow", "batch_size": BATCH, "executor": "inline"}
    if source == "extraction":
        given |= {"source": source, "diameter": None}
    whole = make(tmp_path / "whole", image, labels, section(**given))
    Slow.calls, Slow.fails_at = [], None
    whole.run()
    n_calls = len(Slow.calls)
    assert n_calls > 8

    project = make(tmp_path / "torn", image, labels, section(**given))
    Slow.calls, Slow.fails_at = [], 6
    with pytest.raises(RunError, match="at last"):
        project.run()
    Slow.calls, Slow.fails_at = [], None
    project.run()
    assert len(Slow.calls) == n_calls - 5
    np.testing.assert_array_equal(features_of(project).X, features_of(whole).X)
    assert not list(tmp_path.rglob(names.BATCHES_DIR))


def test_kept_batches(tmp_path: Path) -> None:
    made: list[slice] = []

    def make_rows(rows: slice) -> dict[str, Any]:
        if rows.stop > 20:
            raise KeyboardInterrupt
        made.append(rows)
        return {"a": np.arange(rows.start, rows.stop), "b": np.zeros((rows.stop - rows.start, 2))}

    with pytest.raises(KeyboardInterrupt):
        list(in_batches(30, 6, Batches(tmp_path, "tile-1"), make_rows))
    assert [rows.stop for rows in made] == [6, 12, 18]
    # Another size of batches goes on behind them; another unit knows nothing of them.
    found = list(in_batches(20, 5, Batches(tmp_path, "tile-1"), make_rows))
    assert [number for number, _ in found] == [0, 1, 2, 3]
    assert np.concatenate([part["a"] for _, part in found]).tolist() == list(range(20))
    assert not list(Batches(tmp_path, "tile-10").kept())
    assert len(made) == 4


def test_a_run_that_nobody_resumes_keeps_nothing(tmp_path: Path) -> None:
    found = list(in_batches(7, 3, Batches(None, "tile-1"), lambda rows: {"a": np.zeros(1)}))
    assert len(found) == 3
