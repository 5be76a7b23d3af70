"""Images and labels of SpatialData objects, in memory and in stores of any name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import spatialdata
import zarr
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Image3DModel, Labels2DModel, Labels3DModel
from spatialdata.transformations import Scale, Translation, get_transformation

from scportrait_like import im
from scportrait_like.errors import (
    ElementExistsError,
    InputError,
    MissingInputError,
    ProjectLockedError,
    ShapeError,
    StoreError,
)
from scportrait_like.run.lock import project_lock

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 60000, (3, 40, 50)).astype(np.uint16)
SPACE = RNG.random((2, 5, 20, 30)).astype(np.float32)


def made() -> SpatialData:
    return SpatialData(
        images={
            "plane": Image2DModel.parse(PLANE, c_coords=["DNA", "CD3", "CD8"]),
            "scaled": Image2DModel.parse(PLANE, scale_factors=[2, 2]),
            "space": Image3DModel.parse(SPACE),
        },
        labels={
            "cells": Labels2DModel.parse(PLANE[0] // 1000),
            "scaled_cells": Labels2DModel.parse(PLANE[0] // 1000, scale_factors=[2]),
            "volume": Labels3DModel.parse((SPACE[0] * 9).astype(np.uint32)),
        },
    )


@pytest.fixture
def stored(tmp_path: Path) -> SpatialData:
    """Backed by a store of a name of its own."""
    made().write(tmp_path / "my study.zarr")
    return spatialdata.read_zarr(tmp_path / "my study.zarr")


EXPECTED = {
    "plane": PLANE,
    "scaled": PLANE,
    "space": SPACE,
    "cells": PLANE[0] // 1000,
    "scaled_cells": PLANE[0] // 1000,
    "volume": (SPACE[0] * 9).astype(np.uint32),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_full_resolution(stored: SpatialData, name: str) -> None:
    for sdata in (made(), stored):
        found = im.get_dataarray(sdata, name)
        assert isinstance(found.data, da.Array)
        assert found.dims == ("c", "z", "y", "x")[-found.ndim :] or found.dims == ("c", "y", "x")
        np.testing.assert_array_equal(found.data.compute(), EXPECTED[name])


def test_what_is_not_there_is_listed() -> None:
    with pytest.raises(MissingInputError) as caught:
        im.get_dataarray(made(), "plain")
    for name in (*EXPECTED, "images", "labels"):
        assert name in str(caught.value)


def test_an_element_of_another_kind(stored: SpatialData) -> None:
    from anndata import AnnData

    stored["numbers"] = AnnData(np.zeros((2, 2)))
    with pytest.raises(MissingInputError, match="'numbers' is one of its tables"):
        im.get_dataarray(stored, "numbers")


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("pixels", [PLANE, SPACE], ids=["plane", "space"])
def test_add_image(stored: SpatialData, backed: bool, lazy: bool, pixels: Any) -> None:
    sdata = stored if backed else made()
    given = da.from_array(pixels, chunks=16) if lazy else pixels
    channels = [f"channel {i} / ünïcode" for i in range(len(pixels))]
    transformations = {"mine": Translation([3, 4], axes=("x", "y")), "um": Scale([2], axes=("x",))}
    returned = im.add_image(sdata, given, "new", c_coords=channels, transformations=transformations)
    assert returned is sdata
    objects = [sdata, spatialdata.read_zarr(sdata.path)] if backed else [sdata]
    for found in objects:
        array = im.get_dataarray(found, "new")
        assert array.dtype == pixels.dtype
        np.testing.assert_array_equal(array.data.compute(), pixels)
        assert list(array.coords["c"].values) == channels
        there = get_transformation(found["new"], get_all=True)
        assert set(there) == set(transformations)
        for name, transformation in transformations.items():
            axes = ("x", "y")
            np.testing.assert_array_equal(
                there[name].to_affine_matrix(axes, axes),
                transformation.to_affine_matrix(axes, axes),
            )
        for name, expected in EXPECTED.items():
            np.testing.assert_array_equal(im.get_dataarray(found, name).data.compute(), expected)


def test_axes_chunks_and_scales(stored: SpatialData) -> None:
    im.add_image(
        stored,
        np.moveaxis(PLANE, 0, -1),
        "rgb",
        dims=("y", "x", "c"),
        chunks=(1, 16, 32),
        scale_factors=[2, 2],
        transformations=Scale([2.0], axes=("x",)),
    )
    again = spatialdata.read_zarr(stored.path)
    levels = [next(iter(again["rgb"][scale].data_vars.values())) for scale in again["rgb"].children]
    assert [level.shape for level in levels] == [(3, 40, 50), (3, 20, 25), (3, 10, 12)]
    np.testing.assert_array_equal(levels[0].data.compute(), PLANE)
    assert zarr.open_array(stored.path / "images/rgb/s0").chunks == (1, 16, 32)
    assert set(get_transformation(again["rgb"], get_all=True)) == {"global"}
    for levels_here in (stored["rgb"], again["rgb"]):
        assert len(levels_here.children) == 3


def test_a_plane_alone_is_one_channel() -> None:
    sdata = im.add_image(SpatialData(), PLANE[0], "one", c_coords="DNA")
    assert im.get_dataarray(sdata, "one").shape == (1, 40, 50)
    assert list(im.get_dataarray(sdata, "one").coords["c"].values) == ["DNA"]


def test_irregular_chunks_are_made_regular(stored: SpatialData) -> None:
    given = da.from_array(PLANE, chunks=((1, 2), (10, 25, 5), (50,)))
    im.add_image(stored, given, "ragged")
    again = spatialdata.read_zarr(stored.path)
    np.testing.assert_array_equal(im.get_dataarray(again, "ragged").data.compute(), PLANE)


def test_an_image_computed_from_the_one_that_it_replaces(stored: SpatialData) -> None:
    for power in (1, 2):
        doubled = im.get_dataarray(stored, "plane").data.astype(np.uint32) * 2
        im.add_image(stored, doubled, "plane", overwrite=True)
        expected = PLANE.astype(np.uint32) * 2**power
        for sdata in (stored, spatialdata.read_zarr(stored.path)):
            np.testing.assert_array_equal(im.get_dataarray(sdata, "plane").data.compute(), expected)
    assert sorted(path.name for path in stored.path.parent.iterdir()) == ["my study.zarr"]


def test_replacing_must_be_allowed(stored: SpatialData) -> None:
    for sdata in (stored, made()):
        with pytest.raises(ElementExistsError, match="overwrite=True"):
            im.add_image(sdata, PLANE, "plane")
        with pytest.raises(InputError, match="'cells' is one of the labels"):
            im.add_image(sdata, PLANE, "cells", overwrite=True)
        with pytest.raises(InputError, match="'plane' is one of the images"):
            im.add_image(sdata, PLANE, "Plane", overwrite=True)
    other = spatialdata.read_zarr(stored.path)
    im.add_image(other, PLANE, "late")
    with pytest.raises(ElementExistsError, match="read the store again"):
        im.add_image(stored, PLANE, "late")


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        ({"arr": PLANE, "dims": ("y", "x")}, ShapeError, "each of its axes once"),
        ({"arr": PLANE, "dims": ("t", "y", "x")}, ShapeError, "each of its axes once"),
        ({"arr": np.zeros(3)}, ShapeError, "each of its axes once"),
        ({"arr": np.zeros((1, 0, 3))}, InputError, "is no image"),
        ({"arr": np.zeros((1, 4, 3), complex)}, InputError, "is no image"),
        ({"arr": np.array([[["a"]]])}, InputError, "is no image"),
        ({"arr": PLANE, "c_coords": ["a", "b"]}, InputError, "3 different names"),
        ({"arr": PLANE, "c_coords": ["a", "b", "a"]}, InputError, "3 different names"),
        ({"arr": PLANE, "chunks": (1, 2)}, InputError, "chunks="),
        ({"arr": PLANE, "output_image_name": "a/b"}, InputError, "cannot name an element"),
        ({"arr": PLANE, "transformations": {"global": 3}}, InputError, "cannot be made"),
    ],
)
def test_bad_input(arguments: dict[str, Any], error: type[Exception], why: str) -> None:
    sdata = made()
    before = set(sdata.images)
    with pytest.raises(error, match=why):
        im.add_image(**{"sdata": sdata, "output_image_name": "new", **arguments})
    assert set(sdata.images) == before


def test_a_failing_computation_leaves_all_as_it_was(stored: SpatialData) -> None:
    def fail(block: Any) -> Any:
        raise RuntimeError("a block that fails")

    before = json.loads((stored.path / "zarr.json").read_text())
    with pytest.raises(RuntimeError, match="a block that fails"):
        im.add_image(
            stored, da.from_array(PLANE).map_blocks(fail, dtype=float), "plane", overwrite=True
        )
    again = spatialdata.read_zarr(stored.path)
    for sdata in (stored, again):
        np.testing.assert_array_equal(im.get_dataarray(sdata, "plane").data.compute(), PLANE)
    assert json.loads((stored.path / "zarr.json").read_text()) == before
    assert sorted(path.name for path in stored.path.parent.iterdir()) == ["my study.zarr"]


def test_a_store_that_is_gone(stored: SpatialData, tmp_path: Path) -> None:
    stored.path.rename(tmp_path / "elsewhere.zarr")
    with pytest.raises(StoreError, match="is gone"):
        im.add_image(stored, PLANE, "new")
    assert "new" not in stored.images


def test_the_lock_of_a_project_is_respected(tmp_path: Path) -> None:
    made().write(tmp_path / "scportrait.sdata")
    sdata = spatialdata.read_zarr(tmp_path / "scportrait.sdata")
    with project_lock(tmp_path, "a step"), pytest.raises(ProjectLockedError, match="a step"):
        im.add_image(sdata, PLANE, "new")
    im.add_image(sdata, PLANE, "new")
    assert "new" in spatialdata.read_zarr(sdata.path).images


def test_a_relative_path(stored: SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stored.path.parent)
    sdata = spatialdata.read_zarr(stored.path.name)
    im.add_image(sdata, PLANE, "new")
    assert "new" in spatialdata.read_zarr(stored.path).images


_WRITER = """
import sys, numpy as np, spatialdata
from scportrait_like import im
sdata = spatialdata.read_zarr(sys.argv[1])
for k in range(6):
    im.add_image(sdata, np.full((1, 8, 8), k, np.uint8), f"{sys.argv[2]}_{k}")
"""


def test_several_processes_write_to_one_store(stored: SpatialData) -> None:
    """Each lists what the others wrote: no element is lost from the store's lists."""
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(stored.path), name])
        for name in ("a", "b")
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    again = spatialdata.read_zarr(stored.path)
    assert {f"{name}_{k}" for name in "ab" for k in range(6)} <= set(again.images)


_BIG = """
import resource, sys, dask.array as da, spatialdata
from scportrait_like import im
sdata = spatialdata.read_zarr(sys.argv[1])
small = da.ones((1, 1024, 1024), chunks=(1, 512, 512), dtype="float32")
im.add_image(sdata, small, "warm", scale_factors=[2, 2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixels = da.random.default_rng(0).random((16, 8192, 8192), chunks=(1, 1024, 1024), dtype="float32")
im.add_image(sdata, pixels, "big", scale_factors=[2, 2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_large_lazy_image_is_written_in_bounded_memory(stored: SpatialData) -> None:
    """4.3 GB of pixels: the peak grows by far less."""
    done = subprocess.run(
        [sys.executable, "-c", _BIG, str(stored.path)], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) * 1024 < 1_000_000_000
