"""Masks from numpy, dask, xarray and zarr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scportrait_like.errors import ElementExistsError, InputError, MissingInputError, ShapeError
from scportrait_like.project import Project

Pixels = np.ndarray[Any, Any]
Check = Callable[..., Any]
NAMES = ["DNA", "CD45", "CD3"]


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", ">i4", ">u8"])
def test_masks_of_every_integer_dtype(
    project: Project, check_labels: Check, labels: Pixels, dtype: str
) -> None:
    pixels = (labels % 100).astype(dtype)
    project.load_labels(pixels)
    check_labels(project, pixels)


def test_both_kinds_of_masks(
    loaded: Project, check_labels: Check, labels: Pixels, nuclei: Pixels
) -> None:
    loaded.load_labels(nuclei, "nucleus")
    check_labels(loaded, nuclei, "seg_all_nucleus")
    check_labels(loaded, labels)
    with pytest.raises(InputError, match="kind 'cell' is not allowed: cytosol or nucleus"):
        loaded.load_labels(nuclei, "cell")


def test_huge_sparse_ids(project: Project, check_labels: Check, labels: Pixels) -> None:
    ids = np.unique(labels)
    drawn = np.random.default_rng(0).integers(1, 2**63 - 1, len(ids), np.uint64, True)
    drawn[ids == 0] = 0
    drawn[-1] = 2**63 - 1
    pixels = drawn[np.searchsorted(ids, labels)]
    project.load_labels(pixels)
    check_labels(project, pixels)


def test_a_mask_without_background(project: Project, check_labels: Check) -> None:
    pixels = np.arange(1, 5001, dtype=np.uint16).reshape(50, 100)
    project.load_labels(pixels)
    check_labels(project, pixels)


def test_the_mask_may_come_first(project: Project, image: Pixels, labels: Pixels) -> None:
    project.load_labels(labels)
    with pytest.raises(ShapeError, match=r"\(299, 420\) .* seg_all_cytosol .* \(300, 420\)"):
        project.load_input_from_array(image[:, :-1], NAMES)
    project.load_input_from_array(image, NAMES)


def test_a_mask_is_replaced_with_its_centers_and_index(
    loaded: Project, check_labels: Check, labels: Pixels
) -> None:
    other = np.where(labels > 20, labels + 1000, 0)
    with pytest.raises(ElementExistsError, match="seg_all_cytosol"):
        loaded.load_labels(other)
    loaded.load_labels(other, overwrite=True)
    check_labels(loaded, other)
    assert len(list((loaded.project_location / ".index").iterdir())) == 1


def test_a_mask_cut_short_of_centers_is_completed(
    loaded: Project, check_labels: Check, labels: Pixels
) -> None:
    loaded.filehandler.delete_element("centers_seg_all_cytosol")
    for file in (loaded.project_location / ".index").iterdir():
        file.unlink()
    loaded.load_labels(labels)
    check_labels(loaded, labels)


@pytest.mark.parametrize("shape", [(1, 40, 50), (1, 1, 40, 50)])
def test_leading_axes_of_length_one(
    project: Project, check_labels: Check, shape: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(3).integers(0, 5, shape, np.uint16)
    project.load_labels(pixels)
    check_labels(project, pixels.reshape(40, 50))


def test_elements_of_spatialdata_as_masks(
    project: Project, check_labels: Check, labels: Pixels
) -> None:
    from spatialdata.models import Labels2DModel

    project.load_labels(Labels2DModel.parse(labels, dims=("y", "x"), scale_factors=[2]))
    project.load_labels(Labels2DModel.parse(labels, dims=("y", "x")))
    check_labels(project, labels)


def test_a_mask_path_that_is_not_there(project: Project, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such file or folder"):
        project.load_labels(tmp_path / "none.tif")
    (tmp_path / "mask.png").write_bytes(b"x")
    with pytest.raises(InputError, match="neither a TIFF nor a zarr"):
        project.load_labels(tmp_path / "mask.png")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is not zarr"):
        project.load_labels(tmp_path / "folder")
