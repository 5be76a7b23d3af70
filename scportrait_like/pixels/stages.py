"""Runs over the pixels of images: stages of units, and the task that does any of them.

A *stage* is one piece of work done in every tile of every image, or once for all of them (then it
merges what the tiles of the stage before have left). Each stage reads what earlier ones left in
their units' files, so a run that was killed anywhere goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from scportrait_like.pixels.images import PixelImage
from scportrait_like.raster.reading import Check, Reading
from scportrait_like.raster.tiles import Tile
from scportrait_like.run.plan import Unit
from scportrait_like.run.unitfile import UnitReader, UnitWriter


@dataclass(frozen=True)
class PixelTask:
    """The task of a run over pixels: small, and it pickles.

    Attributes
    ----------
    images
        What is looked at; all have the same channels.
    works
        What is done in each stage, by the stage's name: top-level functions, or frozen dataclasses
        that are called.
    units_path
        Folder of finished units.
    prepared
        What makes rows of stored pixels; None: they are taken as they are.
    """

    images: tuple[PixelImage, ...]
    works: Mapping[str, Work]
    units_path: Path
    prepared: Prepared | None = None

    def __call__(
        self, unit: Unit, out: UnitWriter, batch_size: int, check: Check
    ) -> Mapping[str, float]:
        """Do one unit."""
        reading = Reading(check)
        self.works[unit.what["stage"]](self, unit, out, reading)
        return reading.parts

    def place(self, unit: Unit) -> tuple[PixelImage, Tile]:
        """Image and tile of a unit."""
        image = self.images[unit.what["image"]]
        return image, image.grid[unit.what["tile"]]

    def pixels(self, unit: Unit, reading: Reading) -> NDArray[Any]:
        """Rows of a tile's pixels as (c, n), n in row-major order, in the order of channels."""
        if self.prepared is not None:
            return self.prepared.pixels(self, unit, reading)
        image, tile = self.place(unit)
        return image.pixels(tile, reading)

    def left(self, stage: str) -> UnitReader:
        """What a stage without tiles has left."""
        return UnitReader(self.units_path / stage)

    def left_in_tile(self, stage: str, image: int, tile: int) -> UnitReader:
        """What a stage has left in one tile."""
        return UnitReader(self.units_path / tile_unit(stage, image, tile))

    def left_in_image(self, stage: str, image: int) -> Iterator[UnitReader]:
        """What a stage has left in the tiles of an image, in their order."""
        for tile in range(len(self.images[image].grid)):
            yield self.left_in_tile(stage, image, tile)


Work = Callable[[PixelTask, Unit, UnitWriter, Reading], None]


class Prepared(Protocol):
    """What makes rows of stored pixels; frozen, and it pickles."""

    def pixels(self, task: PixelTask, unit: Unit, reading: Reading) -> NDArray[Any]:
        """Rows of a tile's pixels, as `PixelTask.pixels` has them; float32 or float64."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run over pixels.

    Attributes
    ----------
    name
        Unique in the run, usable in a file name.
    work
        What is done; one that has nothing to do in a tile leaves an empty file.
    tiled
        Whether it is done in every tile of every image, else once.
    what
        More for the work, plain JSON.
    """

    name: str
    work: Work
    tiled: bool = True
    what: Mapping[str, Any] = field(default_factory=dict)


def units_of(images: Sequence[PixelImage], stages: Sequence[Stage]) -> list[Unit]:
    """Units of all stages, one stage after the other."""
    units = []
    for number, stage in enumerate(stages):
        what = {"stage": stage.name, **stage.what}
        if not stage.tiled:
            units.append(Unit(stage.name, number, what))
            continue
        units += [
            Unit(tile_unit(stage.name, image, tile), number, {**what, "image": image, "tile": tile})
            for image, each in enumerate(images)
            for tile in range(len(each.grid))
        ]
    return units


def tile_unit(stage: str, image: int, tile: int) -> str:
    """Name of the unit of a tile."""
    return f"{stage}-{image}-{tile:06d}"
