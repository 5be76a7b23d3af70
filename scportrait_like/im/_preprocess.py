"""Images prepared for a clustering of their pixels."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError
from scportrait_like.im._elements import add_image
from scportrait_like.im._images import Names, check_outputs, clustered_images, listed, scratch_place
from scportrait_like.io.elements import full_resolution, raster
from scportrait_like.pixels.images import PixelImage
from scportrait_like.pixels.preparation import (
    Percentiles,
    Preparation,
    percentiles_of,
    preparation_stages,
    warm_up,
)
from scportrait_like.pixels.prepared import finishing, is_small
from scportrait_like.pixels.stages import PixelTask, units_of
from scportrait_like.raster.sources import Source, ZarrSource, spilled
from scportrait_like.run.durable import disk_errors
from scportrait_like.run.executors import check_executor_name, choose_executor, is_separate
from scportrait_like.run.memory import SCARCE, granted_cores, memory_budget, tune_allocator
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.runner import Resources
from scportrait_like.run.scratch import run_in_scratch
from scportrait_like.run.unitfile import UnitReader

if TYPE_CHECKING:
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

# Rough costs on one core, to choose between threads and processes.
_SECONDS_A_VALUE: Final = 3e-9
_PLAIN_EDGE: Final = 2048
Chunks = tuple[int, ...]


def pixel_clustering_preprocess(
    sdata: SpatialData,
    image_name: str | Iterable[str],
    output_image_name: str | Iterable[str],
    channels: str | int | Iterable[str | int] | None = None,
    p: float | None = 99,
    p_sum: float | None = 5,
    p_post: float | None = 99.9,
    sigma: float | Iterable[float] | None = 2,
    norm_sum: bool = True,
    cap_max: float | None = None,
    chunks: str | int | tuple[int, ...] | None = None,
    scale_factors: Sequence[Mapping[str, int] | int] | None = None,
    cast_dtype: npt.DTypeLike = np.float32,
    persist_intermediate: bool = True,
    overwrite: bool = False,
    *,
    executor: Executor | str | None = None,
    memory_limit: int | str | None = None,
) -> SpatialData:
    """Prepare images for `flowsom`: the published preparation of Pixie (Liu et al. 2023).

    In this order: pixels are cast; each channel is divided by its own percentile `p`; percentile
    `p_sum` of the sum over the channels becomes the threshold; each plane is blurred; a pixel whose
    blurred sum is not above the threshold becomes NaN in all channels; the others are divided by
    their blurred sum; each channel is divided by its percentile `p_post`; what lies above `cap_max`
    becomes that.

    Percentiles are exact (linear interpolation), leave zeros and NaN out, and are the means over
    the images where there are several. The result does not depend on chunks, workers or executor.

    NaN in the image spreads as far as the blur reaches, within its channel. Where sums are looked
    at (`p_sum`, `norm_sum`) such a pixel becomes NaN in all channels, and so does one whose sum is
    infinite, or zero where it divides.

    Parameters
    ----------
    sdata
        Changed in place, at the end: when something fails it is as it was.
    image_name
        An image (c, y, x) or (c, z, y, x), or several with the same channels. Of several scales the
        finest is used.
    output_image_name
        The image that is made of it, one for each: the channels wanted, `cast_dtype`, with the
        image's transformations.
    channels
        One or several, by name or position, in the order wanted; None: all.
    p, p_sum, p_post
        Percentiles in [0, 100]; None: this step is left out.
    sigma
        Of the Gaussian blur along y and x in pixels (as `scipy.ndimage.gaussian_filter`, mode
        "reflect"): one value, or one a channel; 0 or None: no blur.
    norm_sum
        Whether to divide by the sum over the channels.
    cap_max
        The largest value that stays; None: any does.
    chunks
        Of the output, as a number or in the order (c, [z,] y, x); None: those of the image.
    scale_factors
        Of each coarser level of the output against the one before; None: a single scale.
    cast_dtype
        float32 or float64.
    persist_intermediate
        Accepted; nothing intermediate is held in memory but a few tiles. Pixels wait for their last
        division in a folder beside the store (else in that for temporary files, ``TMPDIR``).
    overwrite
        Whether images of the output names may be replaced.
    executor
        A `concurrent.futures.Executor`, the name of one ("inline", "threads", "processes",
        "dask"), or None: an active dask client, else threads.
    memory_limit
        Bytes (or "4GB") for the process tree; None: `scportrait_like.settings.memory_limit`.

    Returns
    -------
    spatialdata.SpatialData
        `sdata`.

    Raises
    ------
    MissingInputError
        There is no such image.
    InputError
        A percentile outside [0, 100], a sigma below 0 or not one a channel, another `cast_dtype`,
        an unknown channel, images of different channels, a channel that holds nothing but zeros and
        NaN or whose percentile is not above 0.
    ElementExistsError
        An image of an output name is there, and `overwrite` is False.
    DiskFullError
        No space left; what was there is unharmed.
    """
    if not persist_intermediate:
        logger.info("persist_intermediate=False is not needed: no intermediate is held in memory")
    how = Preparation(p, p_sum, p_post, _sigma(sigma), norm_sum, cap_max, _dtype_name(cast_dtype))
    if isinstance(executor, str):
        check_executor_name(executor, "pixel_clustering_preprocess")
    names = listed(image_name, "image_name")
    outputs = _outputs(sdata, output_image_name, len(names), overwrite)
    channel_names, images = clustered_images(sdata, names, channels)
    how.sigmas(len(channel_names))

    with tempfile.TemporaryDirectory(
        prefix=".scportrait-like-", dir=scratch_place(sdata)
    ) as folder:
        made = _Made(how, images, channel_names, Path(folder))
        made.run(executor, memory_limit)
        for number, (name, output) in enumerate(zip(names, outputs, strict=True)):
            pixels = made.pixels(number)
            if scratch_place(sdata) is None:
                pixels = pixels.compute(scheduler="threads")
            add_image(
                sdata,
                pixels,
                output,
                dims=("c", "z", "y", "x") if pixels.ndim == 4 else ("c", "y", "x"),
                chunks=made.chunks(number) if chunks is None else chunks,
                transformations=_transformations(raster(sdata, name)),
                scale_factors=scale_factors,
                c_coords=channel_names,
                overwrite=overwrite,
            )
    return sdata


def _sigma(given: Any) -> Any:
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else given


def _dtype_name(given: Any) -> str:
    known = {np.dtype(name): name for name in ("float32", "float64")}
    try:
        found = None if given is None else known.get(np.dtype(given))
    except TypeError:
        found = None
    if found is None:
        raise InputError(f"cast_dtype={given!r} is not allowed: float32 or float64")
    return found


def _outputs(sdata: SpatialData, given: Names, count: int, overwrite: bool) -> list[str]:
    """Names of the images that are made, which may be written."""
    outputs = listed(given, "output_image_name")
    if len(outputs) != count:
        raise InputError(f"output_image_name: {count} images need {count} names, not {outputs}")
    check_outputs(sdata, outputs, "images", overwrite)
    return outputs


def _transformations(element: Any) -> Any:
    from spatialdata.transformations import get_transformation

    return get_transformation(full_resolution(element), get_all=True)


@dataclass
class _Made:
    """Prepared pixels of images, in zarr arrays of a scratch folder.

    They lack the last division: what they are divided by is known only when all are there.
    """

    how: Preparation
    images: Sequence[PixelImage]
    channels: Sequence[str]
    folder: Path

    def run(self, executor: Executor | str | None, memory_limit: int | str | None) -> None:
        """Prepare them."""
        import zarr

        budget, workers = memory_budget(memory_limit), granted_cores()
        tune_allocator(budget < SCARCE)
        for image in self.images:
            self.how.check_reach(image.name, image.shape)
        for number, image in enumerate(self.images):
            zarr.create_array(
                self._place(number),
                shape=(
                    len(self.channels),
                    *map(sum, zip(image.shape, image.grid.phase, strict=True)),
                ),
                dtype=self.how.dtype,
                chunks=self._stored_chunks(number),
                compressors=None,
                filters=None,
            )
        dtypes = {image.source.dtype for image in self.images}
        dtype = next((each for each in dtypes if not is_small(each)), min(dtypes, key=str))
        places = [self._place(number) for number in range(len(self.images))]
        stages = preparation_stages(self.how, dtype, channels=self.channels, keep=places)
        values = sum(image.n_pixels * len(self.channels) for image in self.images)
        plan = Plan(
            units_of(self.images, stages),
            unit_bytes=max(map(self._tile_bytes, self.images)),
            seconds=values * _SECONDS_A_VALUE * sum(stage.tiled for stage in stages),
        )
        warm_up(dtypes, self.how.dtype)
        choice = choose_executor(executor, workers, plan.seconds)
        sink = _Numbers()

        def make_task(run: RunDirectory) -> PixelTask:
            looked_at = self.images
            if is_separate(choice):
                looked_at = [
                    replace(image, source=spilled(image.source, run.path)) for image in looked_at
                ]
            works = {stage.name: stage.work for stage in stages}
            sink.task = PixelTask(tuple(looked_at), works, run.units_path)
            return sink.task

        with disk_errors(self.folder):
            run_in_scratch(plan, make_task, sink, Resources(choice, "threads", workers, budget, 1))
        self.numbers = sink.numbers

    def pixels(self, number: int) -> Any:
        """A dask array (c, [z,] y, x) of an image's prepared pixels, with the last division."""
        import dask.array as da

        image = self.images[number]
        stored = ZarrSource.open(self._place(number))
        shape = (len(self.channels), *image.shape)
        finished = _Finished(stored, (0, *image.grid.phase), shape, self.how, self.numbers)
        from_array: Any = da.from_array  # it carries no annotations
        chunks = stored.chunks if not any(image.grid.phase) else self.chunks(number)
        return from_array(finished, chunks=chunks, name=False, meta=np.empty(0, stored.dtype))

    def chunks(self, number: int) -> Chunks:
        """Chunks of an output: those of the image, where it has such."""
        image = self.images[number]
        others = (1,) * (len(image.shape) - 2)
        standard = (1, *others, _PLAIN_EDGE, _PLAIN_EDGE)
        given = image.source.chunks
        wanted = standard if prod(given[-2:]) == 1 else (1, *given[1:])
        shape = (len(self.channels), *image.shape)
        return tuple(min(edge, n) for edge, n in zip(wanted, shape, strict=True))

    def _stored_chunks(self, number: int) -> Chunks:
        """Those of the output where tiles are made of them: then each is written and read once."""
        image = self.images[number]
        wanted = self.chunks(number)[1:]
        fits = zip(wanted, image.grid.edges, image.shape, strict=True)
        return (
            1,
            *(
                edge if n <= of_tile or of_tile % edge == 0 else of_tile
                for edge, of_tile, n in fits
            ),
        )

    def _place(self, number: int) -> Path:
        return self.folder / f"prepared-{number}"

    def _tile_bytes(self, image: PixelImage) -> int:
        """Memory of a unit: rows of a tile, a plane as it is read, and with what lies around."""
        pixels, itemsize = prod(image.grid.edges), np.dtype(self.how.dtype).itemsize
        together = min(image.source.chunks[0], image.source.shape[0])
        plane = image.source.dtype.itemsize * (1 + together) + 3 * itemsize
        return pixels * (itemsize * len(self.channels) + plane) + (16 << 20)


