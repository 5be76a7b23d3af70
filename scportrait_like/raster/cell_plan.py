"""The plan of a run over cells: which pixels each needs, and how they are cut along tiles.

A cell needs its *box*: the bounding box of its label (and a few pixels around) inside its window. A
cell whose box lies in one tile is finished there. Of the others each tile saves the *fragment* that
it holds, and a second stage joins them. So every chunk is decoded once, whatever the window.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.raster.tiles import TileGrid
from scportrait_like.run.plan import Plan, Unit

# Border cells, and pixels of their boxes, of a unit of the second stage; all are held at once.
JOIN_CELLS: Final = 2000
JOIN_PIXELS: Final = 4 << 20


def cell_boxes(
    centres: NDArray[np.int64], size: int, boxes: list[NDArray[np.int64]], reach: int = 0
) -> NDArray[np.int64]:
    """Pixels that windows need of their cells.

    Parameters
    ----------
    centres
        (n, 2) = (y, x) of the windows, which begin ``size // 2`` before.
    size
        Edge of the windows.
    boxes
        A list of bounding boxes (n, 4), one a mask; a mask without the cell has an empty box.
    reach
        So many pixels around belong to the cell too.

    Returns
    -------
    ndarray
        (n, 4) int64: the hull of the boxes, grown by `reach`, inside the window. Where nothing of
        the label lies in its window (pieces far apart), the pixel at the centre.
    """
    low = np.full(centres.shape, np.iinfo(np.int64).max)
    high = np.full(centres.shape, np.iinfo(np.int64).min)
    for box in boxes:
        there = (box[:, 2] > box[:, 0])[:, None]
        low = np.where(there, np.minimum(low, box[:, :2] - reach), low)
        high = np.where(there, np.maximum(high, box[:, 2:] + reach), high)
    corners = centres - size // 2
    low = np.maximum(low, corners)
    high = np.minimum(high, corners + size)
    empty = (low >= high).any(axis=1)
    low[empty], high[empty] = centres[empty], centres[empty] + 1
    return np.concatenate([low, high], axis=1)


def plan_cells(
    ids: NDArray[np.int64],
    centres: NDArray[np.int64],
    boxes: NDArray[np.int64],
    grid: TileGrid,
    join_pixels: int = JOIN_PIXELS,
    *,
    finish_inside: bool = True,
) -> Plan:
    """Units and look-up arrays of a run over cells.

    Parameters
    ----------
    ids, centres, boxes
        Of the output's rows, in their order; boxes from `cell_boxes`.
    grid
        Tiles, aligned to the chunks of image and masks.
    join_pixels
        Pixels of boxes that a unit of the second stage holds at once.
    finish_inside
        False: cells inside a tile leave fragments too, so that all are finished in their order.

    Returns
    -------
    Plan
        Units ``tile-*`` (stage 0) finish the cells inside a tile and save fragments; ``join-*``
        (stage 1) finish the cells on tile borders. Arrays: ``cell_*`` of the cells inside tiles,
        by tile; ``border_*`` of those on borders; ``part_*`` of the fragments, by tile; ``ids`` of
        all rows, and the ``grid``.
    """
    inside, owner, first, last = _locate(boxes, grid)
    inside &= finish_inside
    inner = np.flatnonzero(inside)
    inner = inner[np.argsort(owner[inner], kind="stable")]
    outer = np.flatnonzero(~inside)
    if finish_inside:  # neighbours together; else in the order of the rows
        outer = outer[np.argsort(owner[outer], kind="stable")]
    parts = _fragments(boxes[outer], first[outer], last[outer], grid)
    arrays = {
        **_cells("cell", inner, ids, centres, boxes),
        **_cells("border", outer, ids, centres, boxes),
        **parts,
    }
    tiles = np.arange(len(grid) + 1)
    cell_starts = np.searchsorted(owner[inner], tiles)
    part_starts = np.searchsorted(parts["part_tile"], tiles)
    units = [
        Unit(
            f"tile-{tile:06d}",
            0,
            {
                "tile": tile,
                "cells": [int(cell_starts[tile]), int(cell_starts[tile + 1])],
                "parts": [int(part_starts[tile]), int(part_starts[tile + 1])],
            },
        )
        for tile in range(len(grid))
        if cell_starts[tile] < cell_starts[tile + 1] or part_starts[tile] < part_starts[tile + 1]
    ]
    for number, cells in enumerate(_joins(boxes[outer], join_pixels)):
        units.append(Unit(f"join-{number:06d}", 1, {"cells": cells}))
    arrays |= {"grid": grid.array, "ids": ids}
    return Plan(units, arrays, {"n_cells": len(ids)})


def _joins(boxes: NDArray[np.int64], pixels: int) -> list[list[int]]:
    """Cut the border cells into units of at most so many cells, and about so many pixels."""
    # A cell counts as so many pixels at least that no unit has more than `JOIN_CELLS`.
    ends = np.cumsum(np.maximum(box_pixels(boxes), -(-pixels // JOIN_CELLS)))
    group = ends // pixels
    starts = [*np.flatnonzero(np.diff(group, prepend=-1)).tolist(), len(boxes)]
    return [list(cells) for cells in pairwise(starts)]


def box_pixels(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels of each box (n, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def _locate(
    boxes: NDArray[np.int64], grid: TileGrid
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Whether each box lies in one tile, its first tile, and the (row, column) of first and last.

    Only the part of a box that lies in the image counts.
    """
    shape, edges, phase = grid.array
    first = (np.clip(boxes[:, :2], 0, shape - 1) + phase) // edges
    last = (np.clip(boxes[:, 2:] - 1, 0, shape - 1) + phase) // edges
    owner = first[:, 0] * grid.counts[1] + first[:, 1]
    return (first == last).all(axis=1), owner, first, last


