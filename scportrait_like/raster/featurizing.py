"""The work of a featurization: a model called on windows of an image, or on extracted pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.models import ModelSpec, embed
from scportrait_like.raster.instances import BATCH_BYTES, put_made, results
from scportrait_like.raster.reading import Check, Reading
from scportrait_like.raster.stored_portraits import StoredPortraits
from scportrait_like.run.batches import Batches, in_batches
from scportrait_like.run.plan import Plan, Task, Unit, load_arrays
from scportrait_like.run.unitfile import UnitWriter

# Most pictures of a unit; of few pictures there are so many units that workers share them well.
UNIT_ROWS: Final = 1000
_UNITS: Final = 64
_SMALLEST_UNIT: Final = 16
# Rough cost on one core of a byte of pictures: decoding, and a light model.
_SECONDS_A_BYTE: Final = 3e-9

_EMBEDDING: Final = "embedding"


@dataclass(frozen=True)
class FixedBatch:
    """A task whose batches have a size of their own, whatever the memory.

    What a model gives a window may depend in its last bits on the others of the batch.
    """

    task: Task
    batch: int

    def __call__(
        self, unit: Unit, out: UnitWriter, batch_size: int, check: Check
    ) -> Mapping[str, float]:
        """Do one unit."""
        return self.task(unit, out, self.batch, check)


@dataclass(frozen=True)
class PictureTask:
    """The task of a featurization of extracted pictures: all that a worker needs; it pickles.

    Attributes
    ----------
    pictures
        Their file.
    channels
        Positions among the file's channels, in the order wanted.
    model
        A fitted one, if it needs fitting.
    dimension
        Numbers that it gives a picture, d.
    batch
        Most pictures that it gets at once.
    plan_path
        Where the plan's arrays lie.
    batches_path
        Where batches are kept until their unit is finished.
    """

    pictures: StoredPortraits
    channels: tuple[int, ...]
    model: ModelSpec
    dimension: int
    batch: int
    plan_path: Path
    batches_path: Path

    def __call__(
        self, unit: Unit, out: UnitWriter, batch_size: int, check: Check
    ) -> Mapping[str, float]:
        """Work on one unit, batch by batch."""
        reading = Reading(check)
        arrays = load_arrays(self.plan_path, ["row", "ids"])
        batch = min(self.batch, batch_size)
        first, last = unit.what["rows"]

        def make(part: slice) -> Mapping[str, NDArray[Any]]:
            check()
            rows = slice(first + part.start, first + part.stop)
            at = np.asarray(arrays["row"][rows])
            images, masks = read_pictures(
                self.pictures, at, self.channels, masks=self.model.wants_mask
            )
            reading.parts["bytes"] += images.nbytes
            reading.lap("read")
            ids = np.asarray(arrays["ids"][rows])
            return {_EMBEDDING: embed(self.model, images, masks, ids, self.dimension)}

        kept = Batches(self.batches_path, unit.name)
        for number, found in in_batches(last - first, batch, kept, make):
            put_made(out, number, found)
            reading.lap("head")
        return reading.parts


def read_pictures(
    pictures: StoredPortraits,
    rows: NDArray[np.int64],
    channels: tuple[int, ...],
    *,
    masks: bool,
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read pictures as models take them.

    Returns
    -------
    tuple
        (n, c, 1, size, size) of the channels, and, if asked for, (n, m, 1, size, size): where the
        blurred masks are above 0.
    """
    n_masks = len(pictures.masks)
    first = n_masks if not masks else 0
    planes = [*range(first, n_masks), *(n_masks + channel for channel in channels)]
    found = pictures.read(rows, planes)[:, :, None]
    images = found[:, n_masks - first :]
    return images, found[:, :n_masks] > 0 if masks else None


def embeddings(held: Any) -> Iterator[NDArray[Any]]:
    """Yield what a task made of each batch of a unit, in order."""
    return results(held, _EMBEDDING)


def picture_batch(pictures: StoredPortraits, planes: int) -> int:
    """Pictures that a model gets at once where nobody chose."""
    return max(1, BATCH_BYTES // picture_bytes(pictures, planes))


def picture_bytes(pictures: StoredPortraits, planes: int) -> int:
    """Bytes of so many planes of a picture."""
    return int(planes * pictures.size**2 * pictures.dtype.itemsize)


def plan_pictures(
    pictures: StoredPortraits,
    rows: NDArray[np.int64],
    ids: NDArray[np.int64],
    planes: int,
    batch_size: int | None,
) -> Plan:
    """Plan a run over pictures: units are rows one after the other.

    Parameters
    ----------
    pictures
        Their file.
    rows, ids
        (n,) of the file, in the order of the output, and their labels.
    planes
        That are read of each.
    batch_size
        Pictures that the model gets at once, if the user chose: units are whole batches then.
    """
    wanted = min(UNIT_ROWS, max(_SMALLEST_UNIT, -(-len(rows) // _UNITS)))
    step = -(-wanted // (batch_size or 1)) * (batch_size or 1)
    batch = batch_size or min(picture_batch(pictures, planes), step)
    units = [
        Unit(f"rows-{number:06d}", 0, {"rows": [start, min(start + step, len(rows))]})
        for number, start in enumerate(range(0, len(rows), step))
    ]
    a_picture = picture_bytes(pictures, planes)
    seconds = len(rows) * a_picture * _SECONDS_A_BYTE
    # A model sees its batch in float32 or float64, which may be copied once more.
    unit_bytes = (16 << 20) + 6 * batch * a_picture
    return Plan(units, {"row": rows, "ids": ids}, {"n_cells": len(rows)}, unit_bytes, 0, seconds)