@dataclass(frozen=True)
class _Finished:
    """Stored pixels as an array that is read part by part, divided for the last time on the way.

    Attributes
    ----------
    stored
        (c, [z,] y, x).
    first
        Where the image begins there, along each axis.
    shape
        Of the image.
    how, numbers
        What they are divided by.
    """

    stored: Source
    first: tuple[int, ...]
    shape: tuple[int, ...]
    how: Preparation
    numbers: Percentiles

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.stored.dtype

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> Any:
        parts = [part.indices(n) for part, n in zip(index, self.shape, strict=True)]
        region = (slice(a + at, b + at) for (a, b, _), at in zip(parts, self.first, strict=True))
        values = np.require(self.stored.read(tuple(region)), requirements=["C", "W"])
        finish = finishing(self.how, self.numbers)
        for column, each in enumerate(values, parts[0][0]):
            finish(column, each)
        return values


class _Numbers:
    """A sink that takes the percentiles; pixels are where they belong already."""

    task: PixelTask
    numbers: Percentiles

    def add(self, unit: Unit, result: UnitReader) -> None:
        """Nothing is taken one by one."""
        result.release()

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Read the percentiles, before their files go."""
        self.numbers = percentiles_of(self.task)

    def abort(self) -> None:
        """The folder goes with the call."""
