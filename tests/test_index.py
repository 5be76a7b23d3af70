"""The cell index: against scikit-image, for any ids, chunks and pieces, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops_table

from scportrait_like.datasets import tissue
from scportrait_like.errors import InputError
from scportrait_like.io.indexes import index_path, labels_index
from scportrait_like.project import Project
from scportrait_like.raster.index import CellIndex, build_index
from scportrait_like.raster.sources import ZarrSource, source_of
from scportrait_like.raster.tiles import TileGrid

Pixels = np.ndarray[Any, Any]


def check(index: CellIndex, mask: Pixels) -> None:
    """Compare every figure of an index with scikit-image's."""
    ids, plain = np.unique(mask, return_inverse=True)
    plain = plain.reshape(mask.shape).astype(np.int64)
    if ids[0] != 0:
        ids, plain = np.concatenate([np.zeros(1, ids.dtype), ids]), plain + 1
    props = regionprops_table(plain, properties=("label", "area", "centroid", "bbox"))
    assert index.ids.dtype == np.int64
    assert index.ids.tolist() == ids[props["label"]].tolist()
    assert index.area.tolist() == props["area"].tolist()
    centroid = np.stack([props["centroid-0"], props["centroid-1"]], axis=1)
    np.testing.assert_allclose(index.centroid, centroid, rtol=1e-12, atol=0)
    boxes = np.stack([props[f"bbox-{i}"] for i in range(4)], axis=1)
    np.testing.assert_array_equal(index.box, boxes)
    edge = np.zeros(mask.shape, bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    touching = set(np.unique(mask[edge]).tolist())
    assert [i in touching for i in index.ids.tolist()] == index.border.tolist()
    assert index.shape == mask.shape


def spread(mask: Pixels, seed: int = 0, dtype: Any = np.uint64) -> Pixels:
    """Other ids for the labels of a mask: any, in any order, the largest among them."""
    ids = np.unique(mask[mask > 0])
    top = min(2**63 - 1, int(np.iinfo(dtype).max))
    drawn = (
        np.random.default_rng(seed).choice(top - 1, len(ids), replace=False) + 1
        if top < 1e6
        else (np.unique(np.random.default_rng(seed).integers(1, top, 2 * len(ids), np.int64)))
    )
    drawn = np.random.default_rng(seed).permutation(drawn)[: len(ids)].astype(dtype)
    drawn[-1] = top
    out = np.zeros(mask.shape, dtype)
    out[mask > 0] = drawn[np.searchsorted(ids, mask[mask > 0])]
    return out


@pytest.fixture(scope="module")
def cells() -> Pixels:
    return tissue((1, 700, 900), seed=3).read_labels()


@pytest.mark.parametrize("chunks", [(700, 900), (100, 100), (64, 900), (33, 71), (1, 900)], ids=str)
@pytest.mark.parametrize("kind", ["as they are", "sparse"])
def test_tissue(tmp_path: Path, cells: Pixels, chunks: tuple[int, int], kind: str) -> None:
    mask = cells if kind == "as they are" else spread(cells)
    array = zarr.create_array(tmp_path / "m.zarr", data=mask, chunks=chunks)
    check(build_index(source_of(array)), mask)
    if chunks[0] > 1:
        check(build_index(source_of(array), grid=TileGrid((700, 900), chunks)), mask)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"])
def test_dtypes_with_their_largest_id(cells: Pixels, dtype: str) -> None:
    mask = spread(cells % 100, dtype=np.dtype(dtype))
    check(build_index(source_of(mask)), mask)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    edges=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    labels=st.integers(1, 30),
    background=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_noise_of_any_shape_and_tiles(
    height: int, width: int, edges: tuple[int, int], labels: int, background: bool, seed: int
) -> None:
    # Every label has many pieces, and crosses the tiles' borders.
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 2**63 - 1, labels)
    mask = ids[rng.integers(0, labels, (height, width))]
    if background:
        mask[rng.random((height, width)) < 0.5] = 0
        mask[0, 0] = 2**63 - 1
    grid = TileGrid((height, width), edges)
    check(build_index(source_of(mask), grid=grid), mask)


def test_tiles_that_a_label_spans() -> None:
    mask = np.zeros((40, 40), np.int32)
    mask[8:12, 8:12] = 1  # four tiles
    mask[0:3, 0:3] = 2  # one
    mask[0, 39] = mask[39, 0] = 3  # two, not neighbours
    mask[15, 5:35] = 4  # four in a row
    index = build_index(source_of(mask), grid=TileGrid((40, 40), (10, 10)))
    assert dict(zip(index.ids.tolist(), index.tiles.tolist(), strict=True)) == {
        1: 4,
        2: 1,
        3: 2,
        4: 4,
    }


def test_a_single_pixel_and_a_full_image() -> None:
    for mask in (np.array([[5]], np.uint8), np.full((30, 50), 2**62, np.int64)):
        check(build_index(source_of(mask)), mask)


def test_nothing_but_background() -> None:
    index = build_index(source_of(np.zeros((30, 40), np.uint16)))
    assert len(index) == 0
    assert index.box.shape == (0, 4)


def test_refused_masks(cells: Pixels) -> None:
    with pytest.raises(InputError, match="my mask holds negative ids"):
        build_index(source_of(np.where(cells == 3, -3, cells.astype(np.int32))), "my mask")
    with pytest.raises(InputError, match="my mask holds ids above"):
        build_index(source_of(np.where(cells == 3, 2**63, cells.astype(np.uint64))), "my mask")
    with pytest.raises(InputError, match="my mask holds float64"):
        build_index(source_of(cells / 2), "my mask")


