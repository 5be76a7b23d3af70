"""Labels as runs: where the pixels of each label lie, found once and used by all channels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, as_unsigned, checked_output, flattened, frozen
from ._jit import jit

Int32 = npt.NDArray[np.int32]


class LabelRuns(NamedTuple):
    """The runs (equal pixels along x) of a tile, grouped by label.

    Attributes
    ----------
    ids : (k,) int64
        Labels, ascending.
    area : (k,) int64
        Pixels.
    offsets : (k + 1,) int64
        Where each label's runs begin.
    starts : (r,) int64
        First pixel of each run, counted in the tile's row-major order; ascending within a label.
    lengths : (r,) int64
        Pixels of each run; a run ends with its row.
    negative : bool
        A negative label was met; it is left out.
    too_large : bool
        A label above 2**63 - 1 was met; it is left out.
    """

    ids: Int64
    area: Int64
    offsets: Int64
    starts: Int64
    lengths: Int64
    negative: bool = False
    too_large: bool = False

    def take(self, rows: Int64) -> LabelRuns:
        """Return the runs of some labels, by ascending position."""
        counts = np.diff(self.offsets)[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        which = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return LabelRuns(
            self.ids[rows],
            self.area[rows],
            offsets,
            self.starts[which],
            self.lengths[which],
            self.negative,
            self.too_large,
        )


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
def _count_runs(flat: Array, shape: tuple[int, int, int], steps: tuple[int, ...]) -> np.int64:
    """Count the runs, background included: room for them all."""
    nz, ny, nx = shape
    count = np.int64(0)
    for z in range(nz):
        for y in range(ny):
            begin = z * steps[0] + y * steps[1]
            row = flat[begin : begin + nx]
            here = np.int32(nx > 0)
            for x in range(1, nx):
                here += np.int32(row[x] != row[x - 1])
            count += here
    return count


@jit
def _run_ends(row: Array, ends: Int32) -> np.int64:
    """Fill in where the runs of a row end, and return their number; no branch is mispredicted."""
    count = np.int64(0)
    for x in range(1, row.size):
        ends[count] = x
        count += row[x] != row[x - 1]
    ends[count] = row.size
    return count + (row.size > 0)


@jit
def _label_row(
    row: Array,
    first: int,
    ends: Int32,
    top: int,
    background: bool,
    ids: Int64,
    met: int,
    keys: Int64,
    places: Int32,
    starts: Int64,
    lengths: Int64,
    slots: Int32,
) -> tuple[int, int, bool]:
    """Write the runs of a row that begins at pixel ``first``; there is room for new labels.

    Returns the numbers of runs and of labels, and whether a label above ``top`` was left out. The
    background is entered as -1.
    """
    runs = 0
    beyond = False
    last_key = np.int64(0)
    last = np.int64(0)
    x = np.int64(0)
    for i in range(ends.size):
        end = np.int64(ends[i])
        value, begin, x = row[x], x, end
        if value > top or (value == 0 and not background):
            beyond |= value > top
            continue
        key = np.int64(value)
        if key == 0:
            key = np.int64(-1)  # 0 is the table's mark of an empty place
        if key != last_key:
            last_key = key
            place = _slot(keys, key)
            if keys[place] == 0:
                keys[place] = key
                places[place] = met
                ids[met] = key
                met += 1
            last = np.int64(places[place])
        starts[runs] = first + begin
        lengths[runs] = end - begin
        slots[runs] = last
        runs += 1
    return runs, met, beyond


@jit
def _find_runs(
    flat: Array,
    shape: tuple[int, int, int],
    steps: tuple[int, ...],
    top: int,
    background: bool,
    starts: Int64,
    lengths: Int64,
    slots: Int32,
) -> tuple[int, Int64, bool]:
    """Fill in the runs in row-major order, each with the number of its label as first met.

    Returns the number of runs, the labels as first met (the background as -1), and whether labels
    above ``top`` were met (and left out).
    """
    nz, ny, nx = shape
    beyond = False
    runs = met = 0
    size = 1024
    ids, keys, places = np.empty(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32)
    ends = np.empty(nx + 1, np.int32)
    for line in range(nz * ny):
        begin = (line // ny) * steps[0] + (line % ny) * steps[1]
        row = flat[begin : begin + nx]
        count = _run_ends(row, ends)
        if met + count > ids.size:
            while 2 * (met + count) > size:
                size *= 2
            wider = np.empty(size // 2, np.int64)
            wider[:met] = ids[:met]
            ids, keys, places = wider, np.zeros(size, np.int64), np.zeros(size, np.int32)
            for label in range(met):
                place = _slot(keys, ids[label])
                keys[place] = ids[label]
                places[place] = label
        added, met, above = _label_row(
            row,
            line * nx,
            ends[:count],
            top,
            background,
            ids,
            met,
            keys,
            places,
            starts[runs:],
            lengths[runs:],
            slots[runs:],
        )
        runs += added
        beyond |= above
    return runs, ids[:met], beyond


@jit
def _group(
    starts: Int64, lengths: Int64, slots: Int32, rank: Int64, grouped: Int64, area: Int64
) -> Int64:
    """Sort runs by the rank of their label: ``grouped`` (2, r) becomes starts and lengths."""
    offsets = np.zeros(rank.size + 1, np.int64)
    for i in range(slots.size):
        label = rank[slots[i]]
        offsets[label + 1] += 1
        area[label] += lengths[i]
    for label in range(rank.size):
        offsets[label + 1] += offsets[label]
    at = offsets[:-1].copy()
    for i in range(slots.size):
        label = rank[slots[i]]
        grouped[0, at[label]] = starts[i]
        grouped[1, at[label]] = lengths[i]
        at[label] += 1
    return offsets


def label_runs(labels: Array, *, background: bool = False) -> LabelRuns:
    """Find the runs of each label of a tile.

    Memory grows with the runs and labels that are there, never with the largest id.

    Parameters
    ----------
    labels : (z, y, x), any integer dtype
    background
        Whether 0 is a label too.

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
    room = _count_runs(flat, labels.shape, steps)
    starts, lengths = np.empty(room, np.int64), np.empty(room, np.int64)
    slots = np.empty(room, np.int32)
    runs, met, beyond = _find_runs(
        flat, labels.shape, steps, flat.dtype.type(top), background, starts, lengths, slots
    )
    met[met == -1] = 0
    order = np.argsort(met)
    rank = np.empty(len(met), np.int64)
    rank[order] = np.arange(len(met))
    grouped, area = np.empty((2, runs), np.int64), np.zeros(len(met), np.int64)
    offsets = _group(starts[:runs], lengths[:runs], slots[:runs], rank, grouped, area)
    signed = labels.dtype.kind == "i"
    return LabelRuns(
        met[order],
        area,
        offsets,
        grouped[0],
        grouped[1],
        negative=bool(beyond and signed),
        too_large=bool(beyond and not signed),
    )


