"""Raster elements written by chunks, and their pyramids.

An image of any size is written in bounded memory: level 0 region by region, by whoever holds the
pixels, then each level from the one before it. The tasks are small frozen objects and the work
functions stand at the top level, so threads and processes can run them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scportrait_like import names
from scportrait_like.errors import InputError

if TYPE_CHECKING:
    import zarr

Region = tuple[slice, ...]
Map = Callable[[Callable[["Downsample"], None], Iterable["Downsample"]], Iterable[None]]

AXES: Final = {
    ("images", 3): ("c", "y", "x"),
    ("images", 4): ("c", "z", "y", "x"),
    ("labels", 2): ("y", "x"),
    ("labels", 3): ("z", "y", "x"),
}
# Output rows that are averaged at a time: keeps the float64 copies in the processor's cache.
_BAND: Final = 64


@dataclass(frozen=True)
class RasterPlan:
    """What a raster element will be; made by `plan_raster`.

    Attributes
    ----------
    kind
        ``images`` or ``labels``.
    axes
        Of the array, such as ("c", "y", "x").
    shape, dtype
        Of level 0.
    chunks
        Of all levels; an array smaller than a chunk has a chunk of its own size.
    channel_names
        One for each channel of an image; empty for labels.
    pyramid
        Whether there are coarser levels.
    """

    kind: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    channel_names: tuple[str, ...]
    pyramid: bool

    def level_shapes(self) -> list[tuple[int, ...]]:
        """The shape of each level, finest first.

        A pyramid halves y and x until the larger of them is at most `names.PYRAMID_SMALLEST`. It
        has two levels at least where there are two pixels, since scPortrait reads no other.
        """
        shapes = [self.shape]
        while self.pyramid and max(shapes[-1][-2:]) > 1:
            if len(shapes) > 1 and max(shapes[-1][-2:]) <= names.PYRAMID_SMALLEST:
                break
            *others, y, x = shapes[-1]
            shapes.append((*others, -(-y // 2), -(-x // 2)))
        return shapes


def plan_raster(
    kind: str,
    shape: Sequence[int],
    dtype: np.typing.DTypeLike,
    chunks: Sequence[int] | None = None,
    channel_names: Sequence[str] | None = None,
    pyramid: bool = True,
) -> RasterPlan:
    """Check what a raster element is to be.

    Parameters
    ----------
    kind
        ``images`` or ``labels``.
    shape
        (c, y, x) or (c, z, y, x) of an image, (y, x) or (z, y, x) of labels.
    dtype
        Of the pixels; labels are integers. Big-endian ones are written little-endian.
    chunks
        None: `names.CHUNK` along y and x, 1 along the others.
    channel_names
        One for each channel, all different; None numbers them. Labels have none.
    pyramid
        Whether to add coarser levels.

    Raises
    ------
    InputError
        If these do not fit each other.
    """
    edges = tuple(int(edge) for edge in shape)
    # By its text: numpy has two types of 64 bits, and zarr knows one of them.
    pixel = np.dtype(np.dtype(dtype).newbyteorder("=").str)
    axes = AXES.get((kind, len(edges)))
    if axes is None:
        raise InputError(
            f"No raster element of kind {kind!r} has the shape {edges}: images are (c, y, x) or "
            "(c, z, y, x), labels (y, x) or (z, y, x)."
        )
    if min(edges) < 1:
        raise InputError(f"A raster of shape {edges} has no pixels.")
    if pixel.kind not in ("iu" if kind == "labels" else "iufb"):
        raise InputError(f"{kind} cannot hold pixels of type {pixel}.")
    steps = tuple(chunks or (1,) * (len(edges) - 2) + (names.CHUNK, names.CHUNK))
    if len(steps) != len(edges) or min(steps) < 1:
        raise InputError(f"Chunks {steps} do not fit an array of shape {edges}.")
    channels = _checked_channels(kind, edges[0], tuple(channel_names or ()))
    return RasterPlan(kind, axes, edges, pixel, steps, channels, pyramid)


def _checked_channels(kind: str, count: int, given: tuple[str, ...]) -> tuple[str, ...]:
    if kind == "labels":
        if given:
            raise InputError("Labels have no channels, so they take no channel names.")
        return ()
    channels = tuple(str(name) for name in given) or tuple(f"channel_{i}" for i in range(count))
    if len(channels) != count:
        raise InputError(f"{len(channels)} channel names for {count} channels: {channels}.")
    twice = sorted({name for name in channels if channels.count(name) > 1})
    if twice:
        raise InputError(f"Channel names must differ; given more than once: {twice}.")
    return channels


@dataclass(frozen=True)
class Downsample:
    """One region of a level, to be made from the level before it."""

    fine: str
    coarse: str
    kind: str
    region: tuple[tuple[int, int], ...]


def downsample(task: Downsample) -> None:
    """Make one region: of all chunks of the finer level in turn, so that one is held at a time."""
    fine, coarse = _open(task.fine), _open(task.coarse)
    shape = tuple(stop - start for start, stop in task.region)
    pixels = np.empty(shape, coarse.dtype)
    # Where a chunk's edge is odd, blocks of 2 x 2 lie across chunks: then take two at a time.
    steps = [edge if edge % 2 else edge // 2 for edge in fine.chunks[-2:]]
    for piece in chunk_regions(shape, [*shape[:-2], *steps]):
        place = [start for start, _ in task.region]
        wanted = [slice(at + a, at + b) for at, (a, b) in zip(place, piece, strict=True)]
        wanted[-2:] = [slice(2 * cut.start, 2 * cut.stop) for cut in wanted[-2:]]
        inside = tuple(slice(*cut) for cut in piece)
        pixels[inside] = HALVE[task.kind](np.asarray(fine[tuple(wanted)]))
    coarse[tuple(slice(*cut) for cut in task.region)] = pixels


def halve_labels(fine: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Every second pixel along y and x, so that no id is invented."""
    return fine[..., ::2, ::2]


