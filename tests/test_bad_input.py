"""Bad input: each is refused with one clear error, and leaves the project as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from scportrait_like.errors import (
    ConfigError,
    IncompleteOutputError,
    InputError,
    MissingInputError,
    ProjectError,
    ShapeError,
    StoreError,
)
from scportrait_like.project import Project

Pixels = np.ndarray[Any, Any]
NAMES = ["DNA", "CD45", "CD3"]


def project_with(loaded: Project, **keys: Any) -> Project:
    """The loaded project with other keys for the extraction."""
    config = {"HDF5CellExtraction": {"image_size": 32, "threads": 1, **keys}}
    return Project(loaded.project_location, config, overwrite=True)


# Masks


def test_mask_and_image_of_different_size(project: Project, image: Pixels, labels: Pixels) -> None:
    project.load_input_from_array(image, NAMES)
    with pytest.raises(
        ShapeError,
        match=r"an array of \(300, 419\) uint32 is \(300, 419\) \(y, x\), but input_image of the "
        r"project is \(300, 420\); image and mask must show the same pixels",
    ):
        project.load_labels(labels[:, :-1])
    with pytest.raises(AssertionError):  # as Harpy's callers expect
        project.load_labels(labels.T)
    assert set(project.filehandler.element_names()) == {"input_image"}


def test_a_mask_that_no_longer_fits_the_image(loaded: Project, image: Pixels) -> None:
    loaded.load_input_from_array(image[:, :200], NAMES, overwrite=True)
    assert "Load masks that fit it" in (loaded.project_location / "processing.log").read_text()
    with pytest.raises(
        ShapeError, match=r"mask seg_all_cytosol is \(300, 420\) \(y, x\), but image"
    ):
        loaded.extract()


@pytest.mark.parametrize("dtype", ["f4", "f8", "?", "c8"])
def test_a_mask_that_holds_no_integers(project: Project, labels: Pixels, dtype: str) -> None:
    with pytest.raises(InputError, match=r"holds .*, but a mask holds whole numbers.*Convert it"):
        project.load_labels(labels.astype(dtype))
    assert not project.filehandler.element_names()


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8"])
def test_negative_ids(project: Project, tmp_path: Path, labels: Pixels, dtype: str) -> None:
    mask = (labels % 50).astype(dtype)
    mask[137, 200] = -1
    with pytest.raises(InputError, match=r"an array of .* holds negative ids; ids are whole"):
        project.load_labels(mask)
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    with pytest.raises(InputError, match=r"mask.tif holds negative ids"):
        project.load_labels(tmp_path / "mask.tif")
    assert not project.filehandler.element_names()


@pytest.mark.parametrize("largest", [2**63, 2**64 - 1])
def test_ids_in_the_upper_half_of_uint64(project: Project, labels: Pixels, largest: int) -> None:
    mask = labels.astype(np.uint64)
    mask[0, 0] = largest
    with pytest.raises(InputError, match=r"holds ids above 9223372036854775807 \(2\^63 - 1\)"):
        project.load_labels(mask)
    assert not project.filehandler.element_names()


def test_an_empty_mask(project: Project) -> None:
    with pytest.raises(InputError, match=r"mask .* is empty: it holds no label above 0"):
        project.load_labels(np.zeros((300, 420), np.uint16))
    with pytest.raises(InputError, match="has the shape"):
        project.load_labels(np.zeros((0, 420), np.uint16))
    assert not project.filehandler.element_names()


@pytest.mark.parametrize("shape", [(5,), (2, 30, 40), (2, 2, 30, 40)])
def test_a_mask_that_is_not_flat(project: Project, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"has the shape .*, but a mask is \(y, x\)"):
        project.load_labels(np.ones(shape, np.uint8))
    assert not project.filehandler.element_names()


def foreign_mask(loaded: Project, mask: Pixels) -> None:
    """Replace the pixels of the mask behind the project's back, as another program would."""
    folder = loaded.filehandler.element_path("seg_all_cytosol")
    zarr.open_array(folder / "s0", mode="r+")[:] = mask
    content = json.loads((folder / "zarr.json").read_text())
    content["attributes"].pop("scportrait_like")
    (folder / "zarr.json").write_text(json.dumps(content))


def test_an_empty_mask_at_the_extraction(loaded: Project, labels: Pixels) -> None:
    foreign_mask(loaded, np.zeros_like(labels))
    with pytest.raises(
        InputError, match="mask seg_all_cytosol is empty: it holds no label above 0"
    ):
        loaded.extract()


# Arguments and settings of the extraction


def test_no_mask(project: Project, image: Pixels) -> None:
    project.load_input_from_array(image, NAMES)
    with pytest.raises(MissingInputError, match=r"has no mask: load one with project.load_labels"):
        project.extract()


