"""TIFF and OME-TIFF as sources: tiles and strips through tifffile's zarr view, plain pixels mapped.

A file is opened again by its path in each worker; nothing of it is held.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError, MissingInputError, ShapeError
from scportrait_like.identity import digest, files_identity
from scportrait_like.io.copying import RasterInput
from scportrait_like.io.loaders import (
    SqueezedSource,
    drop_axes,
    image_input,
    pixel_transforms,
)
from scportrait_like.raster.sources import Region, Source, StackSource, view

logger = logging.getLogger(__name__)

# Axes that tifffile names otherwise: samples of a pixel are channels, "Q" and "I" are unknown.
_CHANNEL_AXES: Final = "SQI"


def is_tiff(path: Path) -> bool:
    """Whether a path is named like a TIFF."""
    return path.is_file() and path.suffix.lower() in (".tif", ".tiff", ".btf", ".ome")


@dataclass(frozen=True)
class TiffSource:
    """The first series of a TIFF, level 0, with its own axes.

    Attributes
    ----------
    path
        The file.
    stamp
        Its inode and mtime.
    shape, dtype, chunks
        Of the series; chunks are its tiles, strips or planes.
    offset
        Where the pixels begin, if they lie uncompressed in one piece; else None.
    """

    path: str
    stamp: tuple[int, int]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    offset: int | None

    def read(self, region: Region) -> NDArray[Any]:
        """Decode a region."""
        if self.offset is not None:
            # Mapped for this read only: pages that stay mapped would count as taken memory.
            mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
            return np.array(mapped[region], self.dtype.newbyteorder("="))
        try:
            return np.asarray(_open_tiff(self.path, self.stamp)[region])
        except (RuntimeError, ValueError) as error:  # what decoders raise
            raise InputError(f"{self.path} cannot be read, it is damaged: {error}") from error


@lru_cache(maxsize=32)
def _open_tiff(path: str, stamp: tuple[int, int]) -> Any:
    import tifffile
    import zarr

    # Opened through its own store, which closes with the cache's entry; a text would be globbed.
    return zarr.open(tifffile.imread(Path(path), aszarr=True, level=0), mode="r")


@dataclass(frozen=True)
class ChannelLastSource:
    """A source of (y, x, c) as (c, y, x): samples of a pixel stand together."""

    source: Source

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, y, x)."""
        return (self.source.shape[2], *self.source.shape[:2])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.source.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """As (c, y, x)."""
        return (self.source.chunks[2], *self.source.chunks[:2])

    def read(self, region: Region) -> NDArray[Any]:
        """Read a region."""
        return np.moveaxis(self.source.read((*region[1:], region[0])), -1, 0)


@dataclass(frozen=True)
class _TiffFacts:
    source: Source
    names: list[str] | None
    pixel: tuple[Any, Any]


def _read_facts(path: Path) -> _TiffFacts:
    """Look into a TIFF: its first series as (c, y, x) or (y, x), channel names, pixel size."""
    import tifffile

    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes, shape = series.axes.upper(), tuple(series.shape)
            offset = None if series.is_pyramidal else series.dataoffset
            dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
            ome = file.ome_metadata
            found = path.stat()
            _check_length(path, file, found.st_size)
    except InputError:
        raise
    except (
        tifffile.TiffFileError,
        IndexError,
        KeyError,
        ValueError,
        RuntimeError,
        struct.error,
    ) as error:
        raise InputError(f"{path} cannot be read as TIFF: {error}") from error
    stamp = (found.st_ino, found.st_mtime_ns)
    if offset is not None:
        # Pixels are at hand one by one.
        chunks = (1,) * len(shape)
        source: Source = TiffSource(str(path), stamp, shape, dtype, chunks, offset)
    else:
        array = _open_tiff(str(path), stamp)
        chunks = tuple(array.chunks)
        source = TiffSource(str(path), stamp, shape, np.dtype(array.dtype), chunks, None)
    names, pixel = _ome_facts(ome, path)
    return _TiffFacts(_as_cyx(source, axes, str(path)), names, pixel)


def _check_length(path: Path, file: Any, length: int) -> None:
    """Refuse a file that ends before its pixels do: missing ones would be read as zeros."""
    series = file.series[0]
    needed = _next_page(file)
    if series.dataoffset is not None:
        needed = max(needed, series.dataoffset + series.size * series.dtype.itemsize)
    for page in series.pages:
        if page is not None:
            ends = zip(page.dataoffsets, page.databytecounts, strict=True)
            needed = max(needed, *(offset + count for offset, count in ends))
    if needed > length:
        raise InputError(f"{path} cannot be read, it is cut short: {needed - length} bytes lack")


