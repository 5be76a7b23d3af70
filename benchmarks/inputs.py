"""The inputs of the aggregation's benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import scportrait_like as sl
from benchmarks.common import DATA
from scportrait_like.raster.index import build_index
from scportrait_like.raster.sources import ZarrSource

SIX = "count,sum,mean,var,skew,kurtosis"


@dataclass(frozen=True)
class Input:
    """A store of synthetic tissue, under the names that a project has."""

    shape: tuple[int, int, int]
    chunk: int = 2048

    @property
    def name(self) -> str:
        return "tissue{}x{}".format(*self.shape)

    @property
    def path(self) -> Path:
        return DATA / f"{self.name}.zarr"

    @property
    def ids(self) -> Path:
        """The ids of its cells, without the background."""
        return DATA / f"{self.name}-ids.npy"

    def ensure(self) -> Input:
        if not self.path.exists():
            print(f"writing {self.path}", flush=True)
            DATA.mkdir(parents=True, exist_ok=True)
            chunks = (1, self.chunk, self.chunk)
            sl.datasets.tissue(self.shape, chunks=chunks).write_store(self.path, multiscale=False)
        if not self.ids.exists():
            np.save(self.ids, build_index(ZarrSource.open(self.array("labels"))).ids)
        return self

    def array(self, which: str) -> Path:
        """Folder of the zarr array of the image or of the labels."""
        names = {"image": "images/input_image", "labels": "labels/seg_all_cytosol"}
        return self.path / names[which] / "s0"

    @property
    def args(self) -> list[object]:
        return ["--image", self.array("image"), "--labels", self.array("labels")]


def say(given: Input, what: str) -> None:
    """Tell how far the measurement is."""
    print(f"{given.name}: {what}", flush=True)
