"""A project with a mask of all kinds of labels, and pictures of its cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from instances.cases import odd_labels, odd_pixels
from instances.oracle import windows
from runs.helpers import project_of

from scportrait_like import names
from scportrait_like.project import Project
from scportrait_like.raster import tiles
from scportrait_like.training import shards

Array = np.ndarray[Any, Any]
SHAPE = (150, 190)
DIAMETER = 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles, shards and blocks: small inputs have many."""
    monkeypatch.setattr(tiles, "TILE_EDGE", 32)
    monkeypatch.setattr(shards, "SHARDS", 4)
    monkeypatch.setattr(shards, "_BLOCK_BYTES", 3 * 2 * DIAMETER**2 * 2)


@pytest.fixture(scope="session")
def rasters() -> tuple[Array, Array]:
    """Image (2, y, x) uint16 and labels (y, x) int64, ids sparse and in no order."""
    rng = np.random.default_rng(11)
    mask = odd_labels(rng, (1, *SHAPE), "int64")[0]
    for layer in range(1, 5):
        more = odd_labels(rng, (1, *SHAPE), "int16")[0].astype(np.int64)
        mask = np.where((mask == 0) & (more > 0), more + 100_000 * layer, mask)
    return odd_pixels(rng, (2, *SHAPE), "uint16"), mask


@pytest.fixture(scope="session")
def project(rasters: tuple[Array, Array], tmp_path_factory: pytest.TempPathFactory) -> Project:
    image, mask = rasters
    config = {"image_size": 16, "threads": 1, "border": "pad"}
    folder = tmp_path_factory.mktemp("training") / "project"
    made = project_of(folder, config, image, mask, image_chunks=(32, 64), mask_chunks=(64, 32))
    made.extract()
    return made


@pytest.fixture(scope="session")
def h5sc(project: Project) -> Path:
    folder = project.project_location / names.EXTRACTION_DIR / names.EXTRACTION_DATA
    return folder / names.H5SC_FILE


@pytest.fixture(scope="session")
def pictures(project: Project) -> dict[int, Array]:
    """All planes of each picture, by id."""
    data = project.h5sc
    ids = data.obs[names.INSTANCE_KEY].tolist()
    return dict(zip(ids, data.obsm[names.IMAGES_KEY][:], strict=True))


@pytest.fixture(scope="session")
def cut(rasters: tuple[Array, Array]) -> dict[int, Array]:
    """The window of each label by the oracle, by id."""
    image, mask = rasters
    ids, _, found = windows(mask[None], image[:, None], DIAMETER)
    assert found is not None
    return dict(zip(ids.tolist(), found[:, :, 0], strict=True))
