"""Pixel clustering: the plan of a run that prepares, samples, trains and assigns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Final

import numpy as np

from scportrait_like.errors import InputError
from scportrait_like.kernels import (
    Nodes,
    cell_clusters,
    cluster_sums,
    label_runs,
    nearest_nodes,
    warm_up_runs,
)
from scportrait_like.kernels.hashing import draw_pixels, hash_key
from scportrait_like.pixels.assignment import assignment_stage, cluster_dtype
from scportrait_like.pixels.images import PixelImage
from scportrait_like.pixels.preparation import (
    Percentiles,
    Preparation,
    PreparedPixels,
    percentiles_of,
    preparation_stages,
)
from scportrait_like.pixels.preparation import warm_up as warm_up_preparation
from scportrait_like.pixels.sampling import Sampling, sampling_stages
from scportrait_like.pixels.som import SomSettings, trained_in, training_stage
from scportrait_like.pixels.stages import PixelTask, Stage, units_of
from scportrait_like.pixels.trained_som import TrainedSom
from scportrait_like.run.memory import MB
from scportrait_like.run.plan import Plan

logger = logging.getLogger(__name__)

# Rough costs on one core, to choose between threads and processes.
_SECONDS_A_VALUE: Final = 3e-9
_SECONDS_A_PRODUCT: Final = 3e-11
# What flowsom and the packages that it brings take when they are imported.
_FLOWSOM_BYTES: Final = 300 << 20
# The sample as drawn, in order, as a table, and what flowsom makes of it.
_ROW_COPIES: Final = 6


@dataclass(frozen=True)
class Clustering:
    """What a run over pixels is to do.

    Attributes
    ----------
    preparation
        How rows are made of stored pixels; None: they are taken as they are.
    sampling, som
        What a map is trained on, and how; None where one is given.
    trained
        A map that is applied, with the numbers that its own pixels were prepared with.
    keep
        Whether the trained ``flowsom.FlowSOM`` itself is kept in the stage's file.
    totals
        Whether sums of clusters, and clusters in cells, are wanted, beside each pixel's cluster.
    """

    preparation: Preparation | None
    sampling: Sampling | None = None
    som: SomSettings | None = None
    trained: TrainedSom | None = None
    keep: bool = False
    totals: bool = True

    def __post_init__(self) -> None:
        if self.trained is None and (self.sampling is None or self.som is None):
            raise InputError("a map is trained on a sample, or given")

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, in the order of a row."""
        if self.trained is not None:
            return self.trained.channels
        return self.som.channels if self.som is not None else ()

    @property
    def n_nodes(self) -> int:
        """Clusters."""
        if self.trained is not None:
            return self.trained.n_nodes
        return self.som.xdim * self.som.ydim if self.som is not None else 0

    @property
    def _known(self) -> Percentiles | None:
        """Percentiles that a given map comes with."""
        return None if self.trained is None else self.trained.prepared_by()[1]

    def stages(self, images: Sequence[PixelImage]) -> list[Stage]:
        """All stages, in their order."""
        stages = []
        if self.preparation is not None:
            dtype, names = images[0].source.dtype, self.channels
            stages += preparation_stages(
                self.preparation, dtype, self._known, names, trains=self.trained is None
            )
        if self.sampling is not None and self.som is not None and self.trained is None:
            sample = sampling_stages(self.sampling, self.som.channels)
            stages += [*sample, training_stage(self.som, self.keep)]
        return [*stages, assignment_stage(self.trained, self.totals)]

    def plan(self, images: Sequence[PixelImage], budget: int) -> Plan:
        """Units of all stages, and what they cost; `budget` in bytes."""
        check_alike(images)
        if self.preparation is not None:
            for image in images:
                self.preparation.check_reach(image.name, image.shape)
        held = max(_tile_bytes(image, self.preparation) for image in images)
        self._note_training(sum(image.n_pixels for image in images), budget)
        values = sum(image.n_pixels * len(image.channels) for image in images)
        stages = self.stages(images)
        scans = sum(stage.tiled for stage in stages)
        seconds = values * (scans * _SECONDS_A_VALUE + self.n_nodes * _SECONDS_A_PRODUCT)
        return Plan(units_of(images, stages), unit_bytes=held, seconds=seconds)

    def _note_training(self, n_pixels: int, budget: int) -> None:
        """Warn where the training may take more than is granted: flowsom holds rows x nodes."""
        if self.sampling is None or self.trained is not None:
            return
        rows = min(self.sampling.wanted(n_pixels), self.sampling.max_samples)
        taken = _FLOWSOM_BYTES + rows * 8 * (self.n_nodes + _ROW_COPIES * len(self.channels))
        if taken > budget:
            logger.warning(
                "training on %s pixels may take %d MB, more than the %d MB granted: lower fraction "
                "or max_samples",
                f"{rows:,}",
                taken // MB,
                budget // MB,
            )

    def task(self, images: Sequence[PixelImage], units_path: Path) -> PixelTask:
        """The task of the run's units."""
        prepared = None
        if self.preparation is not None:
            prepared = PreparedPixels(self.preparation, self._known)
        works = {stage.name: stage.work for stage in self.stages(images)}
        return PixelTask(tuple(images), works, units_path, prepared)

    def trained_by(self, task: PixelTask) -> TrainedSom:
        """The map, given or trained in a run that has come so far, with its preparation."""
        trained = self.trained or trained_in(task)
        if self.trained is not None or self.preparation is None:
            return trained
        return replace(
            trained,
            preparation=self.preparation.as_json(),
            percentiles=percentiles_of(task).as_json(),
        )