@jit
def _gather(flat: Array, starts: Int64, lengths: Int64, out: Array) -> None:
    # Most runs are short, so blocks of a fixed length are moved, the last one over the one before.
    # Unsigned positions need no test for negative ones.
    wide, narrow = np.uint64(16), np.uint64(4)
    at = np.uint64(0)
    for i in range(starts.size):
        source, count = np.uint64(starts[i]), np.uint64(lengths[i])
        if count >= wide:
            for block in range(count // wide):
                for x in range(wide):
                    out[at + block * wide + x] = flat[source + block * wide + x]
            last = count - wide
            for x in range(wide):
                out[at + last + x] = flat[source + last + x]
        elif count >= narrow:
            for block in range(count // narrow):
                for x in range(narrow):
                    out[at + block * narrow + x] = flat[source + block * narrow + x]
            last = count - narrow
            for x in range(narrow):
                out[at + last + x] = flat[source + last + x]
        else:
            for x in range(count):
                out[at + x] = flat[source + x]
        at += count


def gather_runs(pixels: Array, starts: npt.ArrayLike, lengths: npt.ArrayLike, out: Array) -> None:
    """Copy runs one after the other.

    Parameters
    ----------
    pixels : any shape, any dtype of 1, 2, 4 or 8 bytes
        C-contiguous; runs count its pixels in row-major order. Bounds are not checked.
    starts, lengths : (r,) int64
    out : (sum of lengths,), dtype of ``pixels``
        Overwritten.
    """
    begin, length = frozen(starts, np.int64), frozen(lengths, np.int64)
    flat, _ = flattened(as_unsigned(np.ascontiguousarray(pixels).reshape(-1)))
    target = as_unsigned(checked_output(out, pixels.dtype.newbyteorder("=")))
    _gather(flat, begin, length, target)