def halve_image(fine: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean of blocks of 2 x 2 pixels, at odd edges of the pixels that are there.

    Computed in float64 and, for integers, rounded half to even.
    """
    odd = [(0, edge % 2) for edge in fine.shape[-2:]]
    if any(extra for _, extra in odd):
        # A pixel repeated does not change the mean of those that are there.
        fine = np.pad(fine, [(0, 0)] * (fine.ndim - 2) + odd, mode="edge")
    out = np.empty((*fine.shape[:-2], fine.shape[-2] // 2, fine.shape[-1] // 2), fine.dtype)
    for start in range(0, out.shape[-2], _BAND):
        band = fine[..., 2 * start : 2 * (start + _BAND), :]
        total = np.add(band[..., ::2, ::2], band[..., ::2, 1::2], dtype=np.float64)
        total += np.add(band[..., 1::2, ::2], band[..., 1::2, 1::2], dtype=np.float64)
        total *= 0.25
        out[..., start : start + _BAND, :] = _to_dtype(total, fine.dtype)
    return out


def _to_dtype(
    values: np.ndarray[Any, np.dtype[np.float64]], dtype: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    if dtype.kind != "f":
        np.rint(values, out=values)
    if dtype.kind in "iu" and dtype.itemsize == 8:
        # The largest 64-bit integers round to a float beyond them.
        np.minimum(values, np.nextafter(float(np.iinfo(dtype).max), 0), out=values)
    return values.astype(dtype)


HALVE: Final = {"images": halve_image, "labels": halve_labels}


def write_region(path: str | Path, region: Region, pixels: np.ndarray[Any, Any]) -> None:
    """Write pixels into a region of the zarr array at `path`.

    Regions written at the same time must not share a chunk.
    """
    _open(path)[region] = pixels


def _open(path: str | Path) -> zarr.Array[Any]:
    import zarr

    # The path itself, not a string of it: zarr would take a "#" in it for part of a URL.
    return zarr.open_array(Path(path), mode="r+", zarr_format=3)


class RasterWriter:
    """Writes one raster element; made by `FileHandler.raster_writer`.

    Attributes
    ----------
    plan
        Shape, dtype, chunks and channel names.
    levels
        The folders of the levels' zarr arrays, finest first. Threads and processes may write to
        ``levels[0]`` with `write_region`, as long as no two share a chunk.
    """

    def __init__(self, plan: RasterPlan, levels: Sequence[Path]) -> None:
        self.plan = plan
        self.levels = tuple(levels)
        self._built = False

    def write(self, region: Region, pixels: np.ndarray[Any, Any]) -> None:
        """Write pixels into a region of level 0."""
        write_region(self.levels[0], region, pixels)

    def build_pyramid(self, map: Map = map) -> None:
        """Make the coarser levels; level 0 must be complete.

        Parameters
        ----------
        map
            Runs the tasks: the built-in `map`, or that of an executor.
        """
        for fine, coarse, shape in zip(
            self.levels, self.levels[1:], self.plan.level_shapes()[1:], strict=False
        ):
            # A list, since dask's executor takes no generators.
            tasks = [
                Downsample(str(fine), str(coarse), self.plan.kind, region)
                for region in chunk_regions(shape, self.plan.chunks)
            ]
            for _ in map(downsample, tasks):
                pass
        self._built = True

    def finish(self) -> None:
        """Build the pyramid unless that was done."""
        if not self._built:
            self.build_pyramid()


def chunk_regions(
    shape: Sequence[int], chunks: Sequence[int]
) -> Iterator[tuple[tuple[int, int], ...]]:
    """The regions of an array's chunks, each as (start, stop) along each axis, in order."""
    cuts = [
        [(start, min(start + step, edge)) for start in range(0, edge, step)]
        for edge, step in zip(shape, chunks, strict=True)
    ]
    yield from product(*cuts)
