"""A project to read and write, and the fork server of the processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from spatialdata.transformations import Identity, Scale

from scportrait_like.filehandler import FileHandler

from . import killed
from .helpers import MAKERS, image_pixels
from .killed import place_labels


@pytest.fixture(scope="session")
def fork_server() -> ForkServerContext:
    """Forks processes that have all modules imported and no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([killed.__name__])
    # Python 3.11's fork server does not take over this process's sys.path.
    package = Path(__file__).parents[len(killed.__name__.split(".")) - 1]
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        process = context.Process(target=int)
        process.start()
        process.join()
    return context


@pytest.fixture
def handler(tmp_path: Path) -> FileHandler:
    """A project with one element of each kind, all of version 1."""
    handler = FileHandler(tmp_path / "project")
    pixels = image_pixels(1)
    with handler.raster_writer(
        "input_image",
        "images",
        pixels.shape,
        pixels.dtype,
        channel_names=["DAPI", "ü"],
        transforms={"global": Identity(), "micrometer": Scale([0.5, 0.5], ("y", "x"))},
        attributes={"revision": "r1"},
    ) as writer:
        writer.write((slice(None),) * 3, pixels)
    place_labels(handler, 1)
    for name, make in MAKERS.items():
        handler.write_element(name, make(1), attributes={"revision": f"{name}-1"})
    return handler
