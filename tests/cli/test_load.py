"""`load`: which files it takes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from scportrait_like import datasets, names
from scportrait_like.filehandler import FileHandler
from scportrait_like.project import Project

from .helpers import call


def test_load_takes_tiffs_and_names_what_it_loaded(folder: Path, tiffs: tuple[Path, Path]) -> None:
    image, mask = tiffs
    loaded = call("load", folder, "--image", image, "--labels", mask)
    assert loaded.exit_code == 0, loaded.stderr
    assert "input_image (3 x 200 x 260, uint16): DNA, CD45, CD3" in loaded.stdout
    assert "seg_all_cytosol (200 x 260, uint32)" in loaded.stdout
    again = call("load", folder, "--labels", mask, "--kind", "nucleus", "--image", image)
    assert again.exit_code == 0
    assert "seg_all_nucleus" in again.stdout


def test_load_takes_one_file_a_channel_and_their_names(folder: Path, tmp_path: Path) -> None:
    planes = datasets.tissue((2, 90, 80)).read_image()
    words: list[str | Path] = []
    for name, plane in zip("ab", planes, strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", plane)
        words += ["--image", tmp_path / f"{name}.tif"]
    assert call("load", folder, *words, "--channels", "DNA, CD3").exit_code == 0
    project = Project(folder)
    assert project.filehandler.channel_names(names.INPUT_IMAGE) == ["DNA", "CD3"]
    assert np.array_equal(project.filehandler.open_array(names.INPUT_IMAGE)[:], planes)


def test_load_takes_stores(folder: Path, tmp_path: Path) -> None:
    section = datasets.tissue((2, 120, 90))
    store = section.write_store(tmp_path / "tissue.zarr", nuclei=True)
    assert call("load", folder, "--image", store, "--cytosol", names.SEG_CYTOSOL).exit_code == 0
    elements = Project(folder).filehandler.element_names()
    assert {names.INPUT_IMAGE, names.SEG_CYTOSOL} <= set(elements)
    other = tmp_path / "other"
    other.mkdir()
    element = store / "images" / names.INPUT_IMAGE
    loaded = call("load", other, "--image", element, "--channels", "one,two")
    assert loaded.exit_code == 0, loaded.stderr
    assert "one, two" in loaded.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to load"),
        (["--image", "nowhere.tif"], "nowhere.tif: no such file or folder"),
        (["--image", "IMAGE", "--nucleus", "x"], "no SpatialData store"),
        (["--image", "IMAGE", "--channels", "a,b"], "2"),
        (["--image", "STORE", "--image", "IMAGE"], "is a folder"),
        (["--image", "STORE", "--channels", "a,b"], "keep their names"),
        (["--image", "TWO"], "has 2 images (one, two); name one with --image-name"),
        (["--labels", "IMAGE"], "(3, 200, 260)"),
        (["--labels", "MASK", "--kind", "other"], "other"),
        (["--image", "IMAGE", "--colour", "red"], "No such option"),
        (["--image", "IMAGE", "--memory-limit", "much"], "memory_limit"),
    ],
)
def test_load_refuses_wrong_use_in_words(
    words: list[str], said: str, folder: Path, tiffs: tuple[Path, Path], tmp_path: Path
) -> None:
    places = {"IMAGE": tiffs[0], "MASK": tiffs[1]}
    if "STORE" in words:
        places["STORE"] = datasets.tissue((2, 64, 64)).write_store(tmp_path / "s.zarr")
    if "TWO" in words:
        handler = FileHandler(tmp_path / "two")
        for name in ("one", "two"):
            with handler.raster_writer(name, "images", (1, 8, 8), "uint8"):
                pass
        places["TWO"] = handler.path
    refused = call("load", folder, *[places.get(word, word) for word in words])
    assert refused.exit_code == 2, refused.output
    assert said in refused.stderr
    assert "Traceback" not in refused.output


def test_another_image_needs_overwrite(folder: Path, tiffs: tuple[Path, Path]) -> None:
    image, mask = tiffs
    assert call("load", folder, "--image", image, "--labels", mask).exit_code == 0
    tifffile.imwrite(image, datasets.tissue((1, 200, 260), seed=9).read_image())
    refused = call("load", folder, "--image", image)
    assert refused.exit_code == 2
    assert "overwrite" in refused.stderr
    assert call("load", folder, "--image", image, "--overwrite").exit_code == 0
