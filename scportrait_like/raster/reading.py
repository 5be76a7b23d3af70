"""A unit's reading, apart from what is done with the pixels."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like.raster.sources import Region, Source, phase_of
from scportrait_like.raster.tiles import Tile

Check = Callable[[], None]


class Reading:
    """Reads what a unit needs, and keeps its figures.

    Parameters
    ----------
    check
        Raises when the run was interrupted.

    Attributes
    ----------
    parts
        Seconds by part (``seconds.read``, ...), ``chunks`` decoded and ``bytes`` of them.
    """

    def __init__(self, check: Check) -> None:
        self.check = check
        self.parts: defaultdict[str, float] = defaultdict(float)
        self._clock = time.perf_counter()

    def lap(self, part: str) -> None:
        """Add the time since the last lap to a part."""
        now = time.perf_counter()
        self.parts[f"seconds.{part}"] += now - self._clock
        self._clock = now

    def read(self, source: Source, region: Region) -> NDArray[Any]:
        """Read a region; best of whole chunks."""
        self.check()
        pixels = source.read(region)
        self.lap("read")
        axes = zip(region, phase_of(source), source.chunks, strict=True)
        self.parts["chunks"] += prod(
            (part.stop - 1 + before) // chunk - (part.start + before) // chunk + 1
            for part, before, chunk in axes
        )
        self.parts["bytes"] += pixels.nbytes
        return pixels

    def planes(
        self, image: Source, channels: Sequence[int], tile: Tile
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield a tile of each channel, with its place in `channels`.

        Channels that share chunks are read together.

        Parameters
        ----------
        image
            (c, [z,] y, x).
        channels
            Positions in the image; neighbours in a chunk should be neighbours here.
        tile
            In the plane or volume of a channel.
        """
        together, before = image.chunks[0], phase_of(image)[0]
        group, start, planes = -1, 0, np.empty(0)
        for number, channel in enumerate(channels):
            self.check()
            if (channel + before) // together != group:
                group = (channel + before) // together
                # Free the old planes before the new ones come.
                planes = np.empty(0)
                start = max(0, group * together - before)
                stop = min((group + 1) * together - before, image.shape[0])
                planes = self.read(image, (slice(start, stop), *tile.region))
            yield number, planes[channel - start]