def _cells(
    name: str,
    rows: NDArray[np.int64],
    ids: NDArray[np.int64],
    centres: NDArray[np.int64],
    boxes: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    return {
        f"{name}_row": rows,
        f"{name}_id": ids[rows],
        f"{name}_centre": centres[rows],
        f"{name}_box": boxes[rows],
    }


def _fragments(
    boxes: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    grid: TileGrid,
) -> dict[str, NDArray[Any]]:
    """Cut the boxes of border cells along the tiles' borders.

    Returns
    -------
    dict
        By tile: ``part_tile``, ``part_cell`` (position among the border cells), ``part_box`` in
        image coordinates, ``part_start`` (first pixel in its tile's buffer); and by cell:
        ``border_parts`` (positions of fragments), ``border_part_starts``.
    """
    span = last - first + 1
    count = span.prod(axis=1)
    cell = np.repeat(np.arange(len(boxes)), count)
    number = np.arange(len(cell)) - np.repeat(np.cumsum(count) - count, count)
    row = first[cell, 0] + number // span[cell, 1]
    column = first[cell, 1] + number % span[cell, 1]
    tile = row * grid.counts[1] + column
    corner = np.stack([row, column], axis=1) * grid.edges - np.asarray(grid.phase)
    low = np.maximum(boxes[cell, :2], np.maximum(corner, 0))
    high = np.minimum(boxes[cell, 2:], np.minimum(corner + grid.edges, grid.shape))
    order = np.argsort(tile, kind="stable")
    tile, cell = tile[order], cell[order]
    box = np.concatenate([low, high], axis=1)[order]
    pixels = box_pixels(box)
    ends = np.cumsum(pixels)
    starts = ends - pixels
    leads = np.searchsorted(tile, tile)  # the first fragment of each one's tile
    by_cell = np.argsort(cell, kind="stable")
    return {
        "part_tile": tile,
        "part_cell": cell,
        "part_box": box,
        "part_start": starts - starts[leads] if len(starts) else starts,
        "border_parts": by_cell,
        "border_part_starts": np.searchsorted(cell[by_cell], np.arange(len(boxes) + 1)),
    }
