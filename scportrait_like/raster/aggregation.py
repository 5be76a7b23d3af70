"""The work of an aggregation: a tile's labels become runs, and all channels are walked along them.

Each chunk is decoded once, however many statistics are asked for. A tile leaves, for the labels
that it saw, their geometry and the measures of each channel; quantiles of labels inside it are
final, of those that cross into other tiles their pixels are left, and a second, small stage joins
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import LabelRuns, gather_runs, label_runs, run_partials
from scportrait_like.raster.index import as_volume, refuse_ids
from scportrait_like.raster.ranks import (
    Distinct,
    batches,
    padded_batches,
    select_ranks,
    take_ranks,
)
from scportrait_like.raster.reading import Check, Reading
from scportrait_like.raster.sources import Source
from scportrait_like.raster.statistics import Measure, Rank, Vectors
from scportrait_like.raster.tiles import Tile, TileGrid
from scportrait_like.run.memory import allow_open_files
from scportrait_like.run.plan import Unit, load_arrays
from scportrait_like.run.unitfile import UnitReader, UnitWriter

# Channels whose figures stand in one array of a unit's file.
CHANNELS_TOGETHER: Final = 8
# Pixels of the labels that are worked on at once: a megabyte of 16 bits stays in a core's cache.
_PIXELS_TOGETHER: Final = 1 << 19
# And that are sorted at once, in rows as long as the longest.
_SORTED_TOGETHER: Final = 1 << 17


@dataclass(frozen=True)
class AggregationTask:
    """The task of an aggregation: everything that a worker needs, small and picklable.

    Attributes
    ----------
    labels
        ([z,] y, x).
    what
        Name of the mask, for messages.
    image
        (c, [z,] y, x), or None: only the labels' geometry is wanted.
    channels
        Positions of the channels.
    measures, ranks
        What is taken of each label and channel.
    background
        Whether 0 is a label too.
    only_wanted
        Whether the plan lists the ids that are wanted.
    plan_path, units_path
        Where the plan's arrays and the finished units lie.
    """

    labels: Source
    what: str
    image: Source | None
    channels: tuple[int, ...]
    measures: tuple[Measure, ...]
    ranks: tuple[Rank, ...]
    background: bool
    only_wanted: bool
    plan_path: Path
    units_path: Path

    def __call__(
        self, unit: Unit, out: UnitWriter, batch_size: int, check: Check
    ) -> Mapping[str, float]:
        """Work on one unit."""
        reading = Reading(check)
        if "tile" in unit.what:
            wanted = ["wanted"] if self.only_wanted else []
            arrays = load_arrays(self.plan_path, ["grid", "light", "heavy", *wanted])
            tile = TileGrid.of(arrays["grid"])[unit.what["tile"]]
            _TileWork(self, arrays, tile, out, reading).go()
        else:
            _join(self, unit, out, reading)
        return reading.parts

    @property
    def blocks(self) -> list[range]:
        """Places in `channels` whose figures stand together."""
        count = len(self.channels)
        step = CHANNELS_TOGETHER
        return [range(start, min(start + step, count)) for start in range(0, count, step)]


@dataclass
class _TileWork:
    """One tile under way."""

    task: AggregationTask
    arrays: Mapping[str, NDArray[Any]]
    tile: Tile
    out: UnitWriter
    reading: Reading

    def go(self) -> None:
        runs = self._runs()
        light, heavy = (np.isin(runs.ids, self.arrays[kind]) for kind in ("light", "heavy"))
        crossing = light | heavy
        self.light, self.heavy = (runs.take(np.flatnonzero(kind)) for kind in (light, heavy))
        self.out.put("light", self.light.ids)
        self.out.put("light_area", self.light.area)
        self.out.put("heavy", self.heavy.ids)
        if self.task.image is None or not len(runs.ids) or not self._asks:
            return
        self.n_labels = len(runs.ids)
        self.batches = list(_batches(runs, np.arange(self.n_labels)))
        self.sorted = list(self._inner(runs, crossing)) if self.task.ranks else []
        planes = self.reading.planes(self.task.image, self.task.channels, self.tile)
        for number, block in enumerate(self.task.blocks):
            self._block(number, block, planes)

    @property
    def _asks(self) -> bool:
        """Whether anything is asked of the pixels."""
        return bool(self.task.measures or self.task.ranks)

    @staticmethod
    def _inner(runs: LabelRuns, crossing: NDArray[np.bool_]) -> Iterator[_Batch]:
        """Labels whose quantiles are final here; those of one size are sorted without waste."""
        rows = np.flatnonzero(~crossing)
        return _sorted_batches(runs.take(rows), rows)

    def _runs(self) -> LabelRuns:
        labels = self.reading.read(self.task.labels, self.tile.region)
        volume, start = as_volume(labels, self.tile.start)
        runs = label_runs(volume, background=self.task.background)
        refuse_ids(runs, self.task.what)
        if self.task.only_wanted:
            runs = runs.take(np.flatnonzero(np.isin(runs.ids, self.arrays["wanted"])))
        partials = run_partials(runs, volume.shape, start)
        for name in ("ids", "area", "sums", "box"):
            self.out.put(name, getattr(partials, name))
        self.reading.lap("runs")
        return runs

    def _block(self, number: int, block: range, planes: Iterator[tuple[int, NDArray[Any]]]) -> None:
        """Take and write the figures of some channels."""
        shape = len(block), self.n_labels
        found = {m.name: np.empty((*shape, m.width)) for m in self.task.measures}
        ranks = np.full((*shape, len(self.task.ranks), 2), np.nan)
        light = []
        for place in range(len(block)):
            channel, read = next(planes)
            plane = plain(read)
            for batch in self.batches:
                self._take(batch, plane, {name: out[place] for name, out in found.items()})
            for batch in self.sorted:
                vectors = _gather(plane, batch.runs)
                ranks[place, batch.rows] = take_ranks(vectors, self.task.ranks)
            if self.task.ranks:
                light.append(_gather(plane, self.light).values)
                self._leave_heavy(channel, plane)
            self.reading.lap("statistics")
            del read, plane  # or the chunks that it came of stay while the next ones are read
        for name, figures in found.items():
            self.out.put(f"{name}.{number}", figures)
        if self.task.ranks:
            self.out.put(f"ranks.{number}", ranks)
            self.out.put(f"pixels.{number}", np.stack(light))
        self.reading.lap("stream")

    def _take(
        self, batch: _Batch, plane: NDArray[Any], found: Mapping[str, NDArray[np.float64]]
    ) -> None:
        """Take all measures of some labels; those of a large one from its pieces."""
        taken: dict[str, list[NDArray[np.float64]]] = {name: [] for name in found}
        for piece in batch.pieces:
            vectors = _gather(plane, piece)
            for measure in self.task.measures:
                taken[measure.name].append(measure.take(vectors))
        count = np.concatenate([piece.area for piece in batch.pieces])
        for measure in self.task.measures:
            figures = np.concatenate(taken[measure.name])
            if len(batch.pieces) > 1:
                figures = _fold(measure, figures, count)
            found[measure.name][batch.rows] = figures

    def _leave_heavy(self, channel: int, plane: NDArray[Any]) -> None:
        for row, label in enumerate(self.heavy.ids):
            distinct = Distinct.of(_gather(plane, self.heavy.take(np.array([row]))).values)
            self.out.put(f"values.{label}.{channel}", distinct.values)
            self.out.put(f"below.{label}.{channel}", distinct.below)


@dataclass(frozen=True)
class _Batch:
    """Labels that are worked on at once: many small ones, or a large one in pieces.

    Attributes
    ----------
    rows
        Their places among the tile's labels.
    runs
        Of the labels.
    pieces
        The same runs, where it is a large label in parts that stay in a core's cache.
    """

    rows: NDArray[np.int64]
    runs: LabelRuns
    pieces: list[LabelRuns]


def _batches(runs: LabelRuns, rows: NDArray[np.int64]) -> Iterator[_Batch]:
    for labels in batches(runs.area, _PIXELS_TOGETHER):
        part = runs.take(np.arange(labels.start, labels.stop))
        pieces = [part]
        if len(part.ids) == 1 and part.area[0] > _PIXELS_TOGETHER:
            cuts = batches(part.lengths, _PIXELS_TOGETHER)
            pieces = [_piece(part, slice_of_runs) for slice_of_runs in cuts]
        yield _Batch(rows[labels], part, pieces)


def _sorted_batches(runs: LabelRuns, rows: NDArray[np.int64]) -> Iterator[_Batch]:
    """Batches whose pixels are sorted as rows: labels of about one size."""
    order = np.argsort(runs.area, kind="stable")
    for labels in padded_batches(runs.area[order], _SORTED_TOGETHER):
        part = runs.take(order[labels])
        yield _Batch(rows[order[labels]], part, [part])


def _fold(
    measure: Measure, figures: NDArray[np.float64], count: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Merge the figures of one label's pieces (p, width), neighbours first."""
    while len(count) > 1:
        even = len(count) // 2 * 2
        a, b = slice(0, even, 2), slice(1, even, 2)
        merged = measure.merge(figures[a], figures[b], count[a], count[b])
        figures = np.concatenate([merged, figures[even:]])
        count = np.concatenate([count[a] + count[b], count[even:]])
    return figures