def test_no_image(project: Project, labels: Pixels) -> None:
    with pytest.raises(MissingInputError, match=r"has no image input_image: load one with project"):
        project.extract()
    project.load_labels(labels)
    with pytest.raises(MissingInputError, match=r"has no image input_image: load one with project"):
        project.extract()


def test_a_mask_that_is_not_there(loaded: Project) -> None:
    with pytest.raises(MissingInputError, match=r"labels cells are not in the project; it holds"):
        project_with(loaded, labels="cells").extract()


@pytest.mark.parametrize("size", [31, 33, 0, -32])
def test_sizes_that_are_none(loaded: Project, size: int) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"section HDF5CellExtraction: key image_size: {size} \(int\) is not allowed: must "
        "be an even number of pixels above zero",
    ):
        project_with(loaded, image_size=size)


def test_pictures_larger_than_the_image(loaded: Project) -> None:
    with pytest.raises(
        InputError, match=r"key image_size: 302 is larger than the image, \(300, 420\) \(y, x\)"
    ):
        project_with(loaded, image_size=302).extract()


def test_unknown_channels(loaded: Project) -> None:
    with pytest.raises(
        InputError,
        match="section HDF5CellExtraction: key channels: CD8, FOXP3 not in the image; it has DNA, "
        "CD45, CD3",
    ):
        project_with(loaded, channels=["CD8", "DNA", "FOXP3"]).extract()


def test_more_cells_than_there_are(loaded: Project, labels: Pixels) -> None:
    there = len(np.unique(labels)) - 1
    with pytest.raises(
        InputError, match=f"n_cells={there + 1}, but mask seg_all_cytosol holds {there} cells"
    ):
        loaded.extract(partial=True, n_cells=there + 1)
    loaded.extract(partial=True, n_cells=there)


@pytest.mark.parametrize("n_cells", [0, -1, None])
def test_a_pick_of_none(loaded: Project, n_cells: Any) -> None:
    with pytest.raises(InputError, match=f"partial=True needs n_cells above zero, not {n_cells}"):
        loaded.extract(partial=True, n_cells=n_cells)


def test_a_number_of_cells_without_partial(loaded: Project) -> None:
    with pytest.raises(InputError, match="n_cells=10 picks cells only with partial=True"):
        loaded.extract(n_cells=10)


@pytest.mark.parametrize("folder", ["", "a/b", "..", ".hidden"])
def test_folders_that_are_no_names(loaded: Project, folder: str) -> None:
    with pytest.raises(InputError, match="is no plain folder name"):
        loaded.extract(output_folder_name=folder)


def test_floats_outside_of_their_range(project: Project, image: Pixels, labels: Pixels) -> None:
    project.load_input_from_array(image.astype(np.float32), NAMES)
    project.load_labels(labels)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        project_with(project, normalize_output=False).extract()


# Folders and files


def test_a_config_for_another_project(loaded: Project) -> None:
    with pytest.raises(ProjectError, match=r"has another config:\n  HDF5CellExtraction.image_size"):
        Project(loaded.project_location, {"HDF5CellExtraction": {"image_size": 64}})


def test_a_store_that_is_not_spatialdata(project: Project, image: Pixels) -> None:
    zarr.create_array(project.filehandler.path, data=image)
    with pytest.raises(StoreError, match=r"is a zarr array, but not one of SpatialData"):
        project.load_input_from_array(image, NAMES)
    with pytest.raises(StoreError, match=r"not one of SpatialData.*Move it away"):
        project.extract()


@pytest.mark.parametrize("kept", [0, 100, 5000, -1])
def test_an_h5sc_cut_short(loaded: Project, kept: int) -> None:
    path = loaded.extract()
    content = path.read_bytes()
    path.write_bytes(content[:kept])
    with pytest.raises(
        IncompleteOutputError,
        match=r"single_cells.h5sc is incomplete or damaged .*project.extract\(overwrite=True\)",
    ):
        _ = Project(loaded.project_location).h5sc
    loaded.extract(overwrite=True)
    assert loaded.h5sc.n_obs > 10


def test_an_h5sc_that_is_another_file(loaded: Project) -> None:
    path = loaded.extract()
    path.unlink()
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(IncompleteOutputError, match=r"is no .h5sc file"):
        _ = loaded.h5sc


def test_no_h5sc(loaded: Project) -> None:
    with pytest.raises(MissingInputError, match=r"single_cells.h5sc is not there; run project.ext"):
        _ = loaded.h5sc


def test_an_unknown_step(loaded: Project) -> None:
    with pytest.raises(
        ConfigError, match="unknown step Featurization; steps of the config: HDF5CellExtraction"
    ):
        loaded.run(["HDF5CellExtraction", "Featurization"])
    assert [status.state for status in loaded.status()] == ["absent"]
