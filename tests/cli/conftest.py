"""A project folder, files to load, and a step of a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile

from scportrait_like import datasets

from .helpers import OWN_STEP, call, configure


@pytest.fixture
def tiffs(tmp_path: Path) -> tuple[Path, Path]:
    """An OME-TIFF of three channels, and a mask."""
    section = datasets.tissue((3, 200, 260), seed=5)
    image, mask = tmp_path / "image.ome.tif", tmp_path / "mask.tif"
    metadata = {"axes": "CYX", "Channel": {"Name": section.channel_names}}
    tifffile.imwrite(image, section.read_image(), photometric="minisblack", metadata=metadata)
    tifffile.imwrite(mask, section.read_labels())
    return image, mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project folder with a config for small pictures."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "config.yml").write_text("HDF5CellExtraction:\n  image_size: 32\n  threads: 1\n")
    return folder


@pytest.fixture
def own(folder: Path, tiffs: tuple[Path, Path]) -> Path:
    """A loaded project whose config names a step in its folder."""
    assert call("load", folder, "--image", tiffs[0]).exit_code == 0
    (folder / "count_step.py").write_text(OWN_STEP)
    configure(folder)
    return folder
