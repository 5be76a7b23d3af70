"""Pictures read back from `.h5sc` files, whoever wrote them."""

from __future__ import annotations

import pickle
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from scportrait_like.errors import IncompleteOutputError, RunError
from scportrait_like.raster.stored_portraits import StoredPortraits

from .helpers import Array

N, PLANES, SIZE = 7, 3, 20
LAYOUTS: dict[str, dict[str, Any]] = {
    "lzf": {"compression": "lzf", "chunks": (1, 1, SIZE, SIZE)},
    "gzip": {"compression": "gzip", "chunks": (1, 1, SIZE, SIZE)},
    "none": {"chunks": (1, 1, SIZE, SIZE)},
    "shuffled": {"compression": "lzf", "shuffle": True, "chunks": (1, 1, SIZE, SIZE)},
    "other chunks": {"compression": "lzf", "chunks": (2, PLANES, SIZE, SIZE)},
    "one piece": {},
}


def pictures() -> Array:
    """Some that shrink, and one of noise that does not: HDF5 then stores it as it is."""
    rng = np.random.default_rng(1)
    found = np.zeros((N, PLANES, SIZE, SIZE), np.float16)
    found[:, :, 5:12, 4:9] = rng.random((N, PLANES, 1, 1))
    found[3, 1] = rng.integers(0, 2**16, (SIZE, SIZE)).astype(np.uint16).view(np.float16)
    return found


def write(path: Path, **layout: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("obsm/single_cell_images", data=pictures(), **layout)
        file["obs/scportrait_cell_id"] = np.arange(N, dtype=np.uint64)[::-1] + 2**40
        planes = ["mask", "DAPI", "CD3"]
        file.create_dataset(
            "uns/single_cell_images/channel_names", data=planes, dtype=h5py.string_dtype()
        )
        file["uns/single_cell_images/n_masks"] = 1


def bits(found: Array) -> Array:
    return np.ascontiguousarray(found).view(np.uint16)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(tmp_path: Path, layout: str) -> None:
    write(tmp_path / "cells.h5sc", **LAYOUTS[layout])
    stored = StoredPortraits.open(tmp_path / "cells.h5sc")
    assert stored.codec == (layout if layout in ("lzf", "gzip", "none") else None)
    assert (stored.n_cells, stored.size) == (N, SIZE)
    assert (stored.masks, stored.channels) == (("mask",), ("DAPI", "CD3"))
    assert stored.ids().tolist() == [2**40 + i for i in range(N)][::-1]
    rows, planes = np.array([3, 0, 6, 3]), [2, 1]
    np.testing.assert_array_equal(
        bits(stored.read(rows, planes)), bits(pictures()[rows][:, planes])
    )
    assert stored.read(rows[:0], planes).shape == (0, 2, SIZE, SIZE)
    assert pickle.loads(pickle.dumps(stored)) == stored


def test_a_file_that_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5sc"
    write(path, **LAYOUTS["lzf"])
    before = StoredPortraits.open(path)
    path.unlink()
    write(path, **LAYOUTS["gzip"])
    after = StoredPortraits.open(path)
    assert after.stamp != before.stamp
    assert (before.codec, after.codec) == ("lzf", "gzip")
    rows = np.arange(N)
    np.testing.assert_array_equal(bits(after.read(rows, [0, 1])), bits(pictures()[:, :2]))
    with pytest.raises(RunError, match=r"cells\.h5sc was replaced while it was in use"):
        before.read(rows, [0, 1])


def open_files(folder: Path) -> list[str]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # what lists the folder, by now
            found.append(each.readlink())
    return sorted(path.name for path in found if path.parent == folder)


@pytest.mark.skipif(sys.platform != "linux", reason="open files are looked up in /proc")
def test_files_are_closed(tmp_path: Path) -> None:
    """One that was replaced, whose space the disk would not give back, and one of many."""
    paths = [tmp_path / f"{number}.h5sc" for number in range(6)]
    for path in paths[:2]:
        write(path, **LAYOUTS["lzf"])
        StoredPortraits.open(path)
    paths[0].unlink()
    write(paths[0], **LAYOUTS["gzip"])
    assert StoredPortraits.open(paths[0]).codec == "gzip"
    assert open_files(tmp_path) == ["0.h5sc", "1.h5sc"]
    for path in paths[2:]:
        write(path, **LAYOUTS["lzf"])
        StoredPortraits.open(path)
    assert open_files(tmp_path) == ["2.h5sc", "3.h5sc", "4.h5sc", "5.h5sc"]


@pytest.mark.parametrize("layout", ["lzf", "gzip"])
@pytest.mark.parametrize("harm", [b"\xff" * 30, b"\0" * 30], ids=["ones", "zeros"])
def test_a_damaged_chunk(tmp_path: Path, layout: str, harm: bytes) -> None:
    path = tmp_path / "cells.h5sc"
    write(path, **LAYOUTS[layout])
    with h5py.File(path) as file:
        images = file["obsm/single_cell_images"]
        chunk = images.id.get_chunk_info_by_coord((4, 2, 0, 0))
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(harm[: chunk.size])
    stored = StoredPortraits.open(path)
    with pytest.raises(IncompleteOutputError, match=r"cells\.h5sc is damaged.*make it anew"):
        stored.read(np.array([4]), [2])


def test_what_is_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5sc"
    for content in (b"", b"nothing"):
        path.write_bytes(content)
        with pytest.raises(IncompleteOutputError, match=r"damaged, or no \.h5sc file"):
            StoredPortraits.open(path)
    with h5py.File(path, "w") as file:
        file["obsm/single_cell_images"] = np.zeros(3)
    with pytest.raises(IncompleteOutputError, match=r"damaged, or no \.h5sc file"):
        StoredPortraits.open(path)
