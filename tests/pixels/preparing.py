"""A preparation in plain numpy and scipy, and runs of ours over arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from scportrait_like.pixels.images import PixelImage
from scportrait_like.pixels.preparation import (
    Percentiles,
    Preparation,
    PreparedPixels,
    percentiles_of,
    preparation_stages,
)
from scportrait_like.pixels.stages import PixelTask, Stage, units_of
from scportrait_like.raster.reading import Reading
from scportrait_like.raster.sources import source_of
from scportrait_like.raster.tiles import TileGrid
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.runner import Resources
from scportrait_like.run.scratch import run_in_scratch
from scportrait_like.run.unitfile import UnitReader, UnitWriter

Array = np.ndarray[Any, Any]


def oracle(images: Sequence[Array], how: Preparation) -> tuple[list[Array], Percentiles]:
    """Prepare images (c, [z,] y, x), all in float64 after the cast."""
    n = len(images[0])
    with np.errstate(over="ignore"):
        values = [image.astype(how.dtype).astype(np.float64) for image in images]
    channel = threshold = post = None
    if how.p is not None:
        channel = _percentiles(values, how.p)
        values = [_by_channel(image, channel) for image in values]
    if how.p_sum is not None:
        threshold = float(
            _percentiles([v.sum(axis=0, keepdims=True) for v in values], how.p_sum)[0]
        )
    values = [_blurred(image, how.sigmas(n)) for image in values]
    with np.errstate(invalid="ignore", divide="ignore"):
        for image in values:
            total = image.sum(axis=0)
            if threshold is not None:
                image[:, ~(total > threshold)] = np.nan
            if threshold is not None or how.norm_sum:
                image[:, ~np.isfinite(total)] = np.nan
            if how.norm_sum:
                image[:, total == 0] = np.nan
                image /= total
    if how.p_post is not None:
        post = _percentiles(values, how.p_post)
        values = [_by_channel(image, post) for image in values]
    if how.cap_max is not None:
        values = [np.minimum(image, how.cap_max) for image in values]
    return values, Percentiles(_plain(channel), threshold, _plain(post))


def _percentiles(images: Sequence[Array], p: float) -> Array:
    """Of each channel, the mean over the images."""

    def there(channel: Array) -> Array:
        return channel[(channel != 0) & ~np.isnan(channel)]

    every = [[np.percentile(there(channel), p) for channel in image] for image in images]
    return np.mean(every, axis=0)


def _by_channel(image: Array, by: Array) -> Array:
    return image / by.reshape(-1, *[1] * (image.ndim - 1))


def _blurred(image: Array, sigmas: Sequence[float]) -> Array:
    out = np.empty_like(image)
    for channel, sigma, done in zip(image, sigmas, out, strict=True):
        done[:] = gaussian_filter(channel, (*[0] * (channel.ndim - 2), sigma, sigma))
    return out


def _plain(found: Array | None) -> tuple[float, ...] | None:
    return None if found is None else tuple(found.tolist())


class _Rows:
    """Stage that leaves prepared rows, as those that follow a preparation see them."""

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        out.put("rows", task.pixels(unit, reading))


class _Sink:
    """Puts rows into arrays."""

    task: PixelTask
    units: dict[str, list[str]]

    def __init__(self, images: Sequence[Array], how: Preparation) -> None:
        self.found = [np.full(image.shape, -1, how.dtype) for image in images]
        self.units = {}
        self.numbers: Percentiles

    def add(self, unit: Unit, result: UnitReader) -> None:
        self.units.setdefault(unit.what["stage"], []).append(unit.name)
        if unit.what["stage"] == "rows":
            _, tile = self.task.place(unit)
            part = self.found[unit.what["image"]][(slice(None), *tile.region)]
            part[...] = result["rows"].reshape(part.shape)
        result.release()

    def flush(self) -> None: ...

    def close(self) -> None:
        self.numbers = percentiles_of(self.task)

    def abort(self) -> None: ...


def prepared(
    images: Sequence[Any],
    how: Preparation,
    edges: tuple[int, ...] | None = None,
    known: Percentiles | None = None,
    executor: str = "inline",
    channels: Sequence[str] = (),
    trains: bool = False,
) -> tuple[list[Array], Percentiles, Any, dict[str, float]]:
    """Prepare arrays (c, [z,] y, x) in tiles of those edges.

    Returns
    -------
    Images, percentiles, the sink, and the figures of the run.
    """
    sources = [source_of(image) for image in images]
    looked_at = [
        PixelImage(
            f"image {number}",
            source,
            tuple(range(source.shape[0])),
            TileGrid(source.shape[1:], edges or source.shape[1:]),
        )
        for number, source in enumerate(sources)
    ]
    stages = preparation_stages(how, sources[0].dtype, known, channels, trains=trains)
    stages.append(Stage("rows", _Rows()))
    works = {stage.name: stage.work for stage in stages}
    sink = _Sink(images, how)

    def make_task(run: Any) -> PixelTask:
        sink.task = PixelTask(
            tuple(looked_at), works, Path(run.units_path), PreparedPixels(how, known)
        )
        return sink.task

    report = run_in_scratch(
        Plan(units_of(looked_at, stages)),
        make_task,
        sink,
        Resources(executor, executor, 2, 8 << 30, 1),
    )
    return sink.found, sink.numbers, sink, report.parts


def assert_alike(found: Sequence[Array], wanted: Sequence[Array], dtype: str) -> None:
    """Equal to 1e-6 (in float32), with NaN at the same pixels."""
    for ours, plain in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        assert np.array_equal(np.isnan(ours), np.isnan(plain))
        # Values of mixed signs cancel: to the size of the others nothing is lost.
        scale = np.nanmax(np.abs(plain), initial=0) * (1e-7 if dtype == "float32" else 1e-12)
        np.testing.assert_allclose(ours, plain, 1e-6 if dtype == "float32" else 1e-10, scale)
