"""Images from OME-Zarr, images and masks from SpatialData."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata
import zarr
from spatialdata import SpatialData, models
from spatialdata.transformations import (
    Affine,
    Identity,
    Scale,
    Translation,
    get_transformation,
    set_transformation,
)

from scportrait_like.errors import (
    ElementExistsError,
    InputError,
    MissingInputError,
    ShapeError,
    StoreError,
)
from scportrait_like.project import Project

Pixels = np.ndarray[Any, Any]
Check = Callable[..., Any]
NAMES = ["DNA", "CD45", "CD3"]

# OME-Zarr


def write_omezarr(
    path: Path,
    pixels: Pixels,
    axes: str = "cyx",
    version: str = "0.5",
    channels: list[Any] | None = None,
    scale: list[float] | None = None,
    unit: str | None = "micrometer",
    levels: int = 2,
) -> Path:
    """Write an OME-Zarr by hand, as the specification has it."""
    zarr_format = 2 if version == "0.4" else 3
    group = zarr.create_group(path, zarr_format=zarr_format)  # type: ignore[arg-type]
    datasets = []
    for level in range(levels):
        data = pixels[..., :: 2**level, :: 2**level]
        options: dict[str, Any] = {"chunks": (*(1,) * (data.ndim - 2), 100, 100)}
        if zarr_format == 2:
            options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
        group.create_array(str(level), data=data, **options)
        size = [
            s * (2**level if a in "yx" else 1)
            for s, a in zip(scale or [1] * len(axes), axes, strict=True)
        ]
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": size}]}
        )
    kinds = {"c": "channel", "t": "time"}
    named: list[dict[str, str]] = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
    for axis in named:
        if unit and axis["type"] == "space":
            axis["unit"] = unit
    image: dict[str, Any] = {
        "multiscales": [{"axes": named, "datasets": datasets, "version": version}]
    }
    if channels is not None:
        image["omero"] = {"channels": channels}
    group.attrs.update(image if zarr_format == 2 else {"ome": {"version": version, **image}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "tczyx", "zcyx", "czyx", "yx", "tzyx"])
def test_axes_and_versions(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels, version: str, axes: str
) -> None:
    channels = NAMES if "c" in axes else ["channel_0"]
    pixels = image if "c" in axes else image[:1]
    shape = [{"c": 3, "y": 300, "x": 420}.get(axis, 1) for axis in axes]
    labels = [{"label": name} for name in channels] if "c" in axes else None
    path = write_omezarr(tmp_path / "i.zarr", pixels.reshape(shape), axes, version, labels)
    project.load_input_from_omezarr(path)
    check_image(project, pixels, channels)
    project.load_input_from_omezarr(str(path))


@pytest.mark.parametrize(
    ("unit", "size", "expected"),
    [("micrometer", 0.25, 0.25), ("nanometer", 250.0, 0.25), ("millimeter", 0.001, 1.0)],
)
def test_the_size_of_a_pixel(
    project: Project, tmp_path: Path, image: Pixels, unit: str, size: float, expected: float
) -> None:
    path = write_omezarr(tmp_path / "i.zarr", image, scale=[1, size, 2 * size], unit=unit)
    project.load_input_from_omezarr(path)
    found = get_transformation(project.sdata["input_image"], get_all=True)
    matrix = found["micrometer"].to_affine_matrix(("y", "x"), ("y", "x"))
    np.testing.assert_allclose(np.diag(matrix), [expected, 2 * expected, 1])
    assert isinstance(found["global"], Identity)


@pytest.mark.parametrize("unit", [None, "parsec"])
def test_no_known_unit_no_micrometers(
    project: Project, tmp_path: Path, image: Pixels, unit: Any
) -> None:
    path = write_omezarr(tmp_path / "i.zarr", image, scale=[1, 0.25, 0.25], unit=unit)
    project.load_input_from_omezarr(path)
    assert list(get_transformation(project.sdata["input_image"], get_all=True)) == ["global"]


@pytest.mark.parametrize(
    "channels", [None, [{"color": "FFFFFF"}] * 3, [{"label": "one"}]], ids=["none", "colors", "few"]
)
def test_channels_without_names_are_numbered(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels, channels: Any
) -> None:
    path = write_omezarr(tmp_path / "i.zarr", image, channels=channels)
    project.load_input_from_omezarr(path)
    check_image(project, image, ["channel_0", "channel_1", "channel_2"])


def test_names_twice_in_the_metadata(project: Project, tmp_path: Path, image: Pixels) -> None:
    channels = [{"label": name} for name in ("DAPI", "CD3", "DAPI")]
    path = write_omezarr(tmp_path / "i.zarr", image, channels=channels)
    with pytest.raises(InputError, match=r"the metadata of .*i.zarr: DAPI stands twice"):
        project.load_input_from_omezarr(path)
    project.load_input_from_omezarr(path, channel_names=NAMES, remap=[2, 1, 0])
    assert project.filehandler.channel_names("input_image") == NAMES[::-1]


@pytest.mark.parametrize(("axes", "axis"), [("tcyx", "t"), ("czyx", "z")])
def test_times_and_depths_are_refused(
    project: Project, tmp_path: Path, image: Pixels, axes: str, axis: str
) -> None:
    shape = [{"t": 2, "z": 2, "y": 30, "x": 42}.get(a, 3) for a in axes]
    path = write_omezarr(tmp_path / "i.zarr", np.zeros(shape, np.uint8), axes)
    with pytest.raises(InputError, match=f"has 2 positions along axis {axis}"):
        project.load_input_from_omezarr(path)


def test_what_is_no_omezarr(project: Project, tmp_path: Path, image: Pixels) -> None:
    with pytest.raises(MissingInputError, match="no such OME-Zarr"):
        project.load_input_from_omezarr(tmp_path / "none.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder is no OME-Zarr image"):
        project.load_input_from_omezarr(tmp_path / "folder")
    zarr.create_array(tmp_path / "array.zarr", data=image)
    with pytest.raises(InputError, match=r"array.zarr is no OME-Zarr image"):
        project.load_input_from_omezarr(tmp_path / "array.zarr")
    zarr.create_group(tmp_path / "slide.zarr")
    write_omezarr(tmp_path / "slide.zarr" / "0", image)
    with pytest.raises(InputError, match=r"give .*slide.zarr/0"):
        project.load_input_from_omezarr(tmp_path / "slide.zarr")


def test_a_mask_in_omezarr(
    project: Project, check_labels: Check, tmp_path: Path, labels: Pixels
) -> None:
    project.load_labels(write_omezarr(tmp_path / "m.zarr", labels[None, None], "zcyx", "0.4"))
    check_labels(project, labels)
    project.load_labels(zarr.create_array(tmp_path / "n.zarr", data=labels, chunks=(50, 70)))
    project.load_labels(tmp_path / "n.zarr")
    zarr.create_group(tmp_path / "group.zarr")
    with pytest.raises(InputError, match=r"group.zarr is a zarr group, but neither an array nor"):
        project.load_labels(tmp_path / "group.zarr")


# SpatialData


def sample(
    image: Pixels,
    labels: Pixels,
    nuclei: Pixels,
    levels: list[int] | None = None,
    image_global: Any = None,
    labels_global: Any = None,
) -> SpatialData:
    """An object with image, two masks, a table that annotates the cells, points and shapes."""
    cells = np.unique(labels)[1:]
    obs = pd.DataFrame(
        {
            "region": pd.Categorical(["cells"] * len(cells)),
            "instance": cells.astype(np.int64),
            "own_id": cells.astype(np.int64),
        },
        index=[f"cell{i}" for i in cells],
    )
    table = ad.AnnData(np.arange(2.0 * len(cells)).reshape(-1, 2), obs=obs)
    where = {"global": image_global or Identity()}
    masks = {"global": labels_global or image_global or Identity()}
    return SpatialData.init_from_elements(
        {
            "slide": models.Image2DModel.parse(
                image,
                dims=("c", "y", "x"),
                c_coords=NAMES,
                scale_factors=levels,
                transformations=where,
            ),
            "cells": models.Labels2DModel.parse(
                labels, dims=("y", "x"), scale_factors=levels, transformations=masks
            ),
            "nuclei": models.Labels2DModel.parse(nuclei, dims=("y", "x"), transformations=masks),
            "overview": models.Image2DModel.parse(
                image[:1, ::4, ::4],
                dims=("c", "y", "x"),
                transformations={"global": Scale([4, 4], ("x", "y"))},
            ),
            "spots": models.PointsModel.parse(
                pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0], "gene": ["a", "b"]})
            ),
            "regions": models.ShapesModel.parse(
                np.array([[10.0, 20.0], [30.0, 40.0]]), geometry=0, radius=[1.0, 2.0]
            ),
            "measured": models.TableModel.parse(
                table, region="cells", region_key="region", instance_key="instance"
            ),
        }
    )


@pytest.fixture
def store(tmp_path: Path, image: Pixels, labels: Pixels, nuclei: Pixels) -> Path:
    sample(image, labels, nuclei).write(tmp_path / "store.zarr")
    return tmp_path / "store.zarr"


@pytest.mark.parametrize("levels", [None, [2], [2, 2]], ids=str)
@pytest.mark.parametrize("by", ["path", "text", "object", "object-on-disk"])
def test_stores_and_objects(
    project: Project,
    check_image: Check,
    check_labels: Check,
    tmp_path: Path,
    image: Pixels,
    labels: Pixels,
    nuclei: Pixels,
    levels: Any,
    by: str,
) -> None:
    given: Any = sample(image, labels, nuclei, levels)
    if by != "object":
        given.write(tmp_path / "store.zarr")
        given = tmp_path / "store.zarr"
        given = {"text": str(given), "object-on-disk": spatialdata.read_zarr(given)}.get(by, given)
    for _ in range(2):
        project.load_input_from_sdata(given, "slide", "nuclei", "cells")
    check_image(project, image, NAMES)
    check_labels(project, labels)
    check_labels(project, nuclei, "seg_all_nucleus")
    log = (project.project_location / "processing.log").read_text()
    assert log.count("is loaded already; nothing to do") == 7


def test_what_is_kept(project: Project, check_image: Check, store: Path, image: Pixels) -> None:
    project.load_input_from_sdata(store, "slide", "nuclei", "cells")
    ours = {"input_image", "seg_all_nucleus", "seg_all_cytosol"}
    ours |= {f"centers_{name}" for name in ours if name != "input_image"}
    assert set(project.filehandler.element_names()) == ours | {
        "overview",
        "spots",
        "regions",
        "measured",
    }
    sdata = project.sdata
    assert sdata["spots"].compute()["gene"].tolist() == ["a", "b"]
    assert sdata["regions"].radius.tolist() == [1.0, 2.0]
    scale = get_transformation(sdata["overview"]).to_affine_matrix(("x",), ("x",))
    assert scale[0, 0] == 4
    table = sdata["measured"]
    assert table.uns["spatialdata_attrs"]["region"] in ("seg_all_cytosol", ["seg_all_cytosol"])
    assert table.obs["scportrait_cell_id"].tolist() == table.obs["instance"].tolist()
    assert set(table.obs["region"]) == {"seg_all_cytosol"}


def test_nothing_else_is_kept_if_not_wanted(project: Project, store: Path) -> None:
    project.load_input_from_sdata(store, "slide", cytosol_segmentation_name="cells", keep_all=False)
    assert set(project.filehandler.element_names()) == {
        "input_image",
        "seg_all_cytosol",
        "centers_seg_all_cytosol",
    }


def test_duplicates_are_kept_if_wanted(
    project: Project, check_image: Check, store: Path, image: Pixels
) -> None:
    project.load_input_from_sdata(
        store, "slide", cytosol_segmentation_name="cells", remove_duplicates=False
    )
    assert {"slide", "cells", "nuclei"} <= set(project.filehandler.element_names())
    check_image(project, image, NAMES, "slide")
    table = project.sdata["measured"]
    assert set(table.obs["region"]) == {"cells"}
    assert table.obs["scportrait_cell_id"].tolist() == table.obs["instance"].tolist()


def test_the_column_with_the_ids(project: Project, store: Path) -> None:
    with pytest.raises(InputError, match="cell_id_identifier 'nope' is no column of the table"):
        project.load_input_from_sdata(store, "slide", None, "cells", cell_id_identifier="nope")
    assert not project.filehandler.element_names()
    project.load_input_from_sdata(store, "slide", None, "cells", cell_id_identifier="own_id")
    table = project.sdata["measured"]
    assert table.uns["spatialdata_attrs"]["instance_key"] == "scportrait_cell_id"
    assert table.obs["scportrait_cell_id"].tolist() == table.obs["own_id"].tolist()


MOVED = Affine([[0.5, 0, 10], [0, 0.25, 20], [0, 0, 1]], ("x", "y"), ("x", "y"))


def test_a_global_that_is_not_pixels_is_rewritten(
    project: Project, tmp_path: Path, image: Pixels, labels: Pixels, nuclei: Pixels
) -> None:
    sample(image, labels, nuclei, None, MOVED).write(tmp_path / "s.zarr")
    for _ in range(2):
        project.load_input_from_sdata(tmp_path / "s.zarr", "slide", None, "cells")
    for name in ("input_image", "seg_all_cytosol"):
        found = get_transformation(project.sdata[name], get_all=True)
        assert isinstance(found["global"], Identity)
        matrix = found["global_of_input"].to_affine_matrix(("x", "y"), ("x", "y"))
        np.testing.assert_array_equal(matrix, MOVED.matrix)
    # What lay on the image still lies there.
    before = spatialdata.read_zarr(tmp_path / "s.zarr")
    for name in ("spots", "regions", "overview"):
        found = get_transformation(project.sdata[name], get_all=True)
        own = get_transformation(before[name]).to_affine_matrix(("x", "y"), ("x", "y"))
        kept = found["global_of_input"].to_affine_matrix(("x", "y"), ("x", "y"))
        np.testing.assert_allclose(kept, own)
        pixels = found["global"].to_affine_matrix(("x", "y"), ("x", "y"))
        np.testing.assert_allclose(MOVED.matrix @ pixels, own, atol=1e-12)


def test_an_object_is_not_changed(
    project: Project, image: Pixels, labels: Pixels, nuclei: Pixels
) -> None:
    given = sample(image, labels, nuclei, None, MOVED)
    project.load_input_from_sdata(given, "slide", None, "cells")
    for name in ("spots", "regions"):
        assert isinstance(get_transformation(given[name], get_all=True)["global"], Identity)
        assert list(get_transformation(given[name], get_all=True)) == ["global"]
    assert given["measured"].obs.columns.tolist() == ["region", "instance", "own_id"]
    assert set(given["measured"].obs["region"]) == {"cells"}


@pytest.mark.parametrize("other", [Identity(), Translation([1, 0], ("x", "y"))], ids=str)
def test_a_mask_that_lies_elsewhere_is_refused(
    project: Project, image: Pixels, labels: Pixels, nuclei: Pixels, other: Any
) -> None:
    given = sample(image, labels, nuclei, None, MOVED, other)
    with pytest.raises(InputError, match="mask cells lies elsewhere than image slide in the coord"):
        project.load_input_from_sdata(given, "slide", None, "cells")
    assert not project.filehandler.element_names()


def test_another_coordinate_system_is_kept(
    project: Project, image: Pixels, labels: Pixels, nuclei: Pixels
) -> None:
    given = sample(image, labels, nuclei)
    for name in ("slide", "cells"):
        set_transformation(given[name], Scale([0.5, 0.5], ("x", "y")), "stage")
    project.load_input_from_sdata(given, "slide", None, "cells")
    assert set(get_transformation(project.sdata["seg_all_cytosol"], get_all=True)) == {
        "global",
        "stage",
    }


def test_a_mask_of_another_size_is_refused_before_anything_is_written(
    project: Project, image: Pixels, labels: Pixels, nuclei: Pixels
) -> None:
    given = sample(image, labels[:-1], nuclei)
    with pytest.raises(
        ShapeError, match=r"cells is \(299, 420\) \(y, x\), but .*slide is \(300, 42"
    ):
        project.load_input_from_sdata(given, "slide", None, "cells")
    assert not project.filehandler.element_names()


def test_missing_elements_are_named_with_those_there(project: Project, store: Path) -> None:
    with pytest.raises(MissingInputError, match="has no image x; it has: overview, slide"):
        project.load_input_from_sdata(store, "x")
    with pytest.raises(MissingInputError, match="has no labels x; it has: cells, nuclei"):
        project.load_input_from_sdata(store, "slide", "x")


def test_what_is_no_spatialdata(project: Project, tmp_path: Path, image: Pixels) -> None:
    with pytest.raises(MissingInputError, match="no such SpatialData store"):
        project.load_input_from_sdata(tmp_path / "none.zarr", "slide")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("x")
    zarr.create_array(tmp_path / "array.zarr", data=image)
    write_omezarr(tmp_path / "ome.zarr", image)
    (tmp_path / "file.zarr").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("folder", "array.zarr", "ome.zarr", "file.zarr", "empty"):
        with pytest.raises(StoreError, match=f"{name} is not a SpatialData store"):
            project.load_input_from_sdata(tmp_path / name, "slide")


def test_a_damaged_store_is_named(project: Project, store: Path) -> None:
    meta = json.loads((store / "labels/cells/zarr.json").read_text())
    meta["attributes"]["ome"]["multiscales"] = []
    (store / "labels/cells/zarr.json").write_text(json.dumps(meta))
    root = json.loads((store / "zarr.json").read_text())
    root.pop("consolidated_metadata")
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match=r"store.zarr cannot be read as SpatialData"):
        project.load_input_from_sdata(store, "slide")


def test_a_changed_object_is_another_source(
    project: Project, check_labels: Check, store: Path, labels: Pixels
) -> None:
    given = spatialdata.read_zarr(store)
    project.load_input_from_sdata(given, "slide", None, "cells")
    given["cells"] = models.Labels2DModel.parse(
        np.where(labels == 5, 7000, labels), dims=("y", "x")
    )
    with pytest.raises(ElementExistsError, match="seg_all_cytosol of the project was loaded from"):
        project.load_input_from_sdata(given, "slide", None, "cells")
    given = spatialdata.read_zarr(store)
    given["measured"].X = given["measured"].X + 1
    with pytest.raises(ElementExistsError, match="measured is in the project and differs"):
        project.load_input_from_sdata(given, "slide", None, "cells")
    project.load_input_from_sdata(given, "slide", None, "cells", overwrite=True)
    assert project.sdata["measured"].X[0, 0] == 1
    check_labels(project, labels)


def test_the_store_of_another_project(
    project: Project, loaded_elsewhere: Project, check_image: Check, check_labels: Check
) -> None:
    source = loaded_elsewhere.filehandler.path
    project.load_input_from_sdata(source, "input_image", None, "seg_all_cytosol")
    assert project.filehandler.element_names() == loaded_elsewhere.filehandler.element_names()
    project.load_input_from_sdata(source, "input_image", None, "seg_all_cytosol")


@pytest.fixture
def loaded_elsewhere(tmp_path: Path, image: Pixels, labels: Pixels) -> Project:
    other = Project(tmp_path / "other")
    other.load_input_from_array(image, NAMES)
    other.load_labels(labels)
    return other


def test_three_dimensions(project: Project, image: Pixels, labels: Pixels, nuclei: Pixels) -> None:
    given = sample(image, labels, nuclei)
    given["volume"] = models.Image3DModel.parse(
        np.ones((1, 4, 10, 12), np.uint8), dims=("c", "z", "y", "x")
    )
    given["bodies"] = models.Labels3DModel.parse(
        np.ones((4, 10, 12), np.uint8), dims=("z", "y", "x")
    )
    project.load_input_from_sdata(given, "slide", None, "cells")
    assert project.sdata["volume"].shape == (1, 4, 10, 12)
    assert project.sdata["bodies"].shape == (4, 10, 12)
    with pytest.raises(InputError, match=r"has the shape .*but an image is"):
        project.load_input_from_sdata(given, "volume", overwrite=True)
    with pytest.raises(InputError, match=r"but a mask is|same pixels"):
        project.load_input_from_sdata(given, "slide", None, "bodies", overwrite=True)


def test_lazy_elements(
    project: Project,
    check_image: Check,
    check_labels: Check,
    image: Pixels,
    labels: Pixels,
    nuclei: Pixels,
) -> None:
    lazy_image = da.from_array(image, chunks=(1, 77, 99))
    lazy_labels = da.from_array(labels, chunks=(300, 33))
    given = sample(lazy_image, labels, nuclei)
    given["cells"] = models.Labels2DModel.parse(lazy_labels, dims=("y", "x"))
    project.load_input_from_sdata(given, "slide", None, "cells")
    check_image(project, image, NAMES)
    check_labels(project, labels)
