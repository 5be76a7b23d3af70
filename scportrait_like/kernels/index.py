"""The cell index of a tile: what a single pass over a label array tells about each label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, frozen
from ._jit import jit
from .runs import LabelRuns, label_runs


class LabelPartials(NamedTuple):
    """What one tile, or several merged ones, knows about its k labels, by ascending id.

    Attributes
    ----------
    ids : (k,) int64
    area : (k,) int64
        Pixels.
    sums : (k, 3) int64
        Sums of the global coordinates z, y, x: exact; divided by ``area`` they are the centroid.
    box : (k, 6) int64
        Bounding box z0, y0, x0, z1, y1, x1 in global coordinates, half open.
    negative : bool
        A negative label was met; it is left out.
    too_large : bool
        A label above 2**63 - 1 was met; it is left out.
    """

    ids: Int64
    area: Int64
    sums: Int64
    box: Int64
    negative: bool = False
    too_large: bool = False


@jit
def _measure(
    offsets: Int64,
    starts: Int64,
    lengths: Int64,
    shape: tuple[int, int, int],
    origin: Int64,
    sums: Int64,
    box: Int64,
) -> None:
    """Coordinate sums and boxes from runs; a run costs O(1)."""
    _, ny, nx = shape
    for label in range(offsets.size - 1):
        z_sum = y_sum = x_sum = np.int64(0)
        low_y, low_x = np.int64(ny), np.int64(nx)
        high_y = high_x = z = np.int64(0)
        for i in range(offsets[label], offsets[label + 1]):
            line, x = divmod(starts[i], nx)
            z, y = divmod(line, ny)
            n = lengths[i]
            z_sum += z * n
            y_sum += y * n
            x_sum += x * n + n * (n - 1) // 2
            low_y, high_y = min(low_y, y), max(high_y, y + 1)
            low_x, high_x = min(low_x, x), max(high_x, x + n)
        low_z = starts[offsets[label]] // (ny * nx)  # runs ascend
        area = lengths[offsets[label] : offsets[label + 1]].sum()
        sums[label, 0] = z_sum + area * origin[0]
        sums[label, 1] = y_sum + area * origin[1]
        sums[label, 2] = x_sum + area * origin[2]
        box[label, 0], box[label, 3] = low_z + origin[0], z + 1 + origin[0]
        box[label, 1], box[label, 4] = low_y + origin[1], high_y + origin[1]
        box[label, 2], box[label, 5] = low_x + origin[2], high_x + origin[2]


def run_partials(
    runs: LabelRuns, shape: tuple[int, int, int], origin: npt.ArrayLike = (0, 0, 0)
) -> LabelPartials:
    """Area, coordinate sums and bounding box of each label of a tile, from its runs.

    Parameters
    ----------
    runs
        Of the tile.
    shape
        (z, y, x) of the tile.
    origin : (3,) int
        Global coordinates z, y, x of the tile's first pixel.
    """
    k = len(runs.ids)
    sums, box = np.empty((k, 3), np.int64), np.empty((k, 6), np.int64)
    at = frozen(origin, np.int64)
    offsets, starts = frozen(runs.offsets, np.int64), frozen(runs.starts, np.int64)
    _measure(offsets, starts, frozen(runs.lengths, np.int64), shape, at, sums, box)
    return LabelPartials(runs.ids, runs.area, sums, box, runs.negative, runs.too_large)


def label_partials(
    labels: Array, origin: npt.ArrayLike = (0, 0, 0), *, background: bool = False
) -> LabelPartials:
    """Area, coordinate sums and bounding box of each label of a tile.

    Parameters
    ----------
    labels : (z, y, x), any integer dtype
    origin : (3,) int
        Global coordinates z, y, x of the tile's first pixel.
    background
        Whether 0 is a label too.

    Raises
    ------
    TypeError
        ``labels`` are no integers.
    ValueError
        ``labels`` have not three axes.
    """
    return run_partials(label_runs(labels, background=background), labels.shape, origin)


@jit
def _fold(
    slots: Int64,
    part_area: Int64,
    part_sums: Int64,
    part_box: Int64,
    area: Int64,
    sums: Int64,
    box: Int64,
    tiles: npt.NDArray[np.int32],
) -> None:
    """Add the labels of one part to the rows ``slots`` of the result."""
    for i in range(slots.size):
        row = slots[i]
        new = tiles[row] == 0
        tiles[row] += 1
        area[row] += part_area[i]
        for axis in range(3):
            sums[row, axis] += part_sums[i, axis]
            low, high = part_box[i, axis], part_box[i, axis + 3]
            box[row, axis] = low if new else min(box[row, axis], low)
            box[row, axis + 3] = high if new else max(box[row, axis + 3], high)


def merge_partials(
    partials: Sequence[LabelPartials],
) -> tuple[LabelPartials, npt.NDArray[np.int32]]:
    """Merge the partials of disjoint tiles.

    The ids are sorted once; then part by part is added to the result, so that besides it only
    three columns are held.

    Returns
    -------
    The merged partials, by ascending id, and how many of the given ones held each id: (k,) int32.
    """
    ids = np.concatenate([np.zeros(0, np.int64), *[part.ids for part in partials]])
    order = np.argsort(ids, kind="stable")  # merges runs that are sorted already
    ids = ids[order]
    first = np.ones(len(ids), bool)
    np.not_equal(ids[1:], ids[:-1], out=first[1:])
    slots = np.empty(len(ids), np.int64)
    slots[order] = np.cumsum(first) - 1
    del order
    ids = ids[first]
    k = len(ids)
    area, sums = np.zeros(k, np.int64), np.zeros((k, 3), np.int64)
    box, tiles = np.zeros((k, 6), np.int64), np.zeros(k, np.int32)
    begin = 0
    for part in partials:
        mine = slots[begin : begin + len(part.ids)]
        part_area, part_sums = frozen(part.area, np.int64), frozen(part.sums, np.int64)
        part_box = frozen(part.box, np.int64)
        _fold(frozen(mine, np.int64), part_area, part_sums, part_box, area, sums, box, tiles)
        begin += len(mine)
    negative = any(part.negative for part in partials)
    too_large = any(part.too_large for part in partials)
    return LabelPartials(ids, area, sums, box, negative, too_large), tiles


# Labels of tiles that wait to be merged, at least: merging sorts all ids.
_WAITING = 1 << 18


def merge_in_passing(partials: Iterable[LabelPartials]) -> LabelPartials:
    """Merge the partials of disjoint tiles as they come.

    Memory grows with the labels, however many tiles each of them is in.
    """
    merged, waiting, count = None, [], 0
    for part in partials:
        waiting.append(part)
        count += len(part.ids)
        if count > max(_WAITING, 0 if merged is None else len(merged.ids)):
            merged, _ = merge_partials(waiting)
            waiting, count = [merged], 0
    return merge_partials(waiting)[0]
