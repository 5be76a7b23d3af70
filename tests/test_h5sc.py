"""The `.h5sc` file: its layout, item by item as scPortrait writes it; who reads it; damage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest

from scportrait_like import names
from scportrait_like.errors import IncompleteOutputError, MissingInputError
from scportrait_like.io.h5sc import H5scFacts, H5scWriter, read_h5sc
from scportrait_like.project import Project
from scportrait_like.raster.chunkcodecs import CODECS
from scportrait_like.run.unitfile import UnitReader, UnitWriter

TEXT = h5py.string_dtype("utf-8")
LONG = "CD45RO (a long name, ünïcode)"


def facts(n_cells: int = 3, codec: str = "lzf", normalised: bool = True) -> H5scFacts:
    return H5scFacts(
        n_cells,
        16,
        (names.SEG_NUCLEUS, names.SEG_CYTOSOL),
        ("DNA", LONG),
        (0.001, 0.999) if normalised else None,
        codec,
    )


def write(path: Path, given: H5scFacts, seed: int = 0) -> np.ndarray[Any, Any]:
    """Write pictures plane by plane, in batches and out of order; return them."""
    rng = np.random.default_rng(seed)
    shape = (given.n_cells, len(given.planes), given.size, given.size)
    images = rng.random(shape).astype(np.float16)
    images[:, :, 3:, :] = 0
    if given.n_cells:
        images[0] = rng.random(shape[1:])  # does not shrink
    rows = rng.permutation(given.n_cells)
    unit = path.with_name(f"{path.name}.unit")
    with unit.open("wb") as file:
        out = UnitWriter(file)
        for plane in range(len(given.planes) if given.n_cells else 0):
            for number, batch in enumerate(np.array_split(rows, 2)):
                pictures = images[batch, plane].view(np.uint16)
                stream, sizes = CODECS[given.codec].encode(np.ascontiguousarray(pictures))
                out.put(f"chunks.{plane}.{number}", stream)
                out.put(f"sizes.{plane}.{number}", sizes)
        out.close()
    writer = H5scWriter(path, given, np.arange(given.n_cells) * 10 + 2**40)
    writer.add(rows, UnitReader(unit))
    writer.flush()
    writer.close()
    return images


def kind_of(item: Any) -> str:
    """Dtype as the file has it."""
    text = h5py.check_string_dtype(item.dtype)
    if text is not None:
        return "text" if text.length is None else f"S{text.length}"
    return str(item.dtype)


def layout(file: h5py.File) -> dict[str, Any]:
    """Everything that stands in the file but the pictures and the ids: a line an item."""
    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            small = item.ndim < 2 and "_index" not in name and "cell_id" not in name
            values = np.asarray(item[()]).tolist() if small else None
            plist = item.id.get_create_plist()
            filters = [plist.get_filter(i)[:3] for i in range(plist.get_nfilters())]
            found[name] = (kind_of(item), item.shape, item.chunks, filters, values)
        else:
            found[name] = "group"
        for key in item.attrs:
            value = item.attrs.get_id(key)
            found[f"{name}@{key}"] = (kind_of(value), np.asarray(item.attrs[key]).tolist())

    note("", file["/"])
    file.visititems(note)
    return found


def expected_layout(given: H5scFacts) -> dict[str, Any]:
    """As scPortrait 1.8 writes it, but with whole channel names where it cuts some."""
    n, size = given.n_cells, given.size
    planes = [names.SEG_NUCLEUS, names.SEG_CYTOSOL, "DNA", LONG]
    mapping = ["mask", "mask", "image_channel", "image_channel"]
    width = max(len(plane.encode()) for plane in planes)
    numbers = {
        "n_cells": n,
        "n_channels": 4,
        "n_masks": 2,
        "n_image_channels": 2,
        "image_size": size,
    }
    on = given.normalisation_range is not None
    found: dict[str, Any] = {"": "group", "obsm/single_cell_images": None}

    def encode(name: str, kind: str, version: str) -> None:
        found[f"{name}@encoding-type"] = ("text", kind)
        found[f"{name}@encoding-version"] = ("text", version)

    def data(name: str, kind: str, shape: Any, values: Any, encoding: str) -> None:
        found[name] = (kind, shape, None, [], values)
        encode(name, encoding, "0.2.0")

    encode("", "anndata", "0.1.0")
    for group in ("layers", "obsm", "obsp", "uns", "varm", "varp", "uns/single_cell_images"):
        found[group] = "group"
        encode(group, "dict", "0.1.0")
    for frame, columns in (
        ("obs", ["scportrait_cell_id"]),
        ("var", ["channels", "channel_mapping"]),
    ):
        found[frame] = "group"
        encode(frame, "dataframe", "0.2.0")
        found[f"{frame}@_index"] = ("text", "_index")
        found[f"{frame}@column-order"] = ("text", columns)
    data("obs/_index", "text", (n,), None, "string-array")
    data("obs/scportrait_cell_id", "uint64", (n,), None, "array")
    data("var/_index", "text", (4,), None, "string-array")
    as_bytes = [plane.encode() for plane in planes]
    data("var/channels", "text", (4,), as_bytes, "string-array")
    found["var/channel_mapping"] = "group"
    encode("var/channel_mapping", "categorical", "0.2.0")
    found["var/channel_mapping@ordered"] = ("bool", False)
    kinds = [b"image_channel", b"mask"]
    data("var/channel_mapping/categories", "text", (2,), kinds, "string-array")
    data("var/channel_mapping/codes", "int8", (4,), [1, 1, 0, 0], "array")
    uns = "uns/single_cell_images"
    data(f"{uns}/channel_names", "text", (4,), as_bytes, "string-array")
    data(f"{uns}/channel_mapping", "text", (4,), [m.encode() for m in mapping], "string-array")
    for key, value in numbers.items():
        data(f"{uns}/{key}", "int64", (), value, "numeric-scalar")
    data(f"{uns}/normalization", "bool", (), on, "numeric-scalar")
    for key, limit in (("lower", 0.001), ("upper", 0.999)):
        where = f"{uns}/normalization_range_{key}"
        if on:
            data(where, "float64", (), limit, "numeric-scalar")
        else:
            data(where, "text", (), b"None", "string")
    codec = {"lzf": "lzf", "gzip": "gzip", "none": "None"}[given.codec]
    data(f"{uns}/compression", "text", (), codec.encode(), "string")
    filters = {
        "lzf": [(32000, 1, (4, 261, 2 * size * size))],
        "gzip": [(1, 1, (4,))],
        "none": [],
    }[given.codec]
    images, shape = "obsm/single_cell_images", (n, 4, size, size)
    found[images] = ("float16", shape, (1, 1, size, size), filters, None)
    encode(images, "array", "0.2.0")
    for key, value in numbers.items():
        found[f"{images}@{key}"] = ("int64", value)
    found[f"{images}@normalization"] = ("bool", on)
    limits = ("float64", [0.001, 0.999]) if on else ("text", ["None", "None"])
    found[f"{images}@normalization_range"] = limits
    found[f"{images}@compression"] = ("text", codec)
    found[f"{images}@channel_names"] = (f"S{width}", as_bytes)
    found[f"{images}@channel_mapping"] = ("S13", [m.encode() for m in mapping])
    return found


@pytest.mark.parametrize("codec", ["lzf", "gzip", "none"])
@pytest.mark.parametrize("normalised", [True, False])
def test_layout(tmp_path: Path, codec: str, normalised: bool) -> None:
    given = facts(codec=codec, normalised=normalised)
    images = write(tmp_path / "a.h5sc", given)
    with h5py.File(tmp_path / "a.h5sc") as file:
        found, expected = layout(file), expected_layout(given)
        assert sorted(found) == sorted(expected)
        for name, item in expected.items():
            assert found[name] == item, name
        np.testing.assert_array_equal(file["obsm/single_cell_images"][:], images)
        assert file["obs/scportrait_cell_id"][:].tolist() == [2**40, 2**40 + 10, 2**40 + 20]
        assert file["obs/_index"].asstr()[:].tolist() == ["0", "1", "2"]


@pytest.mark.parametrize("normalised", [True, False])
def test_two_runs_give_the_same_bytes(tmp_path: Path, normalised: bool) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, facts(normalised=normalised))
        time.sleep(1.1)  # HDF5's clock ticks in seconds
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_old_readers(tmp_path: Path) -> None:
    """Nothing in it is newer than HDF5 1.10; a reader of that age is tried among the peers."""
    write(tmp_path / "a.h5sc", facts())
    with h5py.File(tmp_path / "a.h5sc", libver=("earliest", "v110")) as file:
        assert file.id.get_create_plist().get_version()[0] <= 3
        times = []
        file.visititems(
            lambda _, item: times.append(item.id.get_create_plist().get_obj_track_times())
        )
    assert len(times) > 20
    assert not any(times)


def test_no_rows(tmp_path: Path) -> None:
    given = facts(n_cells=0)
    write(tmp_path / "a.h5sc", given)
    data = read_h5sc(tmp_path / "a.h5sc")
    assert data.shape == (0, 4)
    assert data.obsm[names.IMAGES_KEY].shape == (0, 4, 16, 16)
    assert data.obs[names.INSTANCE_KEY].dtype == np.uint64
    assert data.uns[names.IMAGES_KEY]["n_cells"] == 0
    assert anndata.io.read_h5ad(tmp_path / "a.h5sc").n_obs == 0


def test_anndata_reads_it(tmp_path: Path) -> None:
    images = write(tmp_path / "a.h5sc", facts())
    whole = anndata.io.read_h5ad(tmp_path / "a.h5sc")
    np.testing.assert_array_equal(whole.obsm[names.IMAGES_KEY], images)
    with h5py.File(tmp_path / "a.h5sc") as file:
        by_element = anndata.io.read_elem(file)
    for data in (whole, by_element):
        assert data.var["channels"].tolist()[-1] == LONG
        assert data.var["channel_mapping"].tolist() == ["mask", "mask"] + ["image_channel"] * 2
        assert data.obs[names.INSTANCE_KEY].tolist() == [2**40, 2**40 + 10, 2**40 + 20]


def test_read_lazily(tmp_path: Path) -> None:
    images = write(tmp_path / "a.h5sc", facts())
    data = read_h5sc(str(tmp_path / "a.h5sc"))
    lazy = data.obsm[names.IMAGES_KEY]
    assert isinstance(lazy, h5py.Dataset)
    assert lazy.file.mode == "r"
    np.testing.assert_array_equal(lazy[1, 2], images[1, 2])
    uns = data.uns[names.IMAGES_KEY]
    assert (uns["n_channels"], uns["normalization_range_upper"]) == (4, 0.999)
    assert list(uns["channel_names"])[-1] == LONG
    assert uns["compression"] == "lzf"


@pytest.mark.parametrize("left", [0, 10, 100, 0.3, 0.9, 0.999])
def test_cut_short(tmp_path: Path, left: float) -> None:
    path = tmp_path / "a.h5sc"
    write(path, facts())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(IncompleteOutputError, match=r"a\.h5sc is incomplete or damaged.*; do it"):
        read_h5sc(path, "do it again")


def test_no_h5sc(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"a\.h5sc is not there; run"):
        read_h5sc(tmp_path / "a.h5sc")
    with h5py.File(tmp_path / "a.h5sc", "w") as file:
        file["x"] = 1
    with pytest.raises(IncompleteOutputError, match=r"a\.h5sc is no \.h5sc file"):
        read_h5sc(tmp_path / "a.h5sc")
    (tmp_path / "text.h5sc").write_text("hello")
    with pytest.raises(IncompleteOutputError, match=r"text\.h5sc is incomplete or damaged"):
        read_h5sc(tmp_path / "text.h5sc")


def test_project_says_how_to_go_on(loaded: Project) -> None:
    with pytest.raises(MissingInputError, match=r"run project\.extract\(\)"):
        _ = loaded.h5sc
    path = loaded.extract()
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(
        IncompleteOutputError, match=r"make it anew with project\.extract\(overwrite=True\)"
    ):
        _ = loaded.h5sc
    loaded.extract(overwrite=True)
    assert loaded.h5sc.obsm[names.IMAGES_KEY][0].any()
