"""Tissue, written once; and small tiles, so that small images make many units."""

from __future__ import annotations

from pathlib import Path

import pytest

from scportrait_like import datasets
from scportrait_like.raster import tiles

from .helpers import digests
from .script import CONFIG, TILE, Script


@pytest.fixture(scope="session")
def tissue_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 3 channels, 700 x 640 pixels, about 260 cells with their nuclei."""
    path = tmp_path_factory.mktemp("tissue") / "tissue.zarr"
    tissue = datasets.tissue((3, 700, 640), seed=5)
    return tissue.write_store(path, chunks=(1, 128, 128), multiscale=False, nuclei=True)


@pytest.fixture
def tiles_of_128(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_EDGE", 128)


@pytest.fixture(scope="session")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 1,000 cells in 64 tiles: seconds of work with gzip."""
    path = tmp_path_factory.mktemp("large") / "tissue.zarr"
    tissue = datasets.tissue((3, 1400, 1400), seed=6, chunks=(1, 175, 175))
    return tissue.write_store(path, multiscale=False, nuclei=True)


@pytest.fixture(scope="session")
def expected(large_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    script = Script(tmp_path_factory.mktemp("whole"), large_store, CONFIG, TILE)
    report = script.finish()
    assert report["computed"] >= 49
    return digests(script.output)
