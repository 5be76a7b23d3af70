"""Aggregating arrays: plan, run, merge, without a project."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.kernels import warm_up_runs
from scportrait_like.raster.aggregated import Aggregated, Needs, merge_units
from scportrait_like.raster.aggregation import (
    CHANNELS_TOGETHER,
    AggregationTask,
    plain,
    tile_name,
)
from scportrait_like.raster.index import check_ids_dtype, look_through
from scportrait_like.raster.ranks import batches
from scportrait_like.raster.sources import Source, phase_of, spilled
from scportrait_like.raster.statistics import Statistic, Vectors, resolve_statistics
from scportrait_like.raster.tiles import TileGrid, tile_grid
from scportrait_like.run.executors import check_executor_name, choose_executor, is_separate
from scportrait_like.run.memory import SCARCE, granted_cores, memory_budget, tune_allocator
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.runner import Resources
from scportrait_like.run.scratch import run_in_scratch
from scportrait_like.run.unitfile import UnitReader

logger = logging.getLogger(__name__)

# A label of more pixels that crosses tiles is never gathered as a whole.
_HEAVY: Final = 1 << 20
# Pixels of the labels that are joined by one unit.
_JOINED: Final = 1 << 20
# Rough costs on one core, to choose between threads and processes.
_SECONDS_A_BYTE: Final = 0.8e-9
_SECONDS_A_PIXEL: Final = 0.5e-9

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Crossing:
    """Labels that cross tiles, as far as quantiles need to know them.

    Attributes
    ----------
    ids, area
        (n,) int64.
    first, last
        (n, axes) int64: the first and the last tile along each axis.
    """

    ids: Int64
    area: Int64
    first: Int64
    last: Int64

    @classmethod
    def of(cls, ids: Int64, area: Int64, box: Int64, grid: TileGrid) -> Crossing:
        """Find them by their bounding boxes (n, 2 * axes), half open."""
        axes = len(grid.edges)
        first = (box[:, :axes] + grid.phase) // grid.edges
        last = (box[:, axes:] - 1 + grid.phase) // grid.edges
        crosses = (first != last).any(axis=1)
        return cls(ids[crosses], area[crosses], first[crosses], last[crosses])

    def take(self, rows: NDArray[Any] | slice) -> Crossing:
        """Return some of them."""
        return Crossing(self.ids[rows], self.area[rows], self.first[rows], self.last[rows])

    def tiles(self, grid: TileGrid) -> Int64:
        """Indices of all tiles that may hold a part of one of them."""
        touched = np.zeros(grid.counts, bool)
        for first, last in zip(self.first, self.last, strict=True):
            touched[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))] = True
        return np.flatnonzero(touched)


def aggregation_grid(labels: Source, image: Source | None) -> TileGrid:
    """Tiles aligned to the chunks of labels ([z,] y, x) and image (c, [z,] y, x)."""
    if image is None:
        return tile_grid(labels.shape, labels.chunks, phase=phase_of(labels))
    return tile_grid(labels.shape, image.chunks[1:], labels.chunks, phase=phase_of(image)[1:])


def plan_aggregation(
    grid: TileGrid, crossing: Crossing | None = None, wanted: Int64 | None = None
) -> Plan:
    """Plan an aggregation.

    Parameters
    ----------
    grid
        Of the labels.
    crossing
        Where quantiles are asked for: the labels that cross tiles.
    wanted
        Only these ids (n,); None: all.

    Returns
    -------
    Plan
        Units ``tile-*`` (stage 0) and ``join-*`` (stage 1).
    """
    units = [Unit(tile_name(tile), 0, {"tile": tile}) for tile in range(len(grid))]
    arrays = {
        "grid": grid.array,
        "light": np.zeros(0, np.int64),
        "heavy": np.zeros(0, np.int64),
        "join_tiles": np.zeros(0, np.int64),
    }
    if wanted is not None:
        arrays["wanted"] = wanted
    if crossing is not None and len(crossing.ids):
        is_heavy = crossing.area > _HEAVY
        light, heavy = crossing.take(~is_heavy), crossing.take(is_heavy)
        # Neighbours are joined together: their pieces lie in the same tiles.
        light = light.take(np.lexsort(light.first.T[::-1]))
        groups = [("light", light, rows) for rows in batches(light.area, _JOINED)]
        groups += [("heavy", heavy, slice(n, n + 1)) for n in range(len(heavy.ids))]
        tiles = [labels.take(rows).tiles(grid) for _, labels, rows in groups]
        ends = np.cumsum([0, *map(len, tiles)]).tolist()
        for number, (kind, _, rows) in enumerate(groups):
            what = {
                "kind": kind,
                "labels": [rows.start, rows.stop],
                "tiles": ends[number : number + 2],
            }
            units.append(Unit(f"join-{number:06d}", 1, what))
        arrays |= {"light": light.ids, "heavy": heavy.ids, "join_tiles": np.concatenate(tiles)}
    return Plan(units, arrays)


def with_costs(
    plan: Plan, grid: TileGrid, labels: Source, image: Source | None, n_channels: int, needs: Needs
) -> Plan:
    """Add a projection of the units' memory and time to a plan."""
    pixels, itemsize = prod(grid.edges), labels.dtype.itemsize
    # Labels as decoded chunks and as the region; runs, for which a pixel in eight begins one.
    label_bytes = pixels * (2 * itemsize + 3)
    plane_bytes = figures = joined = 0
    if image is not None:
        pixel = image.dtype.itemsize
        plane_bytes = pixels * (3 + pixel * (1 + min(image.chunks[0], image.shape[0])))
        numbers = sum(measure.width for measure in needs.measures) + 2 * len(needs.ranks)
        # A label of 100 pixels: smaller ones are rare.
        figures = pixels // 100 * numbers * 8 * min(CHANNELS_TOGETHER, n_channels)
        if needs.ranks:
            # Pixels of crossing labels: a tenth, and while they are joined.
            plane_bytes += pixels * pixel * min(CHANNELS_TOGETHER, n_channels) // 10
            joined = _JOINED * (4 * pixel + 64)
    unit_bytes = max(label_bytes, plane_bytes + figures, joined) + (16 << 20)
    all_pixels = prod(grid.shape)
    seconds = all_pixels * itemsize * _SECONDS_A_BYTE
    if image is not None:
        a_pixel = image.dtype.itemsize * _SECONDS_A_BYTE + _SECONDS_A_PIXEL * (1 + len(needs.ranks))
        seconds += all_pixels * n_channels * a_pixel
    return Plan(plan.units, plan.arrays, plan.facts, unit_bytes, 0, seconds)


