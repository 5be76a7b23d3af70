"""The plan of a run over cells: boxes, fragments, units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.raster.cell_plan import JOIN_CELLS, box_pixels, cell_boxes, plan_cells
from scportrait_like.raster.cells import Cells, Pieces
from scportrait_like.raster.tiles import TileGrid
from scportrait_like.run.plan import Plan

Boxes = np.ndarray[Any, Any]


# Boxes


def test_boxes_are_inside_the_window() -> None:
    centres = np.array([[50, 50], [50, 50], [20, 80]])
    box = np.array([[48, 47, 53, 54], [10, 48, 90, 52], [0, 0, 0, 0]])
    other = np.array([[0, 0, 0, 0], [49, 49, 51, 51], [0, 0, 0, 0]])
    assert cell_boxes(centres, 32, [box]).tolist() == [
        [48, 47, 53, 54],
        [34, 48, 66, 52],  # cut by the window in y
        [20, 80, 21, 81],  # nothing of it in the window: its centre
    ]
    assert cell_boxes(centres, 32, [box, other], 4).tolist() == [
        [44, 43, 57, 58],
        [34, 44, 66, 56],
        [20, 80, 21, 81],
    ]


@pytest.mark.parametrize(("size", "first", "stop"), [(1, 0, 1), (2, -1, 1), (5, -2, 3), (8, -4, 4)])
def test_windows_begin_half_their_edge_before_the_centre(size: int, first: int, stop: int) -> None:
    box = np.array([[-99, -99, 999, 999]])
    found = cell_boxes(np.array([[7, 90]]), size, [box])
    assert found.tolist() == [[7 + first, 90 + first, 7 + stop, 90 + stop]]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 5), st.integers(1, 3))
def test_boxes_against_sets_of_pixels(seed: int, size: int, reach: int, masks: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 50, (4, 2))
    low = rng.integers(0, 50, (masks, 4, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 30, low.shape)], axis=2)
    boxes[rng.random((masks, 4)) < 0.2] = 0
    found = cell_boxes(centres, size, list(boxes), reach)
    for number, (y, x) in enumerate(centres.tolist()):
        hulls = []
        for axis, centre in ((0, y), (1, x)):
            window = set(range(centre - size // 2, centre - size // 2 + size))
            spans = [
                range(box[number, axis] - reach, box[number, axis + 2] + reach)
                for box in boxes
                if box[number, 2] > box[number, 0]
            ]
            hull = range(min(s.start for s in spans), max(s.stop for s in spans)) if spans else ()
            hulls.append(sorted(window & set(hull)))
        if not all(hulls):
            hulls = [[y], [x]]
        expected = [hulls[0][0], hulls[1][0], hulls[0][-1] + 1, hulls[1][-1] + 1]
        assert found[number].tolist() == expected


# Plans


def some_plan(
    seed: int, shape: tuple[int, int], edges: tuple[int, int], phase: tuple[int, int], **how: Any
) -> tuple[Plan, TileGrid, Boxes]:
    """A plan of 25 boxes, some of which reach beyond the image."""
    rng = np.random.default_rng(seed)
    count = 25
    centres = rng.integers(0, np.array(shape), (count, 2))
    low = centres - rng.integers(0, 15, (count, 2))
    boxes = np.concatenate([low, centres + rng.integers(1, 15, (count, 2))], axis=1)
    grid = TileGrid(shape, edges, phase)
    ids = rng.permutation(count) * 10**12 + 1
    return plan_cells(ids, centres, boxes, grid, **how), grid, boxes


PLANS = given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    edges=st.tuples(st.integers(5, 40), st.integers(5, 40)),
    before=st.tuples(st.integers(0, 39), st.integers(0, 39)),
    finish_inside=st.booleans(),
)


@settings(max_examples=80, deadline=None)
@PLANS
def test_cells_are_inside_a_tile_or_covered_by_fragments(
    seed: int,
    shape: tuple[int, int],
    edges: tuple[int, int],
    before: tuple[int, int],
    finish_inside: bool,
) -> None:
    phase = (before[0] % edges[0], before[1] % edges[1])
    plan, grid, boxes = some_plan(seed, shape, edges, phase, finish_inside=finish_inside)
    arrays = plan.arrays
    rows = np.concatenate([arrays["cell_row"], arrays["border_row"]])
    assert sorted(rows.tolist()) == list(range(len(boxes)))
    for kind in ("cell", "border"):
        mine = arrays[f"{kind}_row"]
        assert (arrays[f"{kind}_box"] == boxes[mine]).all()
        assert (arrays[f"{kind}_id"] == arrays["ids"][mine]).all()
    assert finish_inside or len(arrays["cell_row"]) == 0
    assert finish_inside or arrays["border_row"].tolist() == list(range(len(boxes)))

    seen = 0
    for unit in plan.units:
        if "tile" not in unit.what:
            continue
        tile = grid[unit.what["tile"]]
        (y0, x0), (y1, x1) = tile.start, tile.stop
        cells = slice(*unit.what["cells"])
        seen += cells.stop - cells.start
        for box in arrays["cell_box"][cells]:
            clipped = np.clip(box, 0, [*shape, *shape])
            assert (clipped[:2] >= (y0, x0)).all()
            assert (clipped[2:] <= (y1, x1)).all()
        start = 0
        for part in range(*unit.what["parts"]):
            box = arrays["part_box"][part]
            assert (box[:2] >= (y0, x0)).all()
            assert (box[2:] <= (y1, x1)).all()
            assert (box[2:] > box[:2]).all()
            assert arrays["part_tile"][part] == unit.what["tile"]
            assert arrays["part_start"][part] == start
            start += int((box[2:] - box[:2]).prod())
    assert seen == len(arrays["cell_row"])

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


@settings(max_examples=60, deadline=None)
@PLANS
def test_what_tiles_leave_joins_to_whole_boxes(
    seed: int,
    shape: tuple[int, int],
    edges: tuple[int, int],
    before: tuple[int, int],
    finish_inside: bool,
) -> None:
    phase = (before[0] % edges[0], before[1] % edges[1])
    plan, grid, _ = some_plan(
        *(seed, shape, edges, phase), finish_inside=finish_inside, join_pixels=400
    )
    arrays = plan.arrays
    image = np.random.default_rng(seed).integers(1, 60_000, shape).astype(np.uint16)
    left = {}
    for unit in plan.units:
        if "tile" in unit.what:
            tile = grid[unit.what["tile"]]
            parts = Cells.fragments(arrays, slice(*unit.what["parts"]), tile)
            plane = image[tile.region]
            pieces = [plane[y0:y1, x0:x1].ravel() for y0, x0, y1, x1 in parts.boxes]
            left[unit.what["tile"]] = {"pixels": np.concatenate([np.zeros(0, "u2"), *pieces])}
    wide = np.pad(image, 99)
    done = 0
    for unit in plan.units:
        if unit.stage == 1:
            rows = slice(*unit.what["cells"])
            cells = Cells.of(arrays, "border", rows, 8)
            joined = Pieces.of(arrays, rows).join(left, "pixels", cells, np.dtype("u2"))
            whole = [
                wide[y0 + 99 : y1 + 99, x0 + 99 : x1 + 99].ravel() for y0, x0, y1, x1 in cells.boxes
            ]
            assert rows.start == done, "in order, none twice"
            done = rows.stop
            assert joined.tolist() == np.concatenate(whole).tolist()
            assert (cells.corners == arrays["border_centre"][rows] - 4).all()
    assert done == len(arrays["border_id"])


def test_units_run_tiles_first_then_joins() -> None:
    boxes = np.array([[1, 1, 9, 9], [5, 5, 25, 9]])
    plan = plan_cells(np.array([5, 9]), boxes[:, :2], boxes, TileGrid((40, 40), (20, 20)))
    assert [(unit.name, unit.stage) for unit in plan.units] == [
        ("tile-000000", 0),
        ("tile-000002", 0),
        ("join-000000", 1),
    ]
    assert plan.facts == {"n_cells": 2}


def test_no_cells() -> None:
    nothing = np.zeros((0, 4), np.int64)
    plan = plan_cells(nothing[:, 0], nothing[:, :2], nothing, TileGrid((40, 40), (20, 20)))
    assert plan.units == []
    assert len(plan.arrays["ids"]) == 0


# Small and large cells in the order in which they come: (how many, pixels of the edge).
MIXES = {
    "alike": [(3000, 10)],
    "small": [(5000, 1)],
    "large": [(30, 300)],
    "small then large": [(40_000, 2), (2000, 60)],
    "large then small": [(2000, 60), (40_000, 2)],
    "by turns": [(1999, 2), (500, 60)] * 6,
    "one that is too large": [(3, 10), (1, 2000), (3, 10)],
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_joins_are_bounded(mix: list[tuple[int, int]]) -> None:
    """Neither many cells nor many pixels are joined at once, in whatever order they come."""
    limit = 100_000
    edges = np.concatenate([np.full(count, edge) for count, edge in mix])
    low = np.zeros((len(edges), 2), int)
    boxes = np.concatenate([low, low + edges[:, None]], axis=1)
    grid = TileGrid((4000, 4000), (4000, 4000))
    plan = plan_cells(
        *(np.arange(len(boxes)), low, boxes, grid), join_pixels=limit, finish_inside=False
    )
    units = [unit.what["cells"] for unit in plan.units if unit.stage == 1]
    assert [first for first, _ in units] == [0, *(stop for _, stop in units[:-1])]
    assert units[-1][1] == len(boxes)
    pixels = box_pixels(boxes)
    for first, stop in units:
        assert 0 < stop - first <= JOIN_CELLS + 1
        assert pixels[first:stop].sum() < limit + pixels[first:stop].max()
    # And not many more units than it takes.
    assert len(units) <= 2 + 2 * (pixels.sum() / limit + len(boxes) / JOIN_CELLS)