def check_alike(images: Sequence[PixelImage]) -> None:
    """Raise `InputError` unless all images have as many channels, of one dtype."""
    first = images[0]
    for image in images[1:]:
        if len(image.channels) != len(first.channels):
            raise InputError(
                f"images of one clustering have the same channels: {first.name} has "
                f"{len(first.channels)}, {image.name} {len(image.channels)}"
            )
        if image.source.dtype != first.source.dtype:
            raise InputError(
                f"images of one clustering have one dtype: {first.name} has {first.source.dtype}, "
                f"{image.name} {image.source.dtype}"
            )


def _tile_bytes(image: PixelImage, preparation: Preparation | None) -> int:
    """Memory of a unit: all channels of a tile, a plane on its way, clusters and cells."""
    pixels, itemsize = prod(image.grid.edges), image.dtype.itemsize
    together = min(image.source.chunks[0], image.source.shape[0])
    row = itemsize
    plane = pixels * itemsize * (1 + together)
    if preparation is not None:
        row = np.dtype(preparation.dtype).itemsize
        plane += pixels * row * 4
    labels = 0 if image.labels is None else pixels * (2 * image.labels.dtype.itemsize + 4)
    return pixels * row * len(image.channels) + max(plane, labels + pixels * 4) + (16 << 20)


def warm_up(images: Sequence[PixelImage], prepared: str | None, n_nodes: int) -> None:
    """Compile (or load) the kernels of a run, before workers start.

    Parameters
    ----------
    images
        What is looked at.
    prepared
        The dtype that pixels are prepared as; None: they are taken as they are.
    n_nodes
        Of the map.
    """
    if prepared is not None:
        warm_up_preparation({image.source.dtype for image in images}, prepared)
    pixels = np.ones((1, 2), prepared or images[0].dtype)
    clusters = np.empty(2, cluster_dtype(n_nodes))
    nearest_nodes(pixels, Nodes.of(np.ones((2, 1))), clusters)
    cluster_sums(pixels, clusters, 1)
    draw_pixels(
        np.zeros(1, np.int16),
        (0, 0, 0),
        (1, 1, 1),
        (1, 1, 1),
        hash_key(0, 0),
        np.zeros(1, np.uint64),
    )
    for labels in {image.labels.dtype for image in images if image.labels is not None}:
        warm_up_runs(labels)
        cell_clusters(label_runs(np.ones((1, 1, 2), labels)), clusters, 1)