def test_stored_and_read_again(tmp_path: Path, cells: Pixels) -> None:
    index = build_index(source_of(spread(cells)))
    with (tmp_path / "i.parquet").open("wb") as file:
        index.save(file)
    again = CellIndex.load(tmp_path / "i.parquet")
    for name in ("ids", "area", "centroid", "box", "border", "tiles"):
        ours, theirs = getattr(index, name), getattr(again, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert again.shape == index.shape


def test_taking_rows(cells: Pixels) -> None:
    index = build_index(source_of(cells))
    some = index.take(index.area > 300)
    assert 0 < len(some) < len(index)
    assert (some.area > 300).all()
    assert some.shape == index.shape


# With a project


def test_the_project_stores_the_index_of_the_loading_pass(
    loaded: Project, labels: Pixels, log_of: Callable[[Project], str]
) -> None:
    path = index_path(loaded.filehandler, "seg_all_cytosol")
    assert path.is_file()
    assert list(path.parent.iterdir()) == [path]
    index = labels_index(loaded.filehandler, "seg_all_cytosol")
    check(index, labels)
    path.unlink()
    again = labels_index(loaded.filehandler, "seg_all_cytosol")
    assert path.is_file()
    for name in ("ids", "area", "centroid", "box", "border"):
        np.testing.assert_array_equal(getattr(index, name), getattr(again, name))
    assert log_of(loaded).count("labels indexed") == 1


def test_centers_are_as_scportrait_has_them(loaded: Project) -> None:
    """As scPortrait 1.8 writes them: one parquet, doubles, ids as an index without a name."""
    import pyarrow.parquet as pq

    folder = loaded.filehandler.element_path("centers_seg_all_cytosol") / "points.parquet"
    (part,) = folder.glob("*.parquet")
    assert part.name == "part.0.parquet"
    table = pq.read_table(part)
    assert table.column_names == ["x", "y", "__null_dask_index__"]
    assert [str(kind) for kind in table.schema.types] == ["double", "double", "uint64"]
    index = labels_index(loaded.filehandler, "seg_all_cytosol")
    assert table["__null_dask_index__"].to_pylist() == index.ids.tolist()
    np.testing.assert_array_equal(table["x"].to_numpy(), index.centroid[:, 1])
    np.testing.assert_array_equal(table["y"].to_numpy(), index.centroid[:, 0])
    attributes = loaded.filehandler.metadata("centers_seg_all_cytosol")
    assert attributes["encoding-type"] == "ngff:points"
    assert attributes["axes"] == ["x", "y"]
    assert attributes["spatialdata_attrs"] == {"version": "0.2"}


def test_the_index_of_a_mask_of_somebody_elses(loaded: Project, labels: Pixels) -> None:
    """Where the mask lies there without a revision, its files tell whether it has changed."""
    folder = loaded.filehandler.element_path("seg_all_cytosol")
    text = (folder / "zarr.json").read_text()
    (folder / "zarr.json").write_text(text.replace('"revision"', '"other"'))
    check(labels_index(loaded.filehandler, "seg_all_cytosol"), labels)
    changed = np.where(labels == labels.max(), 77_777, labels)
    zarr.open_array(folder / "s0", mode="r+")[:] = changed
    check(labels_index(loaded.filehandler, "seg_all_cytosol"), changed)


MEMORY = """
import sys, numpy as np, dask.array as da
from scportrait_like.raster.index import build_index
from scportrait_like.raster.sources import source_of
from scportrait_like.run.memory import MemoryWatch, tree_memory

def block(block_id=None):
    y, x = block_id
    labels = np.arange(1000 * 1000, dtype=np.int64).reshape(1000, 1000) // 100
    ids = (labels + 10_000 * (y * 8 + x)) * int(sys.argv[1]) + 1
    return ids

lazy = da.map_blocks(block, chunks=((1000,) * 8, (1000,) * 8), dtype=np.int64,
                     meta=np.empty((0, 0), np.int64))
build_index(source_of(lazy[:1000, :1000]))  # compile
before = tree_memory()
with MemoryWatch(0.02) as watch:
    index = build_index(source_of(lazy))
assert len(index) == 640_000, len(index)
assert index.ids[-1] == 639_999 * int(sys.argv[1]) + 1
print((watch.peak - before) // 1_000_000)
"""


@pytest.mark.slow
def test_memory_grows_with_labels_and_not_with_ids() -> None:
    took = []
    for step in (1, 14_000_000_000_000):  # up to 9e18, near 2^63
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(step)], capture_output=True, text=True, check=True
        )
        took.append(int(done.stdout))
    assert max(took) < 500  # 640,000 labels; a chunk of them is 8 MB
    assert abs(took[1] - took[0]) < 100


def test_a_lazy_mask(cells: Pixels) -> None:
    check(build_index(source_of(da.from_array(cells, chunks=(123, 77)))), cells)


def test_a_source_pickles(tmp_path: Path, cells: Pixels) -> None:
    import pickle

    source = source_of(zarr.create_array(tmp_path / "m.zarr", data=cells, chunks=(100, 100)))
    assert isinstance(source, ZarrSource)
    check(build_index(pickle.loads(pickle.dumps(source))), cells)
