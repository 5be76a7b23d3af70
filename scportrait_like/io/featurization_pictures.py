"""What a featurization reads: the pictures of an extraction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.featurization_inputs import Arrays, Sample, check_count
from scportrait_like.io.indexes import labels_index
from scportrait_like.io.ledger import Reason, State, read_ledger
from scportrait_like.models import ModelSpec
from scportrait_like.raster.featurizing import (
    PictureTask,
    embeddings,
    picture_batch,
    picture_bytes,
    plan_pictures,
    read_pictures,
)
from scportrait_like.raster.index import CellIndex
from scportrait_like.raster.stored_portraits import StoredPortraits
from scportrait_like.run.plan import Plan, Task, Unit
from scportrait_like.run.rundir import RunDirectory


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
            raise InputError(f"{self.pictures.path} holds no cell{self._why_none()}")
        check_count(n_cells, len(known), self.pictures.path)
        rows = np.arange(len(known))
        if n_cells is not None:
            rows = np.random.default_rng(seed).choice(len(known), n_cells, replace=False)
        ids = known[rows]
        plan = plan_pictures(self.pictures, rows, ids, self._planes, self.batch_size)
        plan.arrays.update(self._ledger(known, ids), spatial=self._spatial(ids))
        return plan

    def _why_none(self) -> str:
        path = Path(self.pictures.path).with_name(names.LEDGER_FILE)
        if not path.is_file() or not len(lines := read_ledger(path)):
            return ""
        reasons = ", ".join(sorted({str(reason) for reason in lines["reason"]} - {""}))
        return (
            f": the extraction has dropped all {len(lines)} of the mask ({reasons}). Extract again "
            "with border: pad, or a smaller image_size, or set source: images"
        )

    def _spatial(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Centroids (x, y), of the mask that gave them to the pictures if it is there."""
        first = self.masks[0] if self.masks else self.region
        source = first if first in self.filehandler else self.region
        index = self._index_with(ids, source)
        if source != self.region:
            self._index_with(ids, self.region)
        return np.ascontiguousarray(index.centroid[np.searchsorted(index.ids, ids), ::-1])

    def _index_with(self, ids: NDArray[np.int64], mask: str) -> CellIndex:
        """The index of a mask that holds all ids."""
        index = labels_index(self.filehandler, mask, self.budget)
        lacking = ids[~np.isin(ids, index.ids)]
        if len(lacking):
            raise InputError(
                f"{self.pictures.path} has {len(lacking)} of {len(ids)} cells that labels {mask} "
                f"do not hold, such as {lacking.min()}: it was extracted from another mask. "
                "Extract again, or name the right one in the key labels"
            )
        return index

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
        The mask that the table annotates; None: the cytosol, or where it lacks cells the nuclei.
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
    positions = find_in_pictures(pictures.channels, channels)
    region = labels or _usual_region(pictures, filehandler, budget)
    if filehandler.element_names().get(region) != "labels":
        raise MissingInputError(
            f"{region}, the mask of {path}, is not among the labels of the project, which the "
            "table of features is to annotate: name the mask that was extracted in the key labels"
        )
    return ExtractedPictures(pictures, positions, region, batch_size, filehandler, budget)


def find_in_pictures(known: Sequence[str], wanted: Sequence[str] | None) -> tuple[int, ...]:
    """Positions of the channels that a section asks for; None: all.

    Raises
    ------
    InputError
        A channel twice, or one that the pictures do not have.
    """
    if wanted is None:
        return tuple(range(len(known)))
    if missing := [name for name in wanted if name not in known]:
        raise InputError(f"{', '.join(missing)} not in the pictures; they have {', '.join(known)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(
            f"{', '.join(wanted) or 'none'} is not allowed: give each channel once, or leave the "
            "key out for all"
        )
    return tuple(known.index(name) for name in wanted)


def _codes(texts: Any, codes: type[State] | type[Reason]) -> NDArray[np.int8]:
    """Codes of a ledger's texts."""
    known = {"" if code.name == "NONE" else code.name.lower(): code.value for code in codes}
    return np.asarray(texts.astype(object).map(known), np.int8)


def _usual_region(pictures: StoredPortraits, filehandler: FileHandler, budget: int) -> str:
    """The cytosol; where a cell has none, the mask that the cells' ids are of."""
    if not pictures.masks:
        return names.SEG_CYTOSOL
    first, last = pictures.masks[0], pictures.masks[-1]
    if first == last or filehandler.element_names().get(last) != "labels":
        return last
    index = labels_index(filehandler, last, budget)
    return last if np.isin(pictures.ids(), index.ids).all() else first
