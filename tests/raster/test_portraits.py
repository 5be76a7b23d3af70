"""The cells of an extraction: which are picked, in which order, where their windows lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scportrait_like.raster.index import CellIndex, index_labels, merge_index
from scportrait_like.raster.portraits import pick_cells


def index_of(labels: np.ndarray[Any, Any]) -> CellIndex:
    return merge_index([index_labels(labels, (0, 0))], labels.shape)


@pytest.fixture
def index() -> CellIndex:
    labels = np.zeros((100, 120), np.int64)
    for number, (y, x) in enumerate([(15, 15), (16, 16), (17, 60), (84, 104), (50, 50)]):
        labels[y, x] = 1000 - number
    return index_of(labels)


def test_discard_drops_what_scportrait_drops(index: CellIndex) -> None:
    pick = pick_cells(index, 32, "discard")
    kept = {tuple(centre) for centre in pick.centres[pick.rows].tolist()}
    # y <= 16 or x <= 16, y >= 100 - 16, x >= 120 - 16
    assert kept == {(17, 60), (50, 50)}
    assert pick.selected.all()


def test_pad_keeps_all_by_ascending_id(index: CellIndex) -> None:
    pick = pick_cells(index, 32, "pad")
    assert index.ids[pick.rows].tolist() == sorted(index.ids.tolist())
    assert not pick.dropped.any()


def test_partial_pick_is_numpys_choice_in_its_order(index: CellIndex) -> None:
    pick = pick_cells(index, 32, "discard", n_cells=4, seed=7)
    chosen = np.random.default_rng(7).choice(5, 4, replace=False)
    assert pick.rows.tolist() == [row for row in chosen if not pick.dropped[row]]
    assert set(np.flatnonzero(pick.selected)) == set(chosen)


def test_centres_are_rounded_half_to_even() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[30, 30:32] = 1  # x = 30.5
    labels[33, 31:33] = 2  # x = 31.5
    assert pick_cells(index_of(labels), 8, "pad").centres[:, 1].tolist() == [30, 32]
