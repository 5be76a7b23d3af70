"""The door to the SpatialData store: placing, replacing, deleting, and disks that refuse."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata
from spatialdata.models import Image2DModel, Labels2DModel

from scportrait_like import names
from scportrait_like.errors import (
    DiskFullError,
    ElementExistsError,
    InputError,
    MissingInputError,
    ProjectError,
)
from scportrait_like.filehandler import FileHandler, check_name
from scportrait_like.io import placement, store_update

from .helpers import (
    MAKERS,
    foreign,
    image_pixels,
    labels_pixels,
    names_in,
    points,
    read,
    table,
    version_of,
)
from .killed import place_labels


def test_replaced(handler: FileHandler) -> None:
    for name, make in MAKERS.items():
        with pytest.raises(ElementExistsError, match="overwrite=True"):
            handler.write_element(name, make(2))
        assert version_of(foreign(handler), name) == 1
        handler.write_element(name, make(2), overwrite=True, attributes={"revision": "2"})
        assert version_of(foreign(handler), name) == 2
        assert handler.revision(name) == "2"
    with pytest.raises(ElementExistsError):
        place_labels(handler, 2, overwrite=False)
    assert names_in(handler.directory) == [names.STORE]


def test_replaced_without_exchange(handler: FileHandler, monkeypatch: Any) -> None:
    monkeypatch.setattr(placement, "exchange", lambda first, second: False)
    test_replaced(handler)


def test_replaced_by_what_is_read_from_it(handler: FileHandler) -> None:
    handler.write_element("centers", handler.sdata["centers"], overwrite=True)
    handler.write_element("input_image", handler.sdata["input_image"], overwrite=True)
    assert version_of(foreign(handler), "centers") == 1
    np.testing.assert_array_equal(handler.open_array("input_image")[...], image_pixels(1))


def test_any_raster_in_memory(handler: FileHandler) -> None:
    handler.write_element("flat", Image2DModel.parse(image_pixels(3)))
    handler.write_element("more", Labels2DModel.parse(labels_pixels(3), scale_factors=[2]))
    group = read(handler.path / "labels" / "zarr.json")
    assert group["attributes"]["ome"]["labels"] == ["cells", "more"]
    assert version_of(foreign(handler), "more") == 3
    np.testing.assert_array_equal(handler.open_array("flat")[...], image_pixels(3))


def test_deleted(handler: FileHandler) -> None:
    for name in handler.element_names():
        handler.delete_element(name)
        assert name not in handler
        assert name not in foreign(handler)
        with pytest.raises(MissingInputError):
            handler.delete_element(name)
    assert names_in(handler.directory) == [names.STORE]
    place_labels(handler, 3)
    assert version_of(foreign(handler), "cells") == 3


def test_names_refused(handler: FileHandler) -> None:
    from spatialdata._core.validation import check_valid_name

    for name in ("a", "A_1-b.c", "ü", "seg_all_nucleus"):
        check_name(name)
        check_valid_name(name)
    for name in ("", ".", "..", "__a", "a b", "a/b", "../a", "a\n"):
        with pytest.raises(InputError, match="cannot name"):
            check_name(name)
        with pytest.raises(ValueError, match=r"[Nn]ame"):
            check_valid_name(name)
    with pytest.raises(InputError):
        check_name(".a")
    with pytest.raises(InputError, match="upper case"):
        handler.write_element("Centers", points(1))
    with pytest.raises(InputError, match="names one of the points"):
        handler.write_element("centers", table(1), overwrite=True)


class OurError(Exception):
    pass


def fail_in_the_middle(handler: FileHandler) -> None:
    with handler.raster_writer("cells", "labels", (50, 50), "u4", overwrite=True) as writer:
        writer.write((slice(0, 5), slice(0, 5)), labels_pixels(9, 5)[:, :5])
        raise OurError


def test_exception_in_the_block_leaves_nothing(handler: FileHandler, tmp_path: Path) -> None:
    for directory in (handler.directory, tmp_path / "new"):
        door = FileHandler(directory)
        with pytest.raises(OurError):
            fail_in_the_middle(door)
        assert not list(directory.glob(".scratch-*"))
    assert version_of(foreign(handler), "cells") == 1
    assert not (tmp_path / "new" / names.STORE).exists()


def test_repair_beside_an_open_writer(handler: FileHandler) -> None:
    with handler.raster_writer("cells", "labels", (50, 50), "u4", overwrite=True) as writer:
        handler.repair()
        handler.write_element("centers", points(2), overwrite=True)
        writer.write((slice(None), slice(None)), np.full((50, 50), 2, np.uint32))
    assert version_of(foreign(handler), "cells") == version_of(foreign(handler), "centers") == 2


def test_store_behind_a_link(handler: FileHandler, tmp_path: Path) -> None:
    elsewhere = tmp_path / "big_disk"
    elsewhere.mkdir()
    handler.path.rename(elsewhere / "store.sdata")
    handler.path.symlink_to(elsewhere / "store.sdata")
    handler.write_element("centers", points(2), overwrite=True)
    assert handler.path.is_symlink()
    assert version_of(foreign(handler), "centers") == version_of(handler.sdata, "centers") == 2
    assert names_in(elsewhere) == ["store.sdata"]


# Full and forbidden disks


def test_disk_full_while_placing(handler: FileHandler, monkeypatch: Any) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, function in (
        (placement, "flush_tree"),
        (placement, "exchange"),
        (store_update, "_set_attributes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, function, full)
            with pytest.raises(DiskFullError, match=names.STORE):
                handler.write_element("centers", points(2), overwrite=True)
        assert version_of(foreign(handler), "centers") == 1
        assert names_in(handler.directory) == [names.STORE]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_small_disk(small_disk: Path) -> None:
    handler = FileHandler(small_disk / "project")
    place_labels(handler, 1)
    for name, make in MAKERS.items():
        handler.write_element(name, make(1))
    shape = (4, 1024, 1024)
    noise = np.random.default_rng(0).integers(0, 65535, shape, dtype=np.uint16)
    with (
        pytest.raises(DiskFullError, match=names.STORE),
        handler.raster_writer("image", "images", shape, "u2") as writer,
    ):
        writer.write((slice(None),) * 3, noise)
    big = points(1).compute().sample(400_000, replace=True, random_state=0)
    big["x"] = np.random.default_rng(0).normal(size=len(big))
    big_points = spatialdata.models.PointsModel.parse(big.reset_index(drop=True))
    with pytest.raises(DiskFullError, match=names.STORE):
        handler.write_element("centers", big_points, overwrite=True)
    handler.repair()  # threads of zarr may have written on after the failure
    assert names_in(handler.directory) == [names.STORE]
    for name in ("cells", *MAKERS):
        assert version_of(foreign(handler), name) == 1
    handler.write_element("centers", points(2), overwrite=True)
    assert version_of(foreign(handler), "centers") == 2


def test_read_only_disk(small_disk: Path) -> None:
    handler = FileHandler(small_disk / "project")
    place_labels(handler, 1)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    assert version_of(handler.sdata, "cells") == 1
    with pytest.raises(ProjectError, match="cannot be written"):
        handler.write_element("centers", points(1))
    with pytest.raises(ProjectError, match="cannot be written"):
        handler.delete_element("cells")
    with pytest.raises(ProjectError, match="cannot be written"):
        place_labels(handler, 2)
    assert handler.repair() == []
    assert version_of(handler.sdata, "cells") == 1
