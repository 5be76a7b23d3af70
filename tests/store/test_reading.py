"""The door to the SpatialData store: reading ours, those of others, and damaged ones."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata
import zarr
from spatialdata._io.format import SpatialDataContainerFormatV01
from spatialdata.models import Image2DModel, Labels2DModel

from scportrait_like import names
from scportrait_like.errors import (
    InputError,
    MissingInputError,
    StoreError,
)
from scportrait_like.filehandler import FileHandler
from scportrait_like.io import placement

from .helpers import (
    MAKERS,
    foreign,
    image_pixels,
    labels_pixels,
    make_stale,
    points,
    read,
    shapes,
    snapshot,
    table,
    version_of,
)
from .killed import place_labels

# Reading


def test_absent(tmp_path: Path) -> None:
    handler = FileHandler(str(tmp_path / "project"))
    assert handler.element_names() == {}
    assert "input_image" not in handler
    assert list(handler.sdata.gen_elements()) == []
    assert handler.repair() == []
    assert not handler.directory.exists()
    with pytest.raises(MissingInputError, match="none"):
        handler.array_path("input_image")


def test_read(handler: FileHandler) -> None:
    assert handler.element_names() == {
        "input_image": "images",
        "cells": "labels",
        "centers": "points",
        "rois": "shapes",
        "intensities": "tables",
    }
    assert "cells" in handler
    assert handler.revision("input_image") == "r1"
    assert handler.revision("centers") == "centers-1"
    assert handler.revision("rois") == "rois-1"
    assert handler.attributes("intensities") == {"revision": "intensities-1"}
    assert handler.revision("cells") is None
    assert handler.channel_names("input_image") == ["DAPI", "ü"]
    assert set(handler.transforms("input_image")) == {"global", "micrometer"}
    assert handler.transforms("input_image")["global"]["type"] == "identity"
    assert handler.transforms("centers")["global"]["type"] == "identity"
    assert handler.transforms("intensities") == {}
    assert handler.array_path("cells") == handler.path / "labels" / "cells" / "s0"
    np.testing.assert_array_equal(handler.open_array("input_image")[...], image_pixels(1))
    with pytest.raises((ValueError, PermissionError), match="read"):
        handler.open_array("cells")[0, 0] = 5
    with pytest.raises(InputError, match="points"):
        handler.array_path("centers")
    with pytest.raises(MissingInputError, match=r"'nuclei'.*input_image, cells"):
        handler.attributes("nuclei")
    for name in ("cells", *MAKERS):
        assert version_of(handler.sdata, name) == version_of(foreign(handler), name) == 1


def test_quiet(handler: FileHandler, caplog: Any, capsys: Any) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        handler.write_element("intensities", table(2, "elsewhere"), overwrite=True)
        place_labels(handler, 2)
        assert handler.sdata is not None
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


def test_opening_writes_nothing(handler: FileHandler) -> None:
    make_stale(handler, "cells")
    before = snapshot(handler.directory)
    again = FileHandler(handler.directory)
    assert "cells" in again.sdata
    again.channel_names("input_image")
    again.open_array("cells")
    assert snapshot(handler.directory) == before


def test_sdata_is_kept_until_the_store_changes(handler: FileHandler) -> None:
    first, other = handler.sdata, FileHandler(handler.directory)
    assert handler.sdata is first
    other.write_element("centers", points(2), overwrite=True)
    assert version_of(handler.sdata, "centers") == 2
    second = handler.sdata
    handler.delete_element("centers")
    assert handler.sdata is not second
    assert "centers" not in handler.sdata


def test_import_is_light() -> None:
    script = "import sys, scportrait_like.filehandler; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"spatialdata", "dask", "zarr", "numpy"} & set(run.stdout.split())


# Not SpatialData


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("file", "is a file"),
        ("folder", "notes.txt"),
        ("group", "not one of SpatialData"),
        ("array", "zarr array"),
        ("broken", "no readable zarr.json"),
    ],
)
def test_not_spatialdata(tmp_path: Path, what: str, told: str) -> None:
    path = tmp_path / names.STORE
    if what == "file":
        path.write_text("hello")
    elif what == "group":
        zarr.create_group(path)
    elif what == "array":
        zarr.create_array(path, shape=(3,), dtype="u1")
    else:
        path.mkdir()
        (path / ("zarr.json" if what == "broken" else "notes.txt")).write_text("{")
    handler = FileHandler(tmp_path)
    for action in (
        handler.element_names,
        lambda: handler.sdata,
        handler.repair,
        lambda: handler.write_element("centers", points(1)),
    ):
        with pytest.raises(StoreError) as caught:
            action()
        assert told in str(caught.value)
        assert str(path) in str(caught.value)


def test_empty_folder_is_absent(tmp_path: Path) -> None:
    (tmp_path / names.STORE).mkdir()
    handler = FileHandler(tmp_path)
    assert handler.element_names() == {}
    handler.write_element("centers", points(1))
    assert version_of(foreign(handler), "centers") == 1


def test_interrupted_by_a_system_without_exchange(handler: FileHandler) -> None:
    """Between the two renames nothing is at the place; the message says what brings it back."""
    scratch = handler.directory / f"{placement.SCRATCH}{names.STORE}-1-abc"
    scratch.mkdir()
    handler.element_path("centers").rename(scratch / "old")
    journal = {"new": "new", "target": f"../{names.STORE}/points/centers"}
    (scratch / "journal.json").write_text(json.dumps(journal))
    with pytest.raises(MissingInputError, match="interrupted"):
        handler.element_path("centers")
    assert "centers" not in handler.sdata
    handler.repair()
    assert version_of(foreign(handler), "centers") == 1
    with pytest.raises(MissingInputError, match="has: "):
        handler.element_path("none")


def test_damaged_element(handler: FileHandler) -> None:
    (handler.path / "tables" / "intensities" / "X" / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="tables/intensities"):
        assert handler.sdata


# Stores of others


def foreign_store(path: Path, **options: Any) -> Path:
    image = Image2DModel.parse(image_pixels(1), c_coords=["a", "b"])
    spatialdata.SpatialData(
        images={"input_image": image},
        labels={"cells": Labels2DModel.parse(labels_pixels(1), scale_factors=[2])},
        points={"centers": points(1)},
        shapes={"rois": shapes(1)},
        tables={"intensities": table(1)},
        attrs={"sdata_status": {"input_images": True}},
    ).write(path, **options)
    return path


def check_foreign(handler: FileHandler) -> None:
    assert len(handler.element_names()) == 5
    assert handler.channel_names("input_image") == ["a", "b"]
    assert handler.revision("input_image") is None
    np.testing.assert_array_equal(handler.open_array("input_image")[...], image_pixels(1))
    assert set(handler.transforms("rois")) == set(handler.transforms("cells")) == {"global"}
    assert version_of(handler.sdata, "cells") == version_of(handler.sdata, "centers") == 1


@pytest.mark.parametrize("consolidated", [True, False])
def test_store_of_spatialdata(tmp_path: Path, consolidated: bool) -> None:
    """And of scPortrait 1.8, which writes through spatialdata and keeps notes in the root."""
    foreign_store(tmp_path / names.STORE, consolidate_metadata=consolidated)
    handler = FileHandler(tmp_path)
    check_foreign(handler)
    handler.write_element("centers", points(2), overwrite=True)
    assert version_of(foreign(handler), "centers") == 2
    assert foreign(handler).attrs == {"sdata_status": {"input_images": True}}
    check = spatialdata.read_zarr(handler.path)
    check["more"] = points(3)
    check.write_element("more")
    assert version_of(handler.sdata, "more") == 3


def test_store_of_older_format(tmp_path: Path) -> None:
    store = foreign_store(tmp_path / names.STORE, sdata_formats=SpatialDataContainerFormatV01())
    handler = FileHandler(tmp_path)
    check_foreign(handler)
    before = snapshot(store)
    assert handler.repair() == []
    with pytest.raises(StoreError, match="older format"):
        handler.write_element("more", points(1))
    with pytest.raises(StoreError, match="older format"):
        handler.delete_element("rois")
    assert snapshot(store) == before


def test_channels_without_names(handler: FileHandler) -> None:
    file = handler.element_path("input_image") / "zarr.json"
    node = read(file)
    del node["attributes"]["ome"]["omero"]
    file.write_text(json.dumps(node))
    assert handler.channel_names("input_image") == ["0", "1"]


# Lists out of date, as killed processes leave them


def test_forgotten_elements(handler: FileHandler) -> None:
    make_stale(handler, "cells", "intensities")
    assert "cells" not in foreign(handler)
    assert version_of(handler.sdata, "cells") == 1
    assert version_of(handler.sdata, "intensities") == 1
    (line,) = handler.repair()
    assert "lists" in line
    assert version_of(foreign(handler), "cells") == 1
    group = read(handler.path / "labels" / "zarr.json")
    assert group["attributes"]["ome"]["labels"] == ["cells"]
    assert handler.repair() == []


def test_element_gone_from_the_disk(handler: FileHandler) -> None:
    shutil.rmtree(handler.element_path("rois"))
    assert "rois" not in handler.sdata
    assert version_of(handler.sdata, "centers") == 1
    handler.repair()
    assert "rois" not in foreign(handler)


@pytest.mark.parametrize("kind", ["images", "labels", "points", "shapes", "tables"])
def test_element_cut_short_by_others(handler: FileHandler, kind: str) -> None:
    """spatialdata killed inside its write: it leaves an element that it cannot read."""
    stump = handler.path / kind / "stump"
    zarr.create_group(stump)
    (stump / "c").mkdir()
    assert "stump" not in handler
    assert version_of(handler.sdata, "cells") == 1
    handler.write_element("centers", points(2), overwrite=True)
    assert version_of(foreign(handler), "centers") == 2
    if kind == "points":
        handler.write_element("stump", points(3))
        assert version_of(foreign(handler), "stump") == 3


def test_unreadable_element_left_out_where_lists_are_stale(
    handler: FileHandler, caplog: Any
) -> None:
    make_stale(handler, "cells")
    (handler.path / "tables" / "intensities" / "X" / "zarr.json").write_text("{")
    assert "intensities" not in handler.sdata
    assert "cells" in handler.sdata
    assert any("intensities" in record.getMessage() for record in caplog.records)


def test_lists_are_those_of_zarr(handler: FileHandler) -> None:
    ours = read(handler.path / "zarr.json")
    foreign(handler).write_consolidated_metadata()
    assert read(handler.path / "zarr.json") == ours
    assert handler.repair() == []


def test_names_with_a_dot_are_not_seen(handler: FileHandler) -> None:
    hidden = handler.path / "points" / ".hidden"
    shutil.copytree(handler.element_path("centers"), hidden)
    assert ".hidden" not in handler
    assert handler.repair() == []
    assert ".hidden" not in foreign(handler)
    assert ".hidden" not in handler.sdata
