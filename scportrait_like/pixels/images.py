"""Images whose pixels, not cells, are the rows that are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.raster.reading import Reading
from scportrait_like.raster.sources import Source, phase_of
from scportrait_like.raster.tiles import Tile, TileGrid, tile_grid

# All channels of a tile are held at once; tiles grow until these are so many bytes.
_TILE_BYTES: Final = 128 << 20
_WIDER: Final[dict[str, np.dtype[Any]]] = {"f2": np.dtype(np.float32), "b1": np.dtype(np.uint8)}


@dataclass(frozen=True)
class PixelImage:
    """One image, some of its channels, and the tiles that it is worked on in.

    Attributes
    ----------
    name
        For messages.
    source
        (c, [z,] y, x).
    channels
        Positions of the channels, in the order wanted: the columns of a pixel's row.
    grid
        Tiles of ([z,] y, x).
    labels
        Cells of the same pixels ([z,] y, x), or None.
    """

    name: str
    source: Source
    channels: tuple[int, ...]
    grid: TileGrid
    labels: Source | None = None

    @classmethod
    def of(
        cls, name: str, source: Source, channels: tuple[int, ...], labels: Source | None = None
    ) -> PixelImage:
        """Cut an image into tiles of whole chunks.

        Raises
        ------
        InputError
            Pixels that are no real numbers of 64 bits at most.
        """
        dtype = source.dtype
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise InputError(
                f"image {name} is of {dtype}: pixels must be whole or real numbers of 64 bits "
                "at most"
            )
        chunks = [source.chunks[1:]] if labels is None else [source.chunks[1:], labels.chunks]
        held = max(source.dtype.itemsize, 4) * len(channels) * 2048**2
        depth = max(1, held // _TILE_BYTES)
        grid = tile_grid(source.shape[1:], *chunks, phase=phase_of(source)[1:], depth=depth)
        return cls(name, source, channels, grid, labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """([z,] y, x)."""
        return self.grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of rows as they are stored, in the machine's byte order; float16 as float32."""
        plain: np.dtype[Any] = self.source.dtype.newbyteorder("=")
        return _WIDER.get(plain.str[1:], plain)

    @property
    def n_pixels(self) -> int:
        """Pixels of a plane or volume."""
        return prod(self.shape)

    def planes(self, tile: Tile, reading: Reading) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield a tile of each channel ([z,] y, x), with its column; each chunk is read once."""
        columns = sorted(range(len(self.channels)), key=self.channels.__getitem__)
        ascending = [self.channels[column] for column in columns]
        for number, plane in reading.planes(self.source, ascending, tile):
            yield columns[number], plane

    def pixels(self, tile: Tile, reading: Reading) -> NDArray[Any]:
        """Rows of a tile's pixels as (c, n), of `dtype`; n in row-major order."""
        extents = [edge.stop - edge.start for edge in tile.region]
        found = np.empty((len(self.channels), prod(extents)), self.dtype)
        for column, plane in self.planes(tile, reading):
            found[column] = plane.reshape(-1)
        reading.lap("place")
        return found
