"""What a featurization reads: windows of an image, or the pictures of an extraction."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.errors import InputError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.extraction_output import ledger_arrays
from scportrait_like.io.indexes import labels_index
from scportrait_like.io.inputs_of_steps import Channels, open_rasters
from scportrait_like.io.tables import check_channels
from scportrait_like.kernels import warm_up_windows
from scportrait_like.models import ModelSpec
from scportrait_like.raster.fitting import sample_rows
from scportrait_like.raster.heads import ModelHead
from scportrait_like.raster.index import CellIndex
from scportrait_like.raster.instance_runs import (
    Found,
    InstanceRun,
    default_batch,
    held_bytes,
    rows_of,
)
from scportrait_like.raster.instance_statistics import WindowHead
from scportrait_like.raster.instances import results
from scportrait_like.raster.portraits import pick_cells
from scportrait_like.raster.sources import view
from scportrait_like.run.memory import granted_cores
from scportrait_like.run.plan import Plan, Task, Unit
from scportrait_like.run.rundir import RunDirectory

logger = logging.getLogger(__name__)

DEFAULT_SEED: Final = 42

Arrays = dict[str, NDArray[Any]]
Sample = tuple[NDArray[Any], NDArray[np.bool_] | None]


class FeatureSource(Protocol):
    """Cells with pixels that a model looks at.

    Its `plan` holds, beside what its task needs, the arrays ``ids`` and ``spatial`` (x, y) of the
    rows, and ``ledger_*`` of all ids.
    """

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that the model gets."""

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the masks that it may get."""

    @property
    def region(self) -> str:
        """The labels element whose cells they are."""

    def plan(self, n_cells: int | None, seed: int) -> Plan:
        """Pick cells (None: all), and cut the work into units."""

    def window_bytes(self) -> int:
        """Bytes of what the model gets of a cell."""

    def sample(self, plan: Plan, rows: NDArray[np.int64], masks: bool) -> Sample:
        """Return windows (n, c, z, y, x) of some rows of a plan and, if asked for, their masks."""

    def task(self, model: ModelSpec, dimension: int, run: RunDirectory) -> Task:
        """Return the work of a unit."""

    def rows(self, plan: Plan, unit: Unit) -> NDArray[np.int64]:
        """Rows of the table that a unit makes."""

    def embeddings(self, result: Any) -> Iterator[NDArray[Any]]:
        """What the model gave the cells of a unit, batch by batch."""


@dataclass(frozen=True)
class ImageWindows:
    """Windows that are cut from image and mask.

    Attributes
    ----------
    run
        Over them; its head is put in later.
    channels
        Names of the channels that it takes.
    region
        Name of the mask.
    filehandler, budget
        To look up the mask's index.
    """

    run: InstanceRun
    channels: tuple[str, ...]
    region: str
    filehandler: FileHandler
    budget: int

    @property
    def masks(self) -> tuple[str, ...]:
        """The mask."""
        return (self.region,)

    def _found(self, ids: NDArray[np.int64], index: CellIndex) -> Found:
        """Labels of some ids, in their order."""
        at = np.searchsorted(index.ids, ids)
        centres = np.rint(index.centroid[at]).astype(np.int64)
        return Found(ids, centres, np.ascontiguousarray(index.box[at]))

    def _index(self) -> CellIndex:
        return labels_index(self.filehandler, self.region, self.budget)

    def plan(self, n_cells: int | None, seed: int) -> Plan:
        """Pick cells as an extraction does, in the order of the pick; else all by ascending id."""
        index = self._index()
        if len(index) == 0:
            raise InputError(f"mask {self.region} is empty: it holds no label above 0")
        check_count(n_cells, len(index), f"mask {self.region}")
        pick = pick_cells(index, self.run.size, "pad", n_cells, seed)
        plan = self.run.plan(self._found(index.ids[pick.rows], index))
        arrays = {**plan.arrays, **ledger_arrays(pick, [index])}
        arrays["spatial"] = np.ascontiguousarray(index.centroid[pick.rows, ::-1])
        unit_bytes = plan.unit_bytes + self._batch * plan.row_bytes
        return Plan(plan.units, arrays, plan.facts, unit_bytes, 0, plan.seconds)

    @property
    def _batch(self) -> int:
        run = self.run
        return default_batch(
            run.image, len(run.taken), run.labels.shape[0], run.size, run.batch_size
        )

    def window_bytes(self) -> int:
        """Bytes of a window."""
        return self.run.window_bytes

    def sample(self, plan: Plan, rows: NDArray[np.int64], masks: bool) -> Sample:
        """Cut some windows, in a run of their own."""
        ids = np.sort(np.asarray(plan.arrays["ids"])[rows])
        run = replace(self.run, head=WindowHead(masks=masks))
        found = run.collect(self._found(ids, self._index()))
        return found["image"], found.get("masks")

    def task(self, model: ModelSpec, dimension: int, run: RunDirectory) -> Task:
        """Return the work of a unit; kernels are compiled here, before any worker starts."""
        image = self.run.image
        warm_up_windows(self.run.labels.dtype, None if image is None else image.dtype)
        held = held_bytes(self.budget, granted_cores())
        ready = replace(self.run, head=ModelHead(model, dimension))
        task = ready.task(run.plan_path, run.units_path, held, None)
        return replace(task, batches_path=run.batches_path)

    def rows(self, plan: Plan, unit: Unit) -> NDArray[np.int64]:
        """Rows of the table that a unit makes."""
        return rows_of(plan, unit)

    def embeddings(self, result: Any) -> Iterator[NDArray[Any]]:
        """What the model gave the cells of a unit."""
        return results(result, "embedding")


def open_windows(
    filehandler: FileHandler,
    image: str,
    region: str,
    channels: Channels,
    size: int,
    *,
    remove_background: bool,
    batch_size: int | None,
    executor: Executor | str | None,
    budget: int,
) -> ImageWindows:
    """Open an image and a mask of a project, for windows of `size` pixels.

    Parameters
    ----------
    filehandler
        Of the project.
    image, region
        Names of the image and of the mask.
    channels
        Of the image, as `find_channels` gives them.
    size, remove_background, batch_size, executor
        See `InstanceRun`.
    budget
        Bytes.

    Raises
    ------
    InputError
        Channels without names of their own, or sizes that do not fit.
    """
    check_channels([name for _, name in channels], image)
    pixels, (labels,) = open_rasters(filehandler, image, [region])
    run = InstanceRun(
        labels=view(labels, (None, slice(None), slice(None))),
        image=view(pixels, (slice(None), None, slice(None), slice(None))),
        size=size,
        head=WindowHead(),
        channels=tuple(position for position, _ in channels),
        remove_background=remove_background,
        batch_size=batch_size,
        what=f"mask {region}",
        executor=executor,
        memory_limit=budget,
    )
    return ImageWindows(run, tuple(name for _, name in channels), region, filehandler, budget)


def sample_of(source: FeatureSource, plan: Plan, model: ModelSpec) -> Sample:
    """Windows to fit a model on: always the same ones of the same cells, whatever the memory."""
    dimension = model.dimension(len(source.channels), len(source.masks))
    rows = sample_rows(model, len(plan.arrays["ids"]), source.window_bytes(), dimension)
    return source.sample(plan, rows, model.wants_mask)


def warn_of_size(what: str, n_cells: int, n_features: int, budget: int) -> None:
    """Warn of a table, made in memory at the end, that takes more than half of the budget."""
    table = n_cells * n_features * np.dtype(np.float32).itemsize
    if table > budget / 2:
        logger.warning(
            "%s: the table of %s cells x %s features takes %s MB of memory at the end, of a memory "
            "limit of %s MB. Take fewer features (channels, embedding_dimension, another model) or "
            "cells (n_cells), or raise memory_limit",
            what,
            *(f"{n:,}" for n in (n_cells, n_features, table >> 20, budget >> 20)),
        )


def check_count(n_cells: int | None, there: int, what: str) -> None:
    """Refuse to pick more cells than there are."""
    if n_cells is not None and n_cells > there:
        raise InputError(f"n_cells={n_cells}, but {what} holds {there} cells")


def call_of(n_cells: int, data_type: str, seed: int | None) -> dict[str, Any]:
    """Arguments of a featurization that can change its result: of a pick; empty: all cells.

    Raises
    ------
    InputError
        They are not allowed, or not together.
    """
    if data_type not in ("complete", "partial"):
        raise InputError(f"data_type={data_type!r} is not allowed: give complete or partial")
    given: dict[str, Any] = {"n_cells": n_cells, "partial_seed": 0 if seed is None else seed}
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise InputError(f"{key}={value!r} is not allowed: give a whole number")
    if n_cells < 0:
        raise InputError(f"n_cells={n_cells} is not allowed: give 0 for all, or more")
    if seed is not None and seed < 0:
        raise InputError(f"partial_seed {seed} is not allowed: numpy takes none below zero")
    if not n_cells:
        if data_type == "partial":
            raise InputError("data_type='partial' needs n_cells, as the extraction had it")
        if seed is not None:
            raise InputError(f"partial_seed={seed} picks cells only with n_cells above zero")
        return {}
    seed = DEFAULT_SEED if seed is None else seed
    return {"data_type": data_type, "n_cells": int(n_cells), "seed": int(seed)}


def named(name: str, call: Mapping[str, Any]) -> str:
    """Name of what a call makes, told apart from what others make."""
    if not call:
        return name
    of = names.partial if call["data_type"] == "partial" else names.picked
    return of(name, call["n_cells"], call["seed"])
