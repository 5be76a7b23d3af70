"""Both programs on the same stores: what scPortrait makes, and what this package makes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

import scportrait_like as sl

HERE = Path(__file__).parent
CODEX = HERE.parents[2] / "shared" / "data" / "codex_intestine"
NUCLEUS, CYTOSOL = "seg_all_nucleus", "seg_all_cytosol"
CHANNELS = ["DAPI", "CD45", "a marker with a long name, kept in full"]


@dataclass(frozen=True)
class Case:
    """One extraction, the same for both.

    Attributes
    ----------
    store
        Name of the input store, see `_STORES`.
    masks
        Labels that are loaded.
    config
        What differs from the common section.
    n_cells
        Of a partial run.
    """

    store: str = "small"
    masks: tuple[str, ...] = (NUCLEUS, CYTOSOL)
    config: dict[str, Any] = field(default_factory=dict)
    n_cells: int | None = None

    @property
    def section(self) -> dict[str, Any]:
        common = {
            "threads": 2,
            "image_size": 64,
            "normalize_output": True,
            "normalization_range": [0.001, 0.999],
            "compression": "lzf",
        }
        return common | self.config


CASES = {
    "two masks": Case(),
    "nucleus, wide range": Case(masks=(NUCLEUS,), config={"normalization_range": [0.05, 0.9]}),
    "cytosol, gzip": Case(masks=(CYTOSOL,), config={"compression": "gzip"}),
    "raw": Case(config={"normalize_output": False}),
    "size 128": Case(config={"image_size": 128}),
    "partial": Case(n_cells=60),
    # Tiles are about 2048 pixels: cells lie across their borders here.
    "several tiles": Case("large"),
    "codex": Case("codex", (CYTOSOL,)),
}


@dataclass(frozen=True)
class Made:
    """What one program made of a case."""

    project: Path
    h5sc: Path


def _python() -> Path | None:
    given = os.environ.get("SCPORTRAIT_PYTHON")
    python = Path(given) if given else HERE.parents[1] / ".venv-peers" / "bin" / "python"
    return python if python.exists() else None


@pytest.fixture(scope="session")
def peer_python() -> Path:
    python = _python()
    if python is None:
        pytest.skip(
            "no environment with scPortrait: `make test-peers` makes it, or set SCPORTRAIT_PYTHON"
        )
    return python


@pytest.fixture(scope="session")
def run_peer(peer_python: Path) -> Callable[..., dict[str, Any]]:
    """Run one of the scripts here in the peer's environment; its last line is JSON."""

    def run(script: str, *args: object) -> dict[str, Any]:
        done = subprocess.run(
            [peer_python, HERE / script, *map(str, args)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Input stores by name, made once."""
    folder = tmp_path_factory.mktemp("stores")

    @cache
    def make(name: str) -> Path:
        path = folder / f"{name}.zarr"
        _STORES[name](path)
        return path

    return make


@pytest.fixture(scope="session")
def theirs(
    run_peer: Callable[..., dict[str, Any]],
    store: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Made]:
    """scPortrait's run of a case, made once."""
    folder = tmp_path_factory.mktemp("theirs")

    @cache
    def make(name: str) -> Made:
        case, project = CASES[name], folder / name
        config = folder / f"{name}.yml"
        section = {**case.section, "cache": str(folder)}
        config.write_text(yaml.safe_dump({"name": "peer", "HDF5CellExtraction": section}))
        args: list[object] = ["--store", store(case.store), "--config", config]
        args += ["--project", project, "--interval", 0]
        for mask in case.masks:
            args += ["--nucleus" if mask == NUCLEUS else "--cytosol", mask]
        if case.n_cells is not None:
            args += ["--partial", case.n_cells]
        return Made(project, Path(run_peer("run_scportrait.py", *args)["h5sc"]))

    return make


@pytest.fixture(scope="session")
def ours(
    store: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Made]:
    """Our run of a case, made once."""
    folder = tmp_path_factory.mktemp("ours")

    @cache
    def make(name: str) -> Made:
        case, path = CASES[name], folder / name
        project = sl.Project(path, {"name": "peer", "HDF5CellExtraction": case.section})
        project.load_input_from_sdata(
            store(case.store),
            "input_image",
            nucleus_segmentation_name=NUCLEUS if NUCLEUS in case.masks else None,
            cytosol_segmentation_name=CYTOSOL if CYTOSOL in case.masks else None,
            keep_all=False,
        )
        return Made(path, project.extract(partial=case.n_cells is not None, n_cells=case.n_cells))

    return make


def _small(path: Path) -> None:
    """430 x 380 pixels: cells with holes, in two pieces, and of one pixel."""
    tissue = sl.datasets.tissue((3, 430, 380), 26, seed=3, cell_radius=9)
    nuclei, labels = tissue.read_nuclei(), tissue.read_labels()
    for number, cell in enumerate(np.unique(labels)[1:]):
        y, x = np.argwhere(labels == cell).mean(axis=0).round().astype(int)
        for mask in (nuclei, labels):
            if number % 7 == 0:
                mask[y : y + 2, x : x + 2] = 0
            if number % 31 == 5 and x > 40:
                mask[y, x - 30] = cell
            if number % 31 == 6:
                mask[mask == cell] = 0
                mask[y, x] = cell
    # Both masks hold the same ids: scPortrait leaves out what only the cytosol mask has.
    labels[~np.isin(labels, nuclei)] = 0
    nuclei[~np.isin(nuclei, labels)] = 0
    _write(path, tissue.read_image(), CHANNELS, {NUCLEUS: nuclei, CYTOSOL: labels}, 150)


def _large(path: Path) -> None:
    tissue = sl.datasets.tissue((2, 2300, 2250), 26, seed=4, cell_radius=9)
    masks = {NUCLEUS: tissue.read_nuclei(), CYTOSOL: tissue.read_labels()}
    _write(path, tissue.read_image(), CHANNELS[:2], masks, 150)


def _codex(path: Path) -> None:
    """Real tissue: some labels are in more than one piece."""
    import tifffile

    image = CODEX / "R001_X003_Y004_image.ome.tif"
    if not image.exists():
        pytest.skip(f"{CODEX} is absent: real tissue is not part of the project")
    names = [f"channel {number}" for number in range(8)]
    labels = tifffile.imread(CODEX / "R001_X003_Y004_labels_expert1.tif").astype(np.uint32)
    _write(path, tifffile.imread(image), names, {CYTOSOL: labels}, 512)


_STORES: dict[str, Callable[[Path], None]] = {"small": _small, "large": _large, "codex": _codex}


def _write(
    path: Path,
    image: NDArray[Any],
    channels: list[str],
    masks: dict[str, NDArray[Any]],
    chunk: int,
) -> None:
    """Write a store that scPortrait 1.8 takes: a multi-scale image with channels that have names.

    (Of a single-scale image its loader raises an AttributeError, of numbered channels its
    extraction.)
    """
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    elements: dict[str, Any] = {
        "input_image": Image2DModel.parse(
            image,
            dims=("c", "y", "x"),
            c_coords=channels,
            scale_factors=[2],
            chunks=(1, chunk, chunk),
        )
    }
    for name, mask in masks.items():
        elements[name] = Labels2DModel.parse(
            mask, dims=("y", "x"), scale_factors=[2], chunks=(chunk, chunk + 20)
        )
    SpatialData.init_from_elements(elements).write(path)
