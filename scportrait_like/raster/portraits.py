"""Portraits: which pixels each cell's picture needs, and the work of cutting them.

A picture is zero beyond four pixels of its mask (the reach of the blur), so a cell needs only its
*box*: the bounding box of its label, grown by four, inside its window. A cell whose box lies in one
tile is finished there. Of the others each tile saves the *fragment* that it holds, and a second
stage joins them. So every chunk is decoded once, whatever the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.raster.index import CellIndex
from scportrait_like.raster.tiles import TileGrid
from scportrait_like.run.plan import Plan, Unit

REACH: Final = 4  # pixels: a blur of sigma 1, cut at 4 sigma
# Border cells, and pixels of their boxes, of a unit of the second stage; all are held at once.
JOIN_CELLS: Final = 2000
JOIN_PIXELS: Final = 4 << 20


@dataclass(frozen=True)
class Pick:
    """Which labels become rows, and what becomes of the others.

    Attributes
    ----------
    index
        Of the mask that gives the centroids, all its labels.
    rows
        Positions in `index` of the output's rows, in their order.
    centres
        Rounded centroids (n, 2) = (y, x) of all labels of `index`, int64.
    dropped
        Of all labels of `index`: too near to the border for their window.
    selected
        Of all labels of `index`: picked (all of them in a full run).
    """

    index: CellIndex
    rows: NDArray[np.int64]
    centres: NDArray[np.int64]
    dropped: NDArray[np.bool_]
    selected: NDArray[np.bool_]


def pick_cells(
    index: CellIndex, size: int, border: str, n_cells: int | None = None, seed: int = 42
) -> Pick:
    """Decide which labels get a picture.

    Parameters
    ----------
    index
        Of the mask that gives the centroids.
    size
        Edge of the window in pixels, even.
    border
        ``"discard"``: a label whose window is not strictly inside the image is dropped;
        ``"pad"``: none is, and pixels outside the image are zero.
    n_cells
        Pick so many at random, before border removal, in the order of the pick; None picks all, by
        ascending id.
    seed
        Of the pick: ``numpy.random.default_rng(seed).choice(N, n_cells, replace=False)``.
    """
    centres = np.rint(index.centroid).astype(np.int64)
    half = size // 2
    dropped = np.zeros(len(index), bool)
    if border == "discard":
        limit = np.asarray(index.shape) - half
        dropped |= ((centres <= half) | (centres >= limit)).any(axis=1)
    if n_cells is None:
        order = np.arange(len(index))
    else:
        order = np.random.default_rng(seed).choice(len(index), n_cells, replace=False)
    selected = np.zeros(len(index), bool)
    selected[order] = True
    return Pick(index, order[~dropped[order]], centres, dropped, selected)


def cell_boxes(
    centres: NDArray[np.int64], half: int, boxes: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Pixels that the pictures need.

    Parameters
    ----------
    centres
        (n, 2) = (y, x) of the windows.
    half
        Half the window's edge.
    boxes
        A list of bounding boxes (n, 4), one a mask; a mask without the cell has an empty box.

    Returns
    -------
    ndarray
        (n, 4) int64: the hull of the boxes, grown by `REACH`, inside the window. Where nothing of
        the label lies in its window (pieces far apart), the pixel at the centre.
    """
    low = np.full(centres.shape, np.iinfo(np.int64).max)
    high = np.full(centres.shape, np.iinfo(np.int64).min)
    for box in boxes:
        there = (box[:, 2] > box[:, 0])[:, None]
        low = np.where(there, np.minimum(low, box[:, :2] - REACH), low)
        high = np.where(there, np.maximum(high, box[:, 2:] + REACH), high)
    low = np.maximum(low, centres - half)
    high = np.minimum(high, centres + half)
    empty = (low >= high).any(axis=1)
    low[empty], high[empty] = centres[empty], centres[empty] + 1
    return np.concatenate([low, high], axis=1)


def plan_portraits(
    ids: NDArray[np.int64],
    centres: NDArray[np.int64],
    boxes: NDArray[np.int64],
    grid: TileGrid,
) -> Plan:
    """Units and look-up arrays of a run.

    Parameters
    ----------
    ids, centres, boxes
        Of the output's rows, in their order; boxes from `cell_boxes`.
    grid
        Tiles, aligned to the chunks of image and masks.

    Returns
    -------
    Plan
        Units ``tile-*`` (stage 0) finish the cells inside a tile and save fragments; ``join-*``
        (stage 1) finish the cells on tile borders. Arrays: ``cell_*`` of the cells inside tiles,
        by tile; ``border_*`` of those on borders; ``part_*`` of the fragments, by tile.
    """
    inside, owner, first, last = _locate(boxes, grid)
    inner = np.flatnonzero(inside)
    inner = inner[np.argsort(owner[inner], kind="stable")]
    outer = np.flatnonzero(~inside)
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
    for number, cells in enumerate(_joins(boxes[outer])):
        units.append(Unit(f"join-{number:06d}", 1, {"cells": cells}))
    return Plan(units, arrays, {"n_cells": len(ids)})


def _joins(boxes: NDArray[np.int64]) -> list[list[int]]:
    """Cut the border cells into units of at most so many cells, and about so many pixels."""
    ends = np.cumsum(box_pixels(boxes))
    group = np.maximum(np.arange(len(boxes)) // JOIN_CELLS, ends // JOIN_PIXELS)
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
    shape, edges = np.asarray(grid.shape), np.asarray(grid.edges)
    first = np.clip(boxes[:, :2], 0, shape - 1) // edges
    last = np.clip(boxes[:, 2:] - 1, 0, shape - 1) // edges
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
    corner = np.stack([row, column], axis=1) * np.asarray(grid.edges)
    low = np.maximum(boxes[cell, :2], corner)
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
