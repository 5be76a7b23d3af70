"""A project to read and write."""

from __future__ import annotations

from pathlib import Path

import pytest
from spatialdata.transformations import Identity, Scale

from scportrait_like.filehandler import FileHandler

from .helpers import MAKERS, image_pixels
from .killed import place_labels


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
