"""The plan of an extraction: picks, boxes, fragments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.raster.cell_plan import cell_boxes, plan_cells
from scportrait_like.raster.index import CellIndex, index_labels, merge_index
from scportrait_like.raster.portraits import REACH, pick_cells
from scportrait_like.raster.tiles import TileGrid


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


def test_boxes_grow_by_the_reach_inside_the_window() -> None:
    centres = np.array([[50, 50], [50, 50], [20, 80]])
    box = np.array([[48, 47, 53, 54], [10, 48, 90, 52], [0, 0, 0, 0]])
    other = np.array([[0, 0, 0, 0], [49, 49, 51, 51], [0, 0, 0, 0]])
    boxes = cell_boxes(centres, 32, [box, other], REACH)
    assert boxes[0].tolist() == [48 - REACH, 47 - REACH, 53 + REACH, 54 + REACH]
    assert boxes[1].tolist() == [34, 44, 66, 56]  # cut by the window in y
    assert boxes[2].tolist() == [20, 80, 21, 81]  # nothing of it in the window: its centre


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.tuples(st.integers(5, 40), st.integers(5, 40)),
)
def test_cells_are_inside_a_tile_or_covered_by_fragments(
    seed: int, shape: tuple[int, int], edges: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    count = 25
    low = rng.integers(-6, np.array(shape), (count, 2))
    high = np.minimum(low + rng.integers(1, 30, (count, 2)), np.array(shape) + 6)
    boxes = np.concatenate([low, np.maximum(high, np.maximum(low, 0) + 1)], axis=1)
    ids = np.arange(count) * 10**12
    grid = TileGrid(shape, edges)
    plan = plan_cells(ids, low, boxes, grid)
    arrays = plan.arrays
    rows = np.concatenate([arrays["cell_row"], arrays["border_row"]])
    assert sorted(rows.tolist()) == list(range(count))

    for unit in plan.units:
        if "tile" not in unit.what:
            continue
        tile = grid[unit.what["tile"]]
        (y0, x0), (y1, x1) = tile.start, tile.stop
        cells = slice(*unit.what["cells"])
        for box in arrays["cell_box"][cells]:
            clipped = np.clip(box, 0, [*shape, *shape])
            assert (clipped[:2] >= (y0, x0)).all()
            assert (clipped[2:] <= (y1, x1)).all()
        start = 0
        for part in range(*unit.what["parts"]):
            box = arrays["part_box"][part]
            assert (box[:2] >= (y0, x0)).all()
            assert (box[2:] <= (y1, x1)).all()
            assert arrays["part_tile"][part] == unit.what["tile"]
            assert arrays["part_start"][part] == start
            start += int((box[2:] - box[:2]).prod())

    for cell, box in enumerate(arrays["border_box"]):
        covered = np.zeros(shape, int)
        starts = arrays["border_part_starts"]
        for part in arrays["border_parts"][starts[cell] : starts[cell + 1]]:
            assert arrays["part_cell"][part] == cell
            y0, x0, y1, x1 = arrays["part_box"][part]
            covered[y0:y1, x0:x1] += 1
        inside = np.zeros(shape, int)
        y0, x0, y1, x1 = np.clip(box, 0, [*shape, *shape])
        inside[y0:y1, x0:x1] = 1
        assert (covered == inside).all()


def test_units_run_tiles_first_then_joins() -> None:
    boxes = np.array([[1, 1, 9, 9], [5, 5, 25, 9]])
    plan = plan_cells(np.array([5, 9]), boxes[:, :2], boxes, TileGrid((40, 40), (20, 20)))
    assert [(unit.name, unit.stage) for unit in plan.units] == [
        ("tile-000000", 0),
        ("tile-000002", 0),
        ("join-000000", 1),
    ]