def find_crossing(
    labels: Source, grid: TileGrid, background: bool, what: str, budget: int
) -> Crossing:
    """Look through the mask once for labels that cross tiles."""
    found = look_through(labels, grid, background=background, what=what, budget=budget)
    axes = len(grid.edges)
    kept = [*range(3 - axes, 3), *range(6 - axes, 6)]
    return Crossing.of(found.ids, found.area, found.box[:, kept], grid)


def warm_up(image: Source | None, statistics: Mapping[str, Statistic], labels: Source) -> None:
    """Compile (or load) the kernels for these arrays, before workers start."""
    began = time.perf_counter()
    if image is None:
        warm_up_runs(labels.dtype)
    else:
        pixels = plain(np.ones((1, 1), image.dtype))
        warm_up_runs(labels.dtype, pixels.dtype)
        needs = Needs.of(statistics)
        vectors = Vectors(pixels.reshape(-1), np.array([0, 1]))
        for measure in needs.measures:
            measure.take(vectors)
    if (seconds := time.perf_counter() - began) > 3:
        logger.info("kernels compiled in %.0f s; the next run finds them in a cache", seconds)


class _Collecting:
    """A sink that merges what it was given, in memory."""

    def __init__(self, plan: Plan, statistics: Mapping[str, Statistic], n_channels: int) -> None:
        self._plan, self._statistics, self._n_channels = plan, statistics, n_channels
        self._units: dict[str, UnitReader] = {}
        self.result: Aggregated

    def add(self, unit: Unit, result: UnitReader) -> None:
        """Keep one unit's result; it stays on the disk."""
        self._units[unit.name] = result
        result.release()

    def flush(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """Merge."""
        self.result = merge_units(self._plan, self._units, self._statistics, self._n_channels)
        self._units.clear()

    def abort(self) -> None:
        """Let go of the units."""
        self._units.clear()


def aggregate(
    labels: Source,
    image: Source | None = None,
    statistics: str | Sequence[str] = (),
    *,
    index: npt.ArrayLike | None = None,
    background: bool = True,
    what: str = "the mask",
    executor: Executor | str | None = None,
    memory_limit: int | str | None = None,
) -> Aggregated:
    """Aggregate an image over the labels of a mask, in one pass and bounded memory.

    Parameters
    ----------
    labels
        ([z,] y, x), any integer dtype, ids up to 2^63 - 1.
    image
        (c, [z,] y, x), or None: only pixels are counted and centroids taken.
    statistics
        Names; see `scportrait_like.raster.statistics`.
    index
        The ids that are wanted, in the order wanted; absent ones are told as such.
    background
        Whether 0 is a label too, where `index` does not say.
    what
        Name of the mask, for messages.
    executor
        A `concurrent.futures.Executor`, the name of one, or None: an active dask client, else
        threads.
    memory_limit
        Bytes (or "4GB") for the process tree; None: `scportrait_like.settings.memory_limit`.

    Raises
    ------
    InputError
        A mask that is none, an unknown statistic, an `index` with ids twice or below 0.
    ConfigError
        An unknown executor.
    """
    check_ids_dtype(labels.dtype, what)
    if not prod(labels.shape):
        raise ShapeError(f"{what} has the shape {labels.shape}: it holds no pixels")
    if isinstance(executor, str):
        check_executor_name(executor, "aggregate")
    found = resolve_statistics(statistics)
    ids = None if index is None else checked_index(index)
    if ids is not None:
        background = bool((ids == 0).any())
    needs = Needs.of(found)
    n_channels = 0 if image is None else image.shape[0]
    grid = aggregation_grid(labels, image)
    budget, workers = memory_budget(memory_limit), granted_cores()
    tune_allocator(budget < SCARCE)
    warm_up(image, found, labels)
    crossing = find_crossing(labels, grid, background, what, budget) if needs.ranks else None
    if crossing is not None and ids is not None:
        crossing = crossing.take(np.isin(crossing.ids, ids))
    plan = plan_aggregation(grid, crossing, ids)
    plan = with_costs(plan, grid, labels, image, n_channels, needs)
    choice = choose_executor(executor, workers, plan.seconds)
    if choice == "threads":
        workers += 1  # while one waits for zarr's own threads

    def make_task(run: RunDirectory) -> AggregationTask:
        apart = is_separate(choice)
        return AggregationTask(
            spilled(labels, run.path) if apart else labels,
            what,
            spilled(image, run.path) if apart and image is not None else image,
            tuple(range(n_channels)),
            needs.measures,
            needs.ranks,
            background,
            ids is not None,
            run.plan_path,
            run.units_path,
        )

    sink = _Collecting(plan, found, n_channels)
    resources = Resources(choice, "threads", workers, budget, batch_size=1)
    report = run_in_scratch(plan, make_task, sink, resources)
    result = replace(sink.result, report=report)
    return result if ids is None else result.reindex(ids, found)


def checked_index(index: npt.ArrayLike) -> Int64:
    """Ids that were asked for, as (n,) int64.

    Raises
    ------
    InputError
        Not a list of whole numbers, ids below 0 or above 2^63 - 1, or ids given twice.
    """
    ids = np.asarray(index)
    if ids.ndim != 1 or (ids.dtype.kind not in "iu" and ids.size):
        raise InputError(
            f"index must be a list of label ids, not {ids.dtype} of the shape {ids.shape}"
        )
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) > np.iinfo(np.int64).max):
        raise InputError("index holds ids below 0 or above 2^63 - 1; no label has such an id")
    ids = ids.astype(np.int64)
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        twice = ", ".join(map(str, values[counts > 1][:10].tolist()))
        raise InputError(f"index holds ids twice: {twice}; give each once")
    return ids
