"""What all tests share: a small tissue, and a project folder that holds it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from itertools import pairwise
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scportrait_like.datasets import tissue
from scportrait_like.project import Project

Pixels = np.ndarray[Any, Any]

EXTRACTION = {"HDF5CellExtraction": {"image_size": 32, "threads": 1}}
CHANNELS = ["DNA", "CD45", "CD3"]


# What the killed processes of the tests do; the fork server imports it once.
PRELOADED = ["runs.killed", "store.killed"]


@pytest.fixture(scope="session")
def fork_server() -> ForkServerContext:
    """Forks processes that have all modules imported and no threads: they start at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # Python 3.11's fork server does not take over this process's sys.path.
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        process = context.Process(target=int)
        process.start()
        process.join()
    return context


@pytest.fixture(scope="session")
def small_tissue() -> tuple[Pixels, Pixels, Pixels]:
    """Image (3, 300, 420) uint16, and the labels of cells and of nuclei (300, 420) uint32."""
    made = tissue((3, 300, 420), seed=7)
    return made.read_image(), made.read_labels(), made.read_nuclei()


@pytest.fixture
def image(small_tissue: tuple[Pixels, Pixels, Pixels]) -> Pixels:
    return small_tissue[0]


@pytest.fixture
def labels(small_tissue: tuple[Pixels, Pixels, Pixels]) -> Pixels:
    return small_tissue[1]


@pytest.fixture
def nuclei(small_tissue: tuple[Pixels, Pixels, Pixels]) -> Pixels:
    return small_tissue[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project with a config for small pictures."""
    return Project(tmp_path / "project", EXTRACTION)


@pytest.fixture
def loaded(project: Project, image: Pixels, labels: Pixels) -> Project:
    """A project with an image and a mask."""
    project.load_input_from_array(image, CHANNELS)
    project.load_labels(labels)
    return project


@pytest.fixture
def log_of() -> Callable[[Project], str]:
    """Read the log file of a project."""
    return lambda project: (project.project_location / "processing.log").read_text()


Levels = list[Pixels]


def read_levels(project: Project, name: str) -> tuple[Levels, Any]:
    """All levels of a raster as spatialdata reads them from the disk, and the element."""
    import spatialdata

    element = spatialdata.read_zarr(project.filehandler.path)[name]
    if hasattr(element, "children"):
        arrays = [
            next(iter(scale.data_vars.values())).data.compute()
            for scale in element.children.values()
        ]
    else:
        arrays = [element.data.compute()]
    return arrays, element


@pytest.fixture
def check_image() -> Callable[..., Any]:
    """Check that an image of the store holds exactly these pixels, with a pyramid for viewers."""

    def check(
        project: Project, pixels: Pixels, channels: list[str], name: str = "input_image"
    ) -> Any:
        from spatialdata.models import get_channel_names
        from spatialdata.transformations import Identity, get_transformation

        levels, element = read_levels(project, name)
        assert levels[0].dtype == pixels.dtype.newbyteorder("=")
        np.testing.assert_array_equal(levels[0], pixels)
        assert list(get_channel_names(element)) == channels
        assert isinstance(get_transformation(element), Identity)
        assert max(levels[-1].shape[1:]) <= 1024
        for fine, coarse in pairwise(levels):
            assert coarse.shape == (fine.shape[0], -(-fine.shape[1] // 2), -(-fine.shape[2] // 2))
        return element

    return check


@pytest.fixture
def check_labels() -> Callable[..., None]:
    """Check that labels of the store hold exactly these ids, on every level, and their centers."""

    def check(project: Project, pixels: Pixels, name: str = "seg_all_cytosol") -> None:
        from skimage.measure import regionprops_table

        levels, _ = read_levels(project, name)
        assert levels[0].dtype == pixels.dtype.newbyteorder("=")
        np.testing.assert_array_equal(levels[0], pixels)
        known = set(np.unique(pixels).tolist())
        for coarse in levels[1:]:
            assert set(np.unique(coarse).tolist()) <= known
        ids, plain = np.unique(pixels, return_inverse=True)
        if ids[0] != 0:
            ids, plain = np.concatenate([[0], ids]), plain + 1
        props = regionprops_table(plain.reshape(pixels.shape), properties=("label", "centroid"))
        points = project.sdata[f"centers_{name}"].compute()
        assert list(points.columns) == ["x", "y"]
        assert points.index.to_numpy().dtype == np.uint64
        assert points.index.name is None
        assert points.index.tolist() == ids[props["label"]].tolist()
        np.testing.assert_allclose(points["x"], props["centroid-1"], rtol=1e-12)
        np.testing.assert_allclose(points["y"], props["centroid-0"], rtol=1e-12)

    return check
