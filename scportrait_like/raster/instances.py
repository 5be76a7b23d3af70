"""Windows of instances: a batch of cells, and what becomes of it.

A window holds, of the image's pixels around a cell, those of the cell (or all of them). Nothing of
it is kept but what a *head* makes of it: an embedding, some numbers, compressed bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import fill_windows
from scportrait_like.raster.cells import Cells
from scportrait_like.run.unitfile import UnitWriter

# Windows that a head gets at once, where nobody chose: about this many bytes.
BATCH_BYTES: Final = 8 << 20

_MADE: Final = "made."


@dataclass(frozen=True)
class Instances:
    """Some cells and the pixels of their boxes: what a head makes something of.

    Attributes
    ----------
    cells
        n of them.
    size
        Edge of the windows, d pixels.
    bits
        (z, pixels) uint8: 1 where a pixel of the boxes is the cell's own.
    values
        (c, z, pixels): the image's, or None.
    labels
        (z, pixels): the mask's, where they were asked for.
    remove_background
        Whether `images` shows the cell's own pixels only.
    """

    cells: Cells
    size: int
    bits: NDArray[np.uint8]
    values: NDArray[Any] | None
    labels: NDArray[Any] | None
    remove_background: bool

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Labels of the cells, (n,)."""
        return self.cells.ids

    def images(self) -> NDArray[Any]:
        """Windows of the image, (n, c, z, d, d), in its dtype; 0 beyond the image."""
        if self.values is None:
            raise ValueError("there is no image")
        n_channels, depth, _ = self.values.shape
        out = np.empty((len(self), n_channels, depth, self.size, self.size), self.values.dtype)
        for channel in range(n_channels):
            for z in range(depth):
                bits = self.bits[z] if self.remove_background else None
                self._fill(self.values[channel, z], bits, out[:, channel, z])
        return out

    def masks(self) -> NDArray[np.bool_]:
        """Where each cell is in its window, (n, 1, z, d, d)."""
        out = np.empty((len(self), 1, len(self.bits), self.size, self.size), np.uint8)
        for z, bits in enumerate(self.bits):
            self._fill(bits, None, out[:, 0, z])
        return out.view(np.bool_)

    def label_windows(self) -> NDArray[Any]:
        """Windows of the mask, (n, 1, z, d, d), in its dtype."""
        if self.labels is None:
            raise ValueError("labels were not asked for")
        depth = len(self.bits)
        out = np.empty((len(self), 1, depth, self.size, self.size), self.labels.dtype)
        for z in range(depth):
            bits = self.bits[z] if self.remove_background else None
            self._fill(self.labels[z], bits, out[:, 0, z])
        return out

    def pixels(self, number: int) -> NDArray[Any]:
        """Own pixels of one cell inside its window, (c, N), plane by plane, row by row."""
        if self.values is None:
            raise ValueError("there is no image")
        here = self.cells.flat(slice(number, number + 1))
        found: NDArray[Any] = self.values[:, :, here][:, self.bits[:, here] != 0]
        return found

    def _fill(self, pixels: NDArray[Any], bits: NDArray[np.uint8] | None, out: Any) -> None:
        cells = self.cells
        fill_windows(pixels, bits, cells.boxes, cells.offsets, cells.corners, self.size, out)


class Head(Protocol):
    """What becomes of windows: a frozen dataclass that pickles.

    It gets a batch of n cells and returns arrays by name, each with a row a cell, or with pieces
    one after the other for as many cells (compressed bytes, say).
    """

    def __call__(self, instances: Instances) -> Mapping[str, NDArray[Any]]:
        """Make something of a batch."""


def put_made(out: UnitWriter, number: int, found: Mapping[str, NDArray[Any]]) -> None:
    """Write what a head made of a unit's batch."""
    for name, each in found.items():
        out.put(f"{_MADE}{name}.{number}", each)


def results(held: Any, name: str) -> Iterator[NDArray[Any]]:
    """Yield what a head made of each batch of a unit, in order."""
    number = 0
    while f"{_MADE}{name}.{number}" in held:
        yield held[f"{_MADE}{name}.{number}"]
        number += 1


def made(held: Iterable[str]) -> list[str]:
    """Names of what a head made in a unit."""
    firsts = (name for name in held if name.startswith(_MADE) and name.endswith(".0"))
    return [name.removeprefix(_MADE).removesuffix(".0") for name in firsts]
