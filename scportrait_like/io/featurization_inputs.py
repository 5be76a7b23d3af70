"""What a featurization reads: windows of an image, or the pictures of an extraction."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.extraction_output import ledger_arrays
from scportrait_like.io.indexes import labels_index
from scportrait_like.io.ledger import Reason, State, read_ledger
from scportrait_like.kernels import warm_up_windows
from scportrait_like.models import ModelSpec
from scportrait_like.raster.featurizing import (
    PictureTask,
    embeddings,
    picture_batch,
    picture_bytes,
    plan_pictures,
    read_pictures,
)
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
from scportrait_like.raster.stored_portraits import StoredPortraits
from scportrait_like.run.memory import granted_cores
from scportrait_like.run.plan import Plan, Task, Unit
from scportrait_like.run.rundir import RunDirectory

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class ExtractedPictures:
    """Pictures of an `.h5sc` file.

    Attributes
    ----------
    pictures
        The file.
    positions
        Of the channels that are taken, in the order wanted.
    region
        The labels element that the table annotates.
    batch_size
        As the section says.
    filehandler, budget
        To look up where the cells lie.
    """

    pictures: StoredPortraits
    positions: tuple[int, ...]
    region: str
    batch_size: int | None
    filehandler: FileHandler
    budget: int

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that are taken."""
        return tuple(self.pictures.channels[position] for position in self.positions)

    @property
    def masks(self) -> tuple[str, ...]:
        """Those of the file."""
        return self.pictures.masks

    @property
    def _planes(self) -> int:
        return len(self.positions) + len(self.pictures.masks)

    @property
    def _batch(self) -> int:
        return self.batch_size or picture_batch(self.pictures, self._planes)

    def plan(self, n_cells: int | None, seed: int) -> Plan:
        """Take all rows in the file's order, or some in the order of the pick."""
        known = self.pictures.ids()
        if len(known) == 0:
            raise InputError(f"{self.pictures.path} holds no cell")
        check_count(n_cells, len(known), self.pictures.path)
        rows = np.arange(len(known))
        if n_cells is not None:
            rows = np.random.default_rng(seed).choice(len(known), n_cells, replace=False)
        ids = known[rows]
        plan = plan_pictures(self.pictures, rows, ids, self._planes, self.batch_size)
        plan.arrays.update(self._ledger(known, ids), spatial=self._spatial(ids))
        return plan

    def _spatial(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Centroids (x, y), of the mask that gave them to the pictures if it is there."""
        first = self.masks[0] if self.masks else self.region
        mask = first if first in self.filehandler else self.region
        index = labels_index(self.filehandler, mask, self.budget)
        if not np.isin(ids, index.ids).all():
            raise InputError(
                f"{self.pictures.path} has cells that labels {mask} do not hold: it was extracted "
                "from another mask. Extract again, or name the right one in the key labels"
            )
        return np.ascontiguousarray(index.centroid[np.searchsorted(index.ids, ids), ::-1])

    def _ledger(self, known: NDArray[np.int64], ids: NDArray[np.int64]) -> Arrays:
        """What became of every id of the extraction, and of those of its rows not picked."""
        path = Path(self.pictures.path).with_name(names.LEDGER_FILE)
        if path.is_file():
            lines = read_ledger(path)
            all_ids = lines["id"].to_numpy()
            state = _codes(lines["state"], State)
            reason = _codes(lines["reason"], Reason)
        else:  # made by scPortrait
            all_ids = np.sort(known)
            state = np.full(len(known), State.WRITTEN, np.int8)
            reason = np.full(len(known), Reason.NONE, np.int8)
        left = (state == State.WRITTEN) & ~np.isin(all_ids, ids)
        state[left], reason[left] = State.NOT_SELECTED, Reason.NONE
        return {"ledger_id": all_ids, "ledger_state": state, "ledger_reason": reason}

    def window_bytes(self) -> int:
        """Bytes of a picture."""
        return picture_bytes(self.pictures, self._planes)

    def sample(self, plan: Plan, rows: NDArray[np.int64], masks: bool) -> Sample:
        """Read some pictures."""
        at = np.asarray(plan.arrays["row"])[rows]
        return read_pictures(self.pictures, at, self.positions, masks=masks)

    def task(self, model: ModelSpec, dimension: int, run: RunDirectory) -> Task:
        """Return the work of a unit."""
        return PictureTask(
            self.pictures,
            self.positions,
            model,
            dimension,
            self._batch,
            run.plan_path,
            run.batches_path,
        )

    def rows(self, plan: Plan, unit: Unit) -> NDArray[np.int64]:
        """Rows of the table that a unit makes."""
        return np.arange(*unit.what["rows"])

    def embeddings(self, result: Any) -> Iterator[NDArray[Any]]:
        """What the model gave the cells of a unit."""
        return embeddings(result)


def open_pictures(
    filehandler: FileHandler,
    path: Path,
    labels: str | None,
    channels: Sequence[str] | None,
    batch_size: int | None,
    budget: int,
) -> ExtractedPictures:
    """Open an `.h5sc` file of a project.

    Parameters
    ----------
    filehandler
        Of the project.
    path
        Of the file.
    labels
        The mask that the table annotates; None: the last of the file, which masks the channels.
    channels
        Names of those wanted; None: all.
    batch_size, budget
        See `ExtractedPictures`.

    Raises
    ------
    InputError
        A channel twice, or one that the pictures do not have.
    MissingInputError
        The mask is not in the store.
    """
    pictures = StoredPortraits.open(path)
    wanted = pictures.channels if channels is None else tuple(channels)
    if missing := [name for name in wanted if name not in pictures.channels]:
        raise InputError(
            f"{', '.join(missing)} not in the pictures; they have {', '.join(pictures.channels)}"
        )
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(
            f"{', '.join(wanted) or 'none'} is not allowed: give each channel once, or leave the "
            "key out for all"
        )
    region = labels or (pictures.masks[-1] if pictures.masks else names.SEG_CYTOSOL)
    if filehandler.element_names().get(region) != "labels":
        raise MissingInputError(
            f"{region}, the mask of {path}, is not among the labels of the project, which the "
            "table of features is to annotate: name the mask that was extracted in the key labels"
        )
    positions = tuple(pictures.channels.index(name) for name in wanted)
    return ExtractedPictures(pictures, positions, region, batch_size, filehandler, budget)


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


def _codes(texts: Any, codes: type[State] | type[Reason]) -> NDArray[np.int8]:
    """Codes of a ledger's texts."""
    known = {"" if code.name == "NONE" else code.name.lower(): code.value for code in codes}
    return np.asarray(texts.astype(object).map(known), np.int8)


def check_count(n_cells: int | None, there: int, what: str) -> None:
    """Refuse to pick more cells than there are."""
    if n_cells is not None and n_cells > there:
        raise InputError(f"n_cells={n_cells}, but {what} holds {there} cells")