def _next_page(file: Any) -> int:
    """Where the file says that a page follows the last one found; 0 if none does."""
    form, handle = file.tiff, file.filehandle
    after = file.pages[len(file.pages) - 1].offset
    handle.seek(after)
    (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(after + form.tagnosize + tags * form.tagsize)
    (offset,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
    return int(offset)


def _as_cyx(source: Source, axes: str, what: str) -> Source:
    if axes.endswith("YXS"):
        lead = len(axes) - 3
        if any(n > 1 for n in source.shape[:lead]):
            raise InputError(f"{what} has the axes {axes}; give one RGB plane or single channels")
        return ChannelLastSource(
            SqueezedSource(source, (lead, lead + 1, lead + 2)) if lead else source
        )
    if "C" not in axes:
        for axis in _CHANNEL_AXES:
            axes = axes.replace(axis, "C", 1) if "C" not in axes else axes
    return drop_axes(source, list(axes.lower()), what)


def _ome_facts(ome: str | None, path: Path) -> tuple[list[str] | None, tuple[Any, Any]]:
    """Channel names and the pixel size (y, x) with units from OME-XML, where they are there."""
    if ome is None:
        return None, (None, None)
    import tifffile

    try:
        image = tifffile.xml2dict(ome)["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
    except (ElementTree.ParseError, KeyError, TypeError) as error:
        logger.warning("the OME description of %s cannot be read: %s", path, error)
        return None, (None, None)
    channels = pixels.get("Channel", [])
    channels = channels if isinstance(channels, list) else [channels]
    names = [channel.get("Name") for channel in channels]
    sizes = []
    for axis in "YX":
        size = pixels.get(f"PhysicalSize{axis}")
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        sizes.append((float(size), unit) if size else None)
    known = [str(name) for name in names] if names and all(n is not None for n in names) else None
    return known, (sizes[0], sizes[1])


def tiff_plane(path: Path) -> tuple[Source, str, str]:
    """Source, identity and name of a TIFF with one plane, for a mask."""
    return _read_facts(path).source, files_identity(path), str(path)


Crop = Sequence[tuple[int | None, int | None]]


def tiff_input(
    paths: str | Path | Sequence[str | Path],
    channel_names: Sequence[str] | None,
    crop: Crop | None,
    remap: Sequence[int] | None,
) -> RasterInput:
    """Image from one multi-channel TIFF, or from one file a channel.

    Parameters
    ----------
    paths
        One path, or a list.
    channel_names
        Default: those of the OME metadata; for one file a channel its own, else the file's name.
    crop
        ``[(y0, y1), (x0, x1)]``, with the meaning of slices; None keeps the whole image.
    remap
        New order of the channels.

    Raises
    ------
    InputError, MissingInputError
        Files that do not fit each other, or are none.
    """
    files = [Path(p) for p in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if not files:
        raise InputError("file_paths is empty; give one TIFF, or one a channel")
    facts = [_read_facts(file) for file in files]
    source, found = _stack(files, facts)
    identity = digest(*[files_identity(file) for file in files])
    if crop is not None:
        source, cut = _cropped(source, crop)
        identity = digest(identity, "crop", cut)
    what = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    transforms = pixel_transforms(*facts[0].pixel)
    return image_input(source, identity, what, channel_names, remap, transforms, found)


def _stack(files: list[Path], facts: list[_TiffFacts]) -> tuple[Source, list[str] | None]:
    """One source of all files, and the channel names that they tell."""
    if len(files) == 1:
        return facts[0].source, facts[0].names
    planes: list[Source] = []
    names: list[str] = []
    for file, fact in zip(files, facts, strict=True):
        plane = fact.source
        if len(plane.shape) == 3 and plane.shape[0] == 1:
            plane = SqueezedSource(plane, (1, 2))
        if len(plane.shape) != 2:
            raise InputError(
                f"{file} has {plane.shape[0]} channels; of several files each holds one channel"
            )
        if plane.shape != (planes or [plane])[0].shape:
            raise ShapeError(f"{file} is {plane.shape} (y, x), but {files[0]} {planes[0].shape}")
        if plane.dtype != (planes or [plane])[0].dtype:
            raise InputError(f"{file} holds {plane.dtype}, but {files[0]} {planes[0].dtype}")
        planes.append(plane)
        names.append(fact.names[0] if fact.names else file.name.split(".")[0])
    return StackSource(tuple(planes)), names


def _cropped(source: Source, crop: Crop) -> tuple[Source, list[list[int]]]:
    lengths = source.shape[-2:]
    try:
        cut = [slice(*part).indices(n)[:2] for part, n in zip(crop, lengths, strict=True)]
    except (TypeError, ValueError):
        raise InputError(f"crop {crop!r} must be [(y0, y1), (x0, x1)]") from None
    if any(start >= stop for start, stop in cut):
        raise InputError(f"crop {crop!r} leaves no pixel of an image of {lengths} (y, x)")
    index = (*[slice(None)] * (len(source.shape) - 2), *(slice(*part) for part in cut))
    return view(source, index), [list(part) for part in cut]
