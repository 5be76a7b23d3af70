"""HDF5CellExtraction: each cell's picture, cut out, masked and normalised."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from scportrait_like import names
from scportrait_like.config import StepConfig
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.io.extraction_output import ExtractionSink, ledger_arrays
from scportrait_like.io.h5sc import H5scFacts
from scportrait_like.io.indexes import labels_index
from scportrait_like.io.inputs_of_steps import (
    Channels,
    check_elements,
    find_channels,
    open_rasters,
)
from scportrait_like.kernels import Normalisation, Plain, Quantiles, Scale, warm_up
from scportrait_like.raster.cell_plan import box_pixels, cell_boxes, plan_cells
from scportrait_like.raster.cutting import PortraitTask
from scportrait_like.raster.index import CellIndex
from scportrait_like.raster.portraits import REACH, pick_cells
from scportrait_like.raster.sources import ZarrSource
from scportrait_like.raster.tiles import tile_grid
from scportrait_like.run.plan import Plan, Sink, Task
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.step import ProcessingStep

logger = logging.getLogger(__name__)

DEFAULT_RANGE: Final = (0.001, 0.999)
# Rough costs on one core, to choose between threads and processes.
_SECONDS_A_PLANE: Final = 8e-6
_SECONDS_A_PIXEL: Final = 1.2e-9


def _to_switch(value: Any) -> Any:
    """Read null and "None" as off, as older config files write it."""
    return False if value in (None, "None") else value


def _to_range(value: Any) -> Any:
    if value in (None, "None"):
        return DEFAULT_RANGE
    if not (isinstance(value, (list, tuple)) and len(value) == 2):
        raise ValueError("must be two quantiles such as [0.001, 0.999]")
    lower, upper = value
    if not all(isinstance(v, (int, float)) for v in value) or not 0 <= lower < upper <= 1:
        raise ValueError("must be two quantiles with 0 <= lower < upper <= 1")
    return float(lower), float(upper)


def _to_size(value: Any) -> Any:
    if isinstance(value, int) and (value <= 0 or value % 2):
        raise ValueError("must be an even number of pixels above zero")
    return value


def _to_codec(value: Any) -> Any:
    known = {True: "lzf", False: "none", None: "none", "None": "none"}
    try:
        return known.get(value, value)
    except TypeError:
        return value


class ExtractionConfig(StepConfig):
    """Section ``HDF5CellExtraction``.

    Attributes
    ----------
    image_size
        Edge of the pictures in pixels, even.
    normalize_output
        Stretch each channel of each picture between two quantiles of its window.
    normalization_range
        The quantiles.
    compression
        True (lzf), ``lzf``, ``gzip`` or False.
    border
        ``discard`` drops cells whose window is not strictly inside the image; ``pad`` keeps them,
        with zeros outside.
    segmentation_key, segmentation_mask
        Names of the nucleus' and of the cytosol's labels; default: those that the loaders give.
    """

    image_size: Annotated[int, BeforeValidator(_to_size)] = 128
    normalize_output: Annotated[bool, BeforeValidator(_to_switch)] = True
    normalization_range: Annotated[
        tuple[float, float], BeforeValidator(_to_range), Field(validate_default=False)
    ] = DEFAULT_RANGE
    compression: Annotated[Literal["lzf", "gzip", "none"], BeforeValidator(_to_codec)] = "lzf"
    border: Literal["discard", "pad"] = "discard"
    segmentation_key: str | None = None
    segmentation_mask: str | None = None


class HDF5CellExtraction(ProcessingStep):
    """Cut out each cell of a mask, mask it and normalise it, into an `.h5sc` file.

    The output folder holds ``single_cells.h5sc``, ``removed_classes.csv`` (ids that were dropped,
    one a line), ``ledger.parquet`` (what became of every id of the mask) and ``run.json``.
    """

    Config: ClassVar[type[StepConfig]] = ExtractionConfig
    config: ExtractionConfig
    folder: ClassVar[str] = names.EXTRACTION_DIR
    prefers: ClassVar[str] = "processes"
    makes_rasters: ClassVar[bool] = False

    def process(
        self,
        partial: bool = False,
        n_cells: int | None = None,
        seed: int = 42,
        output_folder_name: str | None = None,
        *,
        overwrite: bool | None = None,
    ) -> Path:
        """Extract all cells, or a random pick.

        Parameters
        ----------
        partial
            Extract `n_cells` picked at random.
        n_cells
            How many to pick, before border removal: fewer rows may result.
        seed
            Of the pick.
        output_folder_name
            Name of the output folder; default ``data``, for a pick
            ``partial_data_ncells_<n>_seed_<seed>``.
        overwrite
            True starts anew; see `ProcessingStep.execute`.

        Returns
        -------
        pathlib.Path
            The `.h5sc` file.

        Raises
        ------
        InputError
            Arguments, sizes or dtypes that do not work.
        StaleRunError
            What lies there was made from other settings or inputs.
        """
        call = self._call(partial, n_cells, seed, output_folder_name)
        return self.execute(call, overwrite) / names.H5SC_FILE

    def check(self, before: Sequence[ProcessingStep] = (), *args: Any, **kwargs: Any) -> None:
        """Refuse an image, masks, channels or a size that do not work, before any step runs."""
        try:
            self.inputs()
            self._channels()
            self._sources()
        except MissingInputError:
            if not any(step.makes_rasters for step in before):
                raise

    @staticmethod
    def _call(partial: bool, n_cells: int | None, seed: int, folder: str | None) -> dict[str, Any]:
        if folder is not None and (not folder or "/" in folder or folder.startswith(".")):
            raise InputError(f"output_folder_name {folder!r} is no plain folder name")
        if folder == names.EXTRACTION_DATA:
            folder = None
        if not partial:
            if n_cells:
                raise InputError(f"n_cells={n_cells} picks cells only with partial=True")
            return {"folder": folder} if folder else {}
        if n_cells is None or n_cells <= 0:
            raise InputError(f"partial=True needs n_cells above zero, not {n_cells}")
        if seed < 0:
            raise InputError(f"seed {seed} is not allowed: numpy takes none below zero")
        return {"partial": True, "n_cells": int(n_cells), "seed": int(seed), "folder": folder}

    def output_name(self, call: Mapping[str, Any]) -> str:
        """``data``, or scPortrait's name of a partial run's folder."""
        name = call.get("folder") or names.EXTRACTION_DATA
        if call.get("partial"):
            return names.partial(name, call["n_cells"], call["seed"])
        return str(name)

    def repeat(self, call: Mapping[str, Any], overwrite: bool = True) -> str:
        """How a user writes the call."""
        words = {key: call[key] for key in ("partial", "n_cells", "seed") if key in call}
        if call.get("folder"):
            words["output_folder_name"] = call["folder"]
        if overwrite:
            words["overwrite"] = True
        return f"project.extract({', '.join(f'{k}={v!r}' for k, v in words.items())})"

    # Inputs

    def masks(self) -> list[str]:
        """Names of the labels elements: nucleus first, then cytosol."""
        config, there = self.config, self.filehandler
        if config.labels is not None:
            wanted = [config.labels]
        elif config.segmentation_key or config.segmentation_mask:
            wanted = [n for n in (config.segmentation_key, config.segmentation_mask) if n]
        else:
            wanted = [n for n in (names.SEG_NUCLEUS, names.SEG_CYTOSOL) if n in there]
        return wanted

    def inputs(self) -> tuple[str, ...]:
        """The image and the masks."""
        masks = self.masks()
        check_elements(self.filehandler, self.config.image, masks)
        return (self.config.image, *masks)

    def _channels(self) -> Channels:
        """Positions and names of the channels that are cut."""
        config = self.config
        return find_channels(self.filehandler, config.image, config.channels, self.name)

    def _sources(self) -> tuple[ZarrSource, list[ZarrSource]]:
        image, masks = open_rasters(self.filehandler, self.config.image, self.masks())
        size = self.config.image_size
        if size > min(image.shape[1:]):
            raise InputError(
                f"section {self.name}: key image_size: {size} is larger than the image, "
                f"{image.shape[1:]} (y, x)"
            )
        return image, masks

    # Plan, task, sink

    def plan(self, call: Mapping[str, Any]) -> Plan:
        """Pick the cells, and cut the work into tiles."""
        image, masks = self._sources()
        budget = self.budget()
        indexes = [labels_index(self.filehandler, name, budget) for name in self.masks()]
        main, size = indexes[0], self.config.image_size
        n_cells = call.get("n_cells")
        if len(main) == 0:
            raise InputError(f"mask {self.masks()[0]} is empty: it holds no label above 0")
        if n_cells is not None and n_cells > len(main):
            raise InputError(
                f"n_cells={n_cells}, but mask {self.masks()[0]} holds {len(main)} cells"
            )
        pick = pick_cells(main, size, self.config.border, n_cells, call.get("seed", 42))
        if n_cells is not None and len(pick.rows) < n_cells:
            logger.info(
                "%d of the %d picked cells are too near to the image's border",
                n_cells - len(pick.rows),
                n_cells,
            )
        ids, centres = main.ids[pick.rows], pick.centres[pick.rows]
        boxes = cell_boxes(centres, size, [_boxes_of(index, ids) for index in indexes], REACH)
        chunks = [(s.chunks[-2], s.chunks[-1]) for s in (image, *masks)]
        grid = tile_grid((image.shape[1], image.shape[2]), *chunks)
        plan = plan_cells(ids, centres, boxes, grid)
        plan.arrays.update(ledger_arrays(pick, indexes))
        return self._costs(plan, image, masks)

    def _costs(self, plan: Plan, image: ZarrSource, masks: list[ZarrSource]) -> Plan:
        """Project memory and time of the units."""
        pixels = int(plan.arrays["grid"][1].prod())
        planes = len(self._channels()) + len(masks)
        in_boxes = _most_pixels(plan, 0, plan.arrays["cell_box"])
        in_joins = _most_pixels(plan, 1, plan.arrays["border_box"])
        # While labels are read: their bytes twice (decoded chunks, region), and once as 64 bits;
        # while channels are: chunk and region. The boxes' bits and float64 masks stay all along.
        label_bytes = pixels * (2 * max(mask.dtype.itemsize for mask in masks) + 8)
        plane_bytes = pixels * 2 * image.dtype.itemsize * min(image.chunks[0], image.shape[0])
        tile_bytes = max(label_bytes, plane_bytes) + in_boxes * (8 * len(masks) + 2)
        # A join holds the boxes' masks, and one channel as fragments and joined.
        join_bytes = in_joins * (8 * len(masks) + 1 + 2 * image.dtype.itemsize)
        unit_bytes = max(tile_bytes, join_bytes) + (16 << 20)
        picture = 2 * self.config.image_size**2
        seconds = (
            plan.facts["n_cells"] * planes * _SECONDS_A_PLANE * max(1.0, picture / 8192) ** 0.5
            + image.shape[1] * image.shape[2] * planes * _SECONDS_A_PIXEL
        )
        return Plan(plan.units, plan.arrays, plan.facts, unit_bytes, 3 * picture, seconds)

    def _normalisation(self, image: ZarrSource) -> Normalisation:
        if self.config.normalize_output:
            return Quantiles(*self.config.normalization_range)
        if image.dtype.kind in "iu":
            return Scale(float(np.iinfo(image.dtype).max))
        return Plain()

    def task(self, plan: Plan, run: RunDirectory) -> Task:
        """Return the work of a unit; kernels are compiled here, before any worker starts."""
        image, masks = self._sources()
        began = time.perf_counter()
        warm_up(image.dtype)
        if (seconds := time.perf_counter() - began) > 3:
            logger.info("kernels compiled in %.0f s; the next run finds them in a cache", seconds)
        return PortraitTask(
            image,
            tuple(masks),
            self._channels(),
            self.config.image_size,
            self._normalisation(image),
            self.config.compression,
            run.plan_path,
            run.units_path,
        )

    def sink(self, plan: Plan, output: Path, call: Mapping[str, Any]) -> Sink:
        """Return the writer of the `.h5sc` file and the ledger."""
        config = self.config
        facts = H5scFacts(
            n_cells=plan.facts["n_cells"],
            size=config.image_size,
            masks=tuple(self.masks()),
            channels=tuple(name for _, name in self._channels()),
            normalisation_range=config.normalization_range if config.normalize_output else None,
            codec=config.compression,
        )
        return ExtractionSink(plan, output, facts)


def _most_pixels(plan: Plan, stage: int, boxes: NDArray[np.int64]) -> int:
    """Pixels in the boxes of the unit of a stage that has the most."""
    pixels = box_pixels(boxes)
    cells = [slice(*unit.what["cells"]) for unit in plan.units if unit.stage == stage]
    return max((int(pixels[rows].sum()) for rows in cells), default=0)


def _boxes_of(index: CellIndex, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bounding boxes of some ids; zeros (an empty box) for those that the mask does not hold."""
    boxes = np.zeros((len(ids), 4), np.int64)
    if len(index):
        at = np.minimum(np.searchsorted(index.ids, ids), len(index) - 1)
        found = index.ids[at] == ids
        boxes[found] = index.box[at[found]]
    return boxes