def _piece(runs: LabelRuns, which: slice) -> LabelRuns:
    """Some runs of a single label."""
    lengths = runs.lengths[which]
    area, offsets = lengths.sum(keepdims=True), np.array([0, len(lengths)])
    return LabelRuns(runs.ids, area, offsets, runs.starts[which], lengths)


def plain(plane: NDArray[Any]) -> NDArray[Any]:
    """Pixels as numbers that kernels have, in the machine's byte order, without gaps."""
    if plane.dtype.kind == "b":
        plane = plane.view(np.uint8)
    elif plane.dtype == np.float16:  # kernels have no such numbers
        plane = plane.astype(np.float32)
    return np.ascontiguousarray(plane, plane.dtype.newbyteorder("="))


def _gather(plane: NDArray[Any], runs: LabelRuns) -> Vectors:
    """Pixels of the labels that runs are of."""
    offsets = np.zeros(len(runs.ids) + 1, np.int64)
    np.cumsum(runs.area, out=offsets[1:])
    values = np.empty(int(offsets[-1]), plane.dtype)
    gather_runs(plane, runs.starts, runs.lengths, values)
    return Vectors(values, offsets)


# The second stage: quantiles of labels that cross tiles


def _join(task: AggregationTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
    """Finish the quantiles of some labels from what their tiles left."""
    arrays = load_arrays(task.plan_path, ["light", "heavy", "join_tiles"])
    kind, (first, stop) = unit.what["kind"], unit.what["labels"]
    ids = arrays[kind][first:stop]
    tiles = arrays["join_tiles"][slice(*unit.what["tiles"])]
    allow_open_files(len(tiles))
    readers = [UnitReader(task.units_path / tile_name(int(tile))) for tile in tiles]
    work = _join_light if kind == "light" else _join_heavy
    for number, ranks in enumerate(work(task, ids, readers, reading)):
        out.put(f"ranks.{number}", ranks)
    reading.lap("join")


def tile_name(index: int) -> str:
    """Name of a tile's unit."""
    return f"tile-{index:06d}"


def _join_light(
    task: AggregationTask, ids: NDArray[np.int64], readers: list[UnitReader], reading: Reading
) -> Iterator[NDArray[np.float64]]:
    # A tile within a label's box may hold nothing of it.
    pieces = [piece for piece in (_Pieces.of(r, ids) for r in readers) if len(piece.owner)]
    owner = np.concatenate([piece.owner for piece in pieces])
    lengths = np.concatenate([piece.lengths for piece in pieces])
    starts = np.cumsum(lengths) - lengths
    # Pieces by label; a label's pieces by tile.
    by_label = np.argsort(owner, kind="stable")
    area = np.bincount(owner, lengths, len(ids)).astype(np.int64)
    offsets = np.searchsorted(owner[by_label], np.arange(len(ids) + 1))
    runs = LabelRuns(ids, area, offsets, starts[by_label], lengths[by_label])
    parts = list(_sorted_batches(runs, np.arange(len(ids))))
    for number, block in enumerate(task.blocks):
        found = np.empty((len(block), len(ids), len(task.ranks), 2))
        for place in range(len(block)):
            reading.check()
            pixels = np.concatenate([p.pixels(number, place) for p in pieces])
            for batch in parts:
                vectors = _gather(pixels, batch.runs)
                found[place, batch.rows] = take_ranks(vectors, task.ranks)
        yield found


@dataclass(frozen=True)
class _Pieces:
    """What one tile holds of a group of labels."""

    reader: UnitReader
    owner: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, reader: UnitReader, ids: NDArray[np.int64]) -> _Pieces:
        there, area = np.array(reader["light"]), np.array(reader["light_area"])
        _, rows, owner = np.intersect1d(there, ids, assume_unique=True, return_indices=True)
        starts = np.cumsum(area) - area
        return cls(reader, owner, starts[rows], area[rows])

    def pixels(self, block: int, place: int) -> NDArray[Any]:
        left = self.reader[f"pixels.{block}"][place]
        out = np.empty(int(self.lengths.sum()), left.dtype)
        gather_runs(left, self.starts, self.lengths, out)
        return out


def _join_heavy(
    task: AggregationTask, ids: NDArray[np.int64], readers: list[UnitReader], reading: Reading
) -> Iterator[NDArray[np.float64]]:
    for block in task.blocks:
        found = np.empty((len(block), len(ids), len(task.ranks), 2))
        for place, channel in enumerate(block):
            for row, label in enumerate(ids):
                reading.check()
                names = f"values.{label}.{channel}", f"below.{label}.{channel}"
                held = [reader for reader in readers if names[0] in reader]
                pieces = [Distinct(*(reader[name] for name in names)) for reader in held]
                found[place, row] = select_ranks(pieces, task.ranks)
                for reader in held:
                    reader.release()
        yield found
