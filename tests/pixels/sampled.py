"""Runs the stages that sample and train, on arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scportrait_like.pixels.images import PixelImage
from scportrait_like.pixels.sampling import Sample, Sampling, sample_of, sampling_stages
from scportrait_like.pixels.stages import PixelTask, Stage, units_of
from scportrait_like.raster.sources import source_of
from scportrait_like.raster.tiles import TileGrid
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.runner import Resources, run_units
from scportrait_like.run.unitfile import UnitReader

Pixels = np.ndarray[Any, Any]


def image_of(
    array: Pixels, edges: tuple[int, ...] | None = None, name: str = "tissue"
) -> PixelImage:
    """Image (c, [z,] y, x) in tiles of given edges."""
    image = PixelImage.of(name, source_of(array), tuple(range(len(array))))
    grid = TileGrid(array.shape[1:], edges or array.shape[1:])
    return PixelImage(name, image.source, image.channels, grid)


class Nothing:
    """A sink that keeps nothing."""

    def add(self, unit: Unit, result: UnitReader) -> None:
        result.release()

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


def run(
    folder: Path, images: Sequence[PixelImage], stages: Sequence[Stage], executor: Any = "inline"
) -> PixelTask:
    """Run stages; the task can tell what they left."""
    directory = RunDirectory(folder, durable=False)
    directory.start({})
    Plan(units_of(images, stages)).save(directory.plan_path, durable=False)
    works = {stage.name: stage.work for stage in stages}
    task = PixelTask(tuple(images), works, directory.units_path)
    resources = Resources(executor, "threads", 2, 4 << 30, batch_size=1)
    run_units(directory, directory.plan(), task, Nothing(), resources)
    return task


def drawn(
    folder: Path,
    arrays: Sequence[Pixels],
    sampling: Sampling,
    edges: tuple[int, ...] | None = None,
    executor: Any = "inline",
) -> Sample:
    """Sample of arrays."""
    images = [image_of(array, edges, f"image{n}") for n, array in enumerate(arrays)]
    return sample_of(run(folder, images, sampling_stages(sampling), executor))


def same(one: Sample, other: Sample) -> bool:
    """Whether two samples are equal to the last bit."""
    parts: list[Callable[[Sample], Any]] = [
        lambda sample: sample.rows.tobytes(),
        lambda sample: sample.image.tolist(),
        lambda sample: sample.position.tolist(),
        lambda sample: sample.counts,
    ]
    return all(part(one) == part(other) for part in parts)
