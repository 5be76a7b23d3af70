"""A step of a user's own: one class in one file, with its settings and its work."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from scportrait_like.config import StepConfig
from scportrait_like.raster.sources import ZarrSource
from scportrait_like.run.plan import Plan, Unit
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.unitfile import UnitReader, UnitWriter
from scportrait_like.step import ProcessingStep

ROWS = 40  # of the image a unit


class CountBrightConfig(StepConfig):
    """Section ``CountBright``: pixels above `threshold` are counted, channel by channel."""

    threshold: int = 100


@dataclass(frozen=True)
class CountRows:
    """The work: counts in some rows of the image."""

    image: ZarrSource
    threshold: int
    armed: str

    def __call__(
        self, unit: Unit, out: UnitWriter, batch_size: int, check: Callable[[], None]
    ) -> Mapping[str, float]:
        if self.armed == unit.name:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.armed == f"raise {unit.name}":
            raise ArithmeticError("no luck")
        pixels = self.image.read((slice(None), slice(*unit.what["rows"]), slice(None)))
        out.put("counts", (pixels > self.threshold).sum(axis=(1, 2)))
        return {"pixels": float(pixels.size)}


class CountSink:
    """Adds up the counts of the units and writes them as a line a channel."""

    def __init__(self, path: Path) -> None:
        self.path, self.total = path, 0

    def add(self, unit: Unit, result: UnitReader) -> None:
        self.total = self.total + result["counts"].astype(np.int64)

    def flush(self) -> None: ...

    def close(self) -> None:
        self.path.write_text("".join(f"{count}\n" for count in self.total))

    def abort(self) -> None: ...


class CountBright(ProcessingStep):
    """Count bright pixels."""

    Config: ClassVar[type[StepConfig]] = CountBrightConfig
    config: CountBrightConfig
    folder: ClassVar[str] = "count_bright"
    armed: ClassVar[str] = ""

    def process(self, overwrite: bool | None = None) -> list[int]:
        path = self.execute({}, overwrite) / "counts.txt"
        return [int(line) for line in path.read_text().split()]

    def inputs(self) -> tuple[str, ...]:
        return (self.config.image,)

    def _image(self) -> ZarrSource:
        return ZarrSource.open(self.filehandler.array_path(self.config.image))

    def plan(self, call: Mapping[str, Any]) -> Plan:
        height = self._image().shape[1]
        starts = range(0, height, ROWS)
        return Plan(
            [Unit(f"rows-{y:05d}", 0, {"rows": [y, min(y + ROWS, height)]}) for y in starts]
        )

    def task(self, plan: Plan, run: RunDirectory) -> CountRows:
        return CountRows(self._image(), self.config.threshold, self.armed)

    def sink(self, plan: Plan, output: Path, call: Mapping[str, Any]) -> CountSink:
        return CountSink(output / "counts.txt")
