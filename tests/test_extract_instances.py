"""`tb.extract_instances`: windows of the cells of a SpatialData object, lazy and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import spatialdata
import zarr
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Image3DModel, Labels2DModel, Labels3DModel
from spatialdata.transformations import Scale, Sequence, Translation

import scportrait_like as sl
from scportrait_like.errors import ElementExistsError, InputError, MissingInputError
from tests.instances.oracle import windows


def pixels(depth: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """An image (c, z, y, x), and labels of a part of it that begins at (1 or 0, 4, 7)."""
    rng = np.random.default_rng(depth)
    labels = np.kron(rng.integers(0, 12, (1, 5, 6)), np.ones((depth, 9, 11), int))
    return (
        rng.integers(0, 9999, (2, depth + (depth > 1), 60, 80)).astype(np.uint16),
        labels.astype(np.int16),
    )


def example(depth: int, folder: Path | None, scales: list[int] | None = None) -> SpatialData:
    image, labels = pixels(depth)
    axes = ("x", "y", "z") if depth > 1 else ("x", "y")
    place = Scale([0.5, 0.5, 2.0][: len(axes)], axes=axes)
    start = {"x": 7, "y": 4, "z": 1}
    moved = Translation([start[axis] for axis in axes], axes=axes)
    placed, upon = {"um": place}, {"um": Sequence([moved, place])}
    if depth > 1:
        sdata = SpatialData(
            images={
                "image": Image3DModel.parse(image, chunks=(1, 2, 16, 32), transformations=placed)
            },
            labels={"cells": Labels3DModel.parse(labels, chunks=(2, 20, 20), transformations=upon)},
        )
    else:
        sdata = SpatialData(
            images={
                "image": Image2DModel.parse(
                    image[:, 0], scale_factors=scales, transformations=placed
                )
            },
            labels={
                "cells": Labels2DModel.parse(labels[0], scale_factors=scales, transformations=upon)
            },
        )
    if folder is None:
        return sdata
    sdata.write(folder / "sdata.zarr")
    return spatialdata.read_zarr(folder / "sdata.zarr")


def expected(depth: int, remove_background: bool = True) -> Any:
    image, labels = pixels(depth)
    first = 1 if depth > 1 else 0
    beneath = image[:, first : first + depth, 4:49, 7:73]
    return windows(labels, beneath, 14, remove_background)


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
def test_windows_of_a_part_of_an_image(
    tmp_path: Path, depth: int, backed: bool, written: bool
) -> None:
    sdata = example(depth, tmp_path if backed else None)
    output = tmp_path / "out" if written else None
    for remove_background in (True, False):
        ids, (mask, image) = sl.tb.extract_instances(
            sdata,
            "image",
            "cells",
            14,
            remove_background=remove_background,
            extract_mask=True,
            zarr_output_path=output,
            to_coordinate_system="um",
            overwrite=not remove_background,
        )
        answer = expected(depth, remove_background)
        assert ids.dtype == np.int16
        assert ids.tolist() == answer[0].tolist()
        for found, right in zip((mask, image), answer[1:], strict=True):
            assert isinstance(found, da.Array)
            assert found.dtype == right.dtype
            np.testing.assert_array_equal(found.compute(), right)
        if output is not None:
            np.testing.assert_array_equal(zarr.open_array(output / "image.zarr")[:], answer[2])
            np.testing.assert_array_equal(zarr.open_array(output / "mask.zarr")[:], answer[1])


@pytest.mark.parametrize("backed", [False, True])
def test_several_scales(tmp_path: Path, backed: bool) -> None:
    sdata = example(1, tmp_path if backed else None, scales=[2])
    ids, image = sl.tb.extract_instances(
        sdata, "image", "cells", diameter=None, depth=7, to_coordinate_system="um"
    )
    answer = expected(1)
    assert ids.tolist() == answer[0].tolist()
    np.testing.assert_array_equal(image.compute(), answer[2])


def test_names_and_batches(tmp_path: Path) -> None:
    sdata = example(1, tmp_path)
    options: dict[str, Any] = {"to_coordinate_system": "um", "batch_size": 4, "extract_mask": True}
    ids, (mask, image) = sl.tb.extract_instances(sdata, "image", "cells", 14, **options)
    sizes = image.chunks[0]
    assert set(sizes[:-1]) == {4}
    assert mask.chunks[0] == sizes
    sl.tb.extract_instances(
        sdata,
        "image",
        "cells",
        14,
        zarr_output_path=str(tmp_path / "out"),
        name_instances_image="i.zarr",
        name_instances_mask="m.zarr",
        executor="processes",
        **options,
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"i.zarr", "m.zarr"}
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out/i.zarr")[:], image.compute())
    assert zarr.open_array(tmp_path / "out/m.zarr").shape == (len(ids), 1, 1, 14, 14)


def test_wrong_arguments_are_told_before_any_work(tmp_path: Path) -> None:
    sdata = example(1, None)
    place: dict[str, Any] = {"to_coordinate_system": "um"}
    with pytest.raises(MissingInputError, match="images: image"):
        sl.tb.extract_instances(sdata, "imag", "cells", 14, **place)
    with pytest.raises(MissingInputError, match="labels: cells"):
        sl.tb.extract_instances(sdata, "image", "nuclei", 14, **place)
    with pytest.raises(InputError, match="is not placed in the coordinate system 'global'"):
        sl.tb.extract_instances(sdata, "image", "cells", 14)
    with pytest.raises(InputError, match="give diameter"):
        sl.tb.extract_instances(sdata, "image", "cells", None, **place)
    with pytest.raises(InputError, match="diameter=0"):
        sl.tb.extract_instances(sdata, "image", "cells", 0, **place)
    one_name: dict[str, Any] = {
        "name_instances_image": "a.zarr",
        "name_instances_mask": "./a.zarr",
        "extract_mask": True,
        "zarr_output_path": tmp_path / "one",
    }
    for overwrite in (False, True):
        with pytest.raises(InputError, match="name_instances_image and name_instances_mask"):
            sl.tb.extract_instances(
                sdata, "image", "cells", 14, **one_name, **place, overwrite=overwrite
            )
    assert not (tmp_path / "one").exists()
    sl.tb.extract_instances(sdata, "image", "cells", 14, zarr_output_path=tmp_path, **place)
    with pytest.raises(ElementExistsError, match="overwrite=True"):
        sl.tb.extract_instances(sdata, "image", "cells", 14, zarr_output_path=tmp_path, **place)


def test_a_memory_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def budget(limit: Any) -> int:
        asked.append(limit)
        return 1 << 30

    monkeypatch.setattr("scportrait_like.raster.instance_runs.memory_budget", budget)
    sl.tb.extract_instances(
        example(1, None),
        "image",
        "cells",
        14,
        zarr_output_path=tmp_path / "out",
        to_coordinate_system="um",
        memory_limit="1GB",
    )
    assert set(asked) == {"1GB"}
