"""The cell index of a tile: what a single pass over a label array tells about each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, as_unsigned, flattened, frozen
from ._jit import jit

# Columns of the records that the scan fills.
_ID, _AREA, _SUM_Z, _SUM_Y, _SUM_X, _Z0, _Y0, _X0, _Z1, _Y1, _X1, _COLUMNS = range(12)


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
def _slot(keys: Int64, key: np.int64) -> np.int64:
    """Find the place of ``key`` in an open-addressing table (0 is empty), or where it belongs."""
    mask = keys.size - 1
    h = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    place = np.int64(h >> np.uint64(32)) & mask
    while keys[place] != 0 and keys[place] != key:
        place = (place + 1) & mask
    return place


@jit
def _scan_row(
    row: Array,
    z: int,
    y: int,
    x0: int,
    top: int,
    records: Int64,
    count: int,
    keys: Int64,
    places: npt.NDArray[np.int32],
) -> tuple[int, bool]:
    """Add the runs of a row; a run costs O(1). There is room for as many labels as pixels.

    Returns the number of records, and whether labels above ``top`` were met (and left out).
    """
    beyond = False
    last_key = np.int64(0)
    last = np.int64(0)
    n = row.size
    x = 0
    while x < n:
        value = row[x]
        if value == 0:
            x += 1
            continue
        start = x
        x += 1
        while x < n and row[x] == value:
            x += 1
        if value > top:
            beyond = True
            continue
        key = np.int64(value)
        begin = start + x0
        end = x + x0
        if key != last_key:
            last_key = key
            place = _slot(keys, key)
            last = np.int64(places[place])
            if keys[place] == 0:
                last = np.int64(count)
                count += 1
                keys[place] = key
                places[place] = last
                records[last, _ID] = key
                records[last, _AREA] = 0
                records[last, _SUM_Z] = 0
                records[last, _SUM_Y] = 0
                records[last, _SUM_X] = 0
                records[last, _Z0] = z
                records[last, _Y0] = y
                records[last, _X0] = begin
                records[last, _Y1] = y + 1
                records[last, _X1] = end
        length = end - begin
        records[last, _AREA] += length
        records[last, _SUM_Z] += z * length
        records[last, _SUM_Y] += y * length
        records[last, _SUM_X] += x0 * length + (start + x - 1) * length // 2
        records[last, _Z1] = z + 1  # z only grows
        records[last, _Y0] = min(records[last, _Y0], y)
        records[last, _Y1] = max(records[last, _Y1], y + 1)
        records[last, _X0] = min(records[last, _X0], begin)
        records[last, _X1] = max(records[last, _X1], end)
    return count, beyond


@jit
def _rehash(records: Int64, count: int, keys: Int64, places: npt.NDArray[np.int32]) -> None:
    """Enter all records into a new table."""
    for i in range(count):
        place = _slot(keys, records[i, _ID])
        keys[place] = records[i, _ID]
        places[place] = i


@jit
def _scan(
    flat: Array, shape: tuple[int, int, int], steps: tuple[int, ...], top: int, origin: Int64
) -> tuple[Int64, bool]:
    """Walk over all rows, with room in records and table for what a row may bring."""
    nz, ny, nx = shape
    count = 0
    beyond = False
    records = np.empty((nx, _COLUMNS), np.int64)
    keys = np.zeros(0, np.int64)
    places = np.zeros(0, np.int32)
    size = 256
    for z in range(nz):
        for y in range(ny):
            need = count + nx
            if need > records.shape[0]:
                wider = np.empty((2 * need, _COLUMNS), np.int64)
                wider[:count] = records[:count]
                records = wider
            if 2 * need > keys.size:
                while 2 * need > size:
                    size *= 2
                keys = np.zeros(size, np.int64)
                places = np.empty(size, np.int32)
                _rehash(records, count, keys, places)
            begin = z * steps[0] + y * steps[1]
            row = flat[begin : begin + nx]
            count, above = _scan_row(
                row, z + origin[0], y + origin[1], origin[2], top, records, count, keys, places
            )
            beyond = beyond or above
    return records[:count], beyond


def label_partials(labels: Array, origin: npt.ArrayLike = (0, 0, 0)) -> LabelPartials:
    """Area, coordinate sums and bounding box of each label of a tile.

    One pass over the runs along x; the sum over a run is that of an arithmetic series. Memory
    grows with the number of labels, never with the largest id.

    Parameters
    ----------
    labels : (z, y, x), any integer dtype
        0 is background and left out.
    origin : (3,) int
        Global coordinates z, y, x of the tile's first pixel.

    Raises
    ------
    TypeError
        ``labels`` are no integers.
    ValueError
        ``labels`` have not three axes.
    """
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, not {labels.dtype}")
    if labels.ndim != 3:
        raise ValueError(f"labels must have the axes (z, y, x), not the shape {labels.shape}")
    top = min(int(np.iinfo(labels.dtype).max), 2**63 - 1)
    flat, steps = flattened(as_unsigned(labels))
    at = np.ascontiguousarray(origin, dtype=np.int64).copy()
    records, beyond = _scan(flat, labels.shape, steps, flat.dtype.type(top), at)
    records = records[np.argsort(records[:, _ID])]
    signed = labels.dtype.kind == "i"
    return LabelPartials(
        ids=records[:, _ID].copy(),
        area=records[:, _AREA].copy(),
        sums=records[:, _SUM_Z:_Z0].copy(),
        box=records[:, _Z0:].copy(),
        negative=bool(beyond and signed),
        too_large=bool(beyond and not signed),
    )


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
