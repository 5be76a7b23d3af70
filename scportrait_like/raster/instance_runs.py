"""Runs over windows of arrays: look through the mask, plan, run, collect, without a project."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from math import prod
from numbers import Integral
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.kernels import warm_up_windows
from scportrait_like.raster.cell_plan import JOIN_PIXELS, box_pixels, cell_boxes, plan_cells
from scportrait_like.raster.index import check_ids_dtype, look_through
from scportrait_like.raster.instance_task import InstanceTask
from scportrait_like.raster.instances import BATCH_BYTES, Head, made, results
from scportrait_like.raster.sources import Source, phase_of, spilled
from scportrait_like.raster.tiles import TileGrid, tile_grid
from scportrait_like.run.executors import (
    check_executor_name,
    choose_executor,
    is_separate,
    kept_here,
)
from scportrait_like.run.memory import SCARCE, granted_cores, memory_budget, tune_allocator
from scportrait_like.run.plan import Plan, Sink, Unit
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.runner import Resources, RunReport
from scportrait_like.run.scratch import run_in_scratch
from scportrait_like.run.unitfile import UnitReader

logger = logging.getLogger(__name__)

# Of a tile's boxes at most so many bytes stay in a worker's memory; more go through a file.
_HELD: Final = 256 << 20
# Rough costs on one core, to choose between threads and processes.
_SECONDS_A_BYTE: Final = 1e-9
_SECONDS_A_WINDOW_BYTE: Final = 0.5e-9


@dataclass(frozen=True)
class Found:
    """Labels of a mask, as far as windows need to know them.

    Attributes
    ----------
    ids
        (n,) int64, ascending; 0 is left out.
    centres
        (n, 2) int64 = (y, x): centroids, rounded half to even.
    boxes
        (n, 4) int64: bounding boxes in the plane, half open.
    """

    ids: NDArray[np.int64]
    centres: NDArray[np.int64]
    boxes: NDArray[np.int64]

    def take(self, rows: NDArray[Any]) -> Found:
        """Return some of them."""
        return Found(self.ids[rows], self.centres[rows], self.boxes[rows])

    def of(self, ids: NDArray[np.int64], what: str) -> Found:
        """Return those of some ids, ascending.

        Raises
        ------
        InputError
            The mask does not hold one of them.
        """
        missing = np.setdiff1d(ids, self.ids)
        if len(missing):
            listed = ", ".join(map(str, missing[:10].tolist()))
            raise InputError(f"{what} holds no label {listed}{' and others' * (len(missing) > 10)}")
        return self.take(np.isin(self.ids, ids))


def find_instances(labels: Source, grid: TileGrid, what: str, budget: int) -> Found:
    """Look through a mask (z, y, x) once."""
    edges = labels.chunks[0], *grid.edges
    whole = TileGrid(labels.shape, edges, (phase_of(labels)[0], *grid.phase))
    seen = look_through(labels, whole, background=False, what=what, budget=budget)
    centres = np.rint(seen.sums[:, 1:] / seen.area[:, None]).astype(np.int64)
    return Found(seen.ids, centres, np.ascontiguousarray(seen.box[:, [1, 2, 4, 5]]))


def instance_grid(labels: Source, image: Source | None) -> TileGrid:
    """Tiles (y, x) aligned to the chunks of labels (z, y, x) and image (c, z, y, x)."""
    depth, *shape = labels.shape
    chunks, phase = [labels.chunks[1:]], phase_of(labels)[1:]
    if image is not None:
        chunks, phase = [image.chunks[2:], *chunks], phase_of(image)[2:]
    return tile_grid(tuple(shape), *chunks, phase=phase, depth=depth)


def plan_instances(
    found: Found,
    grid: TileGrid,
    labels: Source,
    image: Source | None,
    size: int,
    *,
    n_channels: int,
    remove_background: bool,
    keep_labels: bool = False,
    held: int = _HELD,
    finish_inside: bool = True,
) -> Plan:
    """Plan a run over windows.

    Parameters
    ----------
    found
        The labels that become rows, in their order.
    grid
        Of `instance_grid`.
    labels, image
        (z, y, x) and (c, z, y, x).
    size
        Edge of the windows in pixels.
    n_channels
        Channels that are cut.
    remove_background
        Whether a window needs the pixels of its label only.
    keep_labels
        Whether the mask's values are cut too.
    held
        Bytes of a tile's boxes that stay in memory.
    finish_inside
        See `plan_cells`.
    """
    bounds = np.array([0, 0, *grid.shape])
    boxes = found.boxes if remove_background else np.broadcast_to(bounds, found.boxes.shape)
    boxes = cell_boxes(found.centres, size, [boxes])
    depth = labels.shape[0]
    of_image = 0 if image is None else n_channels * image.dtype.itemsize
    of_mask = 1 + keep_labels * labels.dtype.itemsize
    in_join = max(1, JOIN_PIXELS // (depth * max(1, (of_image + of_mask) // 8)))
    plan = plan_cells(found.ids, found.centres, boxes, grid, in_join, finish_inside=finish_inside)
    # What a tile reads at once, and what it keeps of it for its cells and those on its borders.
    pixels = prod(grid.edges)
    slab = pixels * min(labels.chunks[0], depth) * 3 * labels.dtype.itemsize
    inner = min(_most_pixels(plan, "cells", plan.arrays["cell_box"]), pixels)
    outer = _most_pixels(plan, "parts", plan.arrays["part_box"])
    kept = depth * ((inner + outer) * of_mask + min(inner * of_image, held))
    window_bytes, seconds = depth * size**2, 0.0
    if image is not None:
        together = min(image.chunks[0], image.shape[0]) * min(image.chunks[1], depth)
        slab = max(slab, pixels * 2 * together * image.dtype.itemsize)
        kept += (inner + outer) * image.dtype.itemsize
        window_bytes *= of_image
        seconds = prod(grid.shape) * depth * of_image * _SECONDS_A_BYTE
        seconds += len(found.ids) * window_bytes * _SECONDS_A_WINDOW_BYTE
    joined = depth * in_join * (of_image + of_mask)
    unit_bytes = max(slab + kept, joined) + (16 << 20)
    # The head may make as much again, and its own numbers.
    return Plan(plan.units, plan.arrays, plan.facts, unit_bytes, 3 * window_bytes, seconds)


def _tell_cut(found: Found, size: int) -> None:
    """Warn of cells that do not fit their windows."""
    corners = found.centres - size // 2
    beyond = (found.boxes[:, :2] < corners) | (found.boxes[:, 2:] > corners + size)
    if count := int(beyond.any(axis=1).sum()):
        logger.warning(
            "%d of %d cells are cut by their windows of %d pixels; the widest spans %d",
            count,
            len(found.ids),
            size,
            int((found.boxes[:, 2:] - found.boxes[:, :2]).max()),
        )


def _most_pixels(plan: Plan, which: str, boxes: NDArray[Any]) -> int:
    """Pixels in the boxes of the tile that has the most."""
    ends = np.concatenate([[0], np.cumsum(box_pixels(np.asarray(boxes)))])
    tiles = [unit.what[which] for unit in plan.units if unit.stage == 0]
    return max((int(ends[stop] - ends[start]) for start, stop in tiles), default=0)


def default_batch(
    image: Source | None, n_channels: int, depth: int, size: int, batch_size: int | None
) -> int:
    """Cells that a head gets at once: what was asked for, or what a core's cache likes."""
    if batch_size is not None:
        return batch_size
    pixel = 1 if image is None else n_channels * image.dtype.itemsize
    return max(1, BATCH_BYTES // (pixel * depth * size**2))


def held_bytes(budget: int, workers: int) -> int:
    """Bytes of boxes that a worker may keep in memory."""
    return min(_HELD, budget // (4 * workers))


def window_edge(diameter: int | None, depth: int | None) -> int:
    """Edge of the windows in pixels: `diameter`, or twice `depth`."""
    if diameter is not None:
        return diameter
    if depth is None:
        raise InputError("give diameter, the edge of the windows in pixels")
    return 2 * depth


def check_rasters(labels: Source, image: Source | None, size: Any, what: str) -> None:
    """Refuse what cannot be cut into windows.

    Raises
    ------
    ShapeError
        Other axes than (z, y, x) and (c, z, y, x), shapes that differ, or no pixels.
    InputError
        Not whole and real numbers; a window without pixels.
    """
    check_ids_dtype(labels.dtype, what)
    if len(labels.shape) != 3 or not prod(labels.shape):
        raise ShapeError(f"{what} has the shape {labels.shape}; wanted are pixels (z, y, x)")
    if not _is_whole(size) or size < 1:
        raise InputError(f"diameter={size!r} is not allowed: give whole pixels, 1 or more")
    if image is None:
        return
    if len(image.shape) != 4 or image.shape[1:] != labels.shape or not image.shape[0]:
        raise ShapeError(
            f"the image has the shape {image.shape}; wanted is (c, z, y, x) over the pixels of "
            f"{what}, {labels.shape}"
        )
    if image.dtype.kind not in "iufb" or image.dtype.itemsize > 8:
        raise InputError(f"the image holds {image.dtype}, but real numbers are wanted")


def _is_whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def rows_of(plan: Plan, unit: Unit) -> NDArray[np.int64]:
    """Rows of the output that a unit makes, in the order of its cells."""
    kind = "cell" if "tile" in unit.what else "border"
    return np.asarray(plan.arrays[f"{kind}_row"][slice(*unit.what["cells"])])


class Collected:
    """A sink that keeps what the head made, in memory: ``found[name]`` (n, ...), a row a cell."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.found: dict[str, NDArray[Any]] = {}

    def add(self, unit: Unit, result: UnitReader) -> None:
        """Put one unit's rows in their places."""
        rows = rows_of(self._plan, unit)
        for name in made(result):
            done = 0
            for part in results(result, name):
                if name not in self.found:
                    shape = len(self._plan.arrays["ids"]), *part.shape[1:]
                    self.found[name] = np.zeros(shape, part.dtype)
                self.found[name][rows[done : done + len(part)]] = part
                done += len(part)
        result.release()

    def flush(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """Nothing is left to do."""

    def abort(self) -> None:
        """Let go of what was kept."""
        self.found.clear()


@dataclass(frozen=True)
class InstanceRun:
    """A run over windows of arrays, ready to go.

    Attributes
    ----------
    labels
        (z, y, x), any integer dtype, ids up to 2^63 - 1.
    image
        (c, z, y, x), or None.
    size
        Edge of the windows in pixels.
    head
        What is made of the windows.
    channels
        Positions of the channels; None: all.
    remove_background, keep_labels, batch_size
        See `InstanceTask`; `batch_size` None: as suits a core's cache.
    what
        Name of the mask, for messages.
    executor, memory_limit
        As everywhere.
    """

    labels: Source
    image: Source | None
    size: int
    head: Head
    channels: Sequence[int] | None = None
    remove_background: bool = True
    keep_labels: bool = False
    batch_size: int | None = None
    what: str = "the mask"
    executor: Executor | str | None = None
    memory_limit: int | str | None = None

    def __post_init__(self) -> None:
        check_rasters(self.labels, self.image, self.size, self.what)
        object.__setattr__(self, "size", int(self.size))
        batch: Any = self.batch_size
        if batch is not None and (not _is_whole(batch) or batch < 1):
            raise InputError(f"batch_size={batch!r} is not allowed: give 1 or more, or None")
        if isinstance(self.executor, str):
            check_executor_name(self.executor, "executor")

    @property
    def taken(self) -> tuple[int, ...]:
        """Positions of the channels."""
        if self.image is None:
            return ()
        return tuple(range(self.image.shape[0]) if self.channels is None else self.channels)

    @property
    def window_bytes(self) -> int:
        """Bytes of a window of the image, or of the mask where there is none."""
        pixel = 1 if self.image is None else len(self.taken) * self.image.dtype.itemsize
        return pixel * self.labels.shape[0] * self.size**2

    @property
    def grid(self) -> TileGrid:
        """Tiles of the run."""
        return instance_grid(self.labels, self.image)

    def find(self) -> Found:
        """Look through the mask."""
        return find_instances(self.labels, self.grid, self.what, memory_budget(self.memory_limit))

    def plan(self, found: Found, *, finish_inside: bool = True) -> Plan:
        """Plan the run for some labels, a row each; see `plan_cells`."""
        if self.remove_background:
            _tell_cut(found, self.size)
        return plan_instances(
            found,
            self.grid,
            self.labels,
            self.image,
            self.size,
            n_channels=len(self.taken),
            remove_background=self.remove_background,
            keep_labels=self.keep_labels,
            held=held_bytes(memory_budget(self.memory_limit), granted_cores()),
            finish_inside=finish_inside,
        )

    def task(
        self, plan_path: Path, units_path: Path, held: int, apart: Path | None
    ) -> InstanceTask:
        """Return the work; with `apart` arrays in memory are put there for other processes."""
        labels, image = self.labels, self.image
        if apart is not None:
            labels = spilled(labels, apart)
            image = image if image is None else spilled(image, apart)
        batch = default_batch(image, len(self.taken), labels.shape[0], self.size, self.batch_size)
        return InstanceTask(
            labels=labels,
            image=image,
            channels=self.taken,
            size=self.size,
            remove_background=self.remove_background,
            keep_labels=self.keep_labels,
            head=self.head,
            batch=batch,
            held=held,
            plan_path=plan_path,
            units_path=units_path,
        )

    def go(self, plan: Plan, sink: Sink) -> RunReport:
        """Run in a temporary folder; the sink takes what the head made."""
        budget, workers = memory_budget(self.memory_limit), granted_cores()
        tune_allocator(budget < SCARCE)
        warm_up_windows(self.labels.dtype, None if self.image is None else self.image.dtype)
        choice = choose_executor(self.executor, workers, plan.seconds)
        if why := getattr(self.head, "stays", ""):
            choice = kept_here(choice, why)
        apart = is_separate(choice)

        def make_task(run: RunDirectory) -> InstanceTask:
            held = held_bytes(budget, workers)
            return self.task(run.plan_path, run.units_path, held, run.path if apart else None)

        batch = default_batch(
            self.image, len(self.taken), self.labels.shape[0], self.size, self.batch_size
        )
        resources = Resources(choice, "threads", workers, budget, batch_size=batch)
        return run_in_scratch(plan, make_task, sink, resources)

    def collect(self, found: Found) -> Mapping[str, NDArray[Any]]:
        """Run over some labels, and return what the head made: (n, ...) by name, a row a label."""
        plan = self.plan(found)
        sink = Collected(plan)
        self.go(plan, sink)
        return sink.found
