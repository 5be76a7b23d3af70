"""Windows in zarr files: read back by zarr and dask, and there as a whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from scportrait_like.errors import DiskFullError, ElementExistsError, InputError
from scportrait_like.io import instances_zarr
from scportrait_like.io.instances_zarr import lazy_rows, write_instances, write_rows
from scportrait_like.raster import instance_codec
from scportrait_like.raster.instance_runs import Found, InstanceRun
from scportrait_like.raster.sources import source_of
from tests.instances.oracle import Show, windows


def example(
    depth: int = 1, dtype: Any = np.uint16, n_channels: int = 3, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A mask with ids in no order and gaps, and an image."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((depth, 70, 90), np.uint32)
    ids = rng.permutation(np.arange(1, 200))[:40]
    for number, id_ in enumerate(ids):
        y, x = divmod(number, 8)
        mask[:, 2 + 13 * y : 12 + 13 * y, 1 + 11 * x : 10 + 11 * x] = id_
    image = rng.integers(0, 60000, (n_channels, *mask.shape)).astype(dtype)
    return mask, image


def stored(tmp_path: Path, name: str, array: NDArray[Any], chunks: tuple[int, ...]) -> Any:
    return zarr.create_array(tmp_path / name, data=array, chunks=chunks)


def run_over(mask: Any, image: Any, size: int = 16, **options: Any) -> InstanceRun:
    source = None if image is None else source_of(image)
    return InstanceRun(source_of(mask), source, size, Show(), **options)


def bytes_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("remove_background", [True, False])
def test_zarr_and_dask_read_it(tmp_path: Path, depth: int, remove_background: bool) -> None:
    mask, image = example(depth)
    run = run_over(
        stored(tmp_path, "mask", mask, (1, 32, 32)),
        stored(tmp_path, "pixels", image, (1, 1, 32, 40)),
        remove_background=remove_background,
    )
    found = run.find()
    report = write_instances(run, found, tmp_path / "image.zarr", tmp_path / "mask.zarr")
    ids, masks, images = windows(mask, image, 16, remove_background)
    assert found.ids.tolist() == ids.tolist()
    assert report.computed > 1
    for name, expected in (("image", images), ("mask", masks)):
        assert expected is not None
        array = zarr.open_array(tmp_path / f"{name}.zarr", mode="r")
        assert array.dtype == expected.dtype
        assert array.chunks == (1, *expected.shape[1:])
        np.testing.assert_array_equal(array[:], expected)
        np.testing.assert_array_equal(array[5:7, 0], expected[5:7, 0])
        lazy = da.from_zarr(tmp_path / f"{name}.zarr")
        np.testing.assert_array_equal(lazy[3:30:5].compute(), expected[3:30:5])
        np.testing.assert_array_equal(lazy_rows(tmp_path / f"{name}.zarr").compute(), expected)
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"mask", "pixels", "image.zarr", "mask.zarr"}


def test_it_is_what_zarr_itself_would_describe(tmp_path: Path) -> None:
    """Codecs and shapes as of an array that zarr makes; each shard's index lies at its end."""
    mask, image = example()
    run = run_over(mask, image)
    write_instances(run, run.find(), tmp_path / "ours", None)
    array = zarr.open_array(tmp_path / "ours", mode="r")
    twin = zarr.create_array(
        tmp_path / "zarr",
        data=array[:],
        chunks=array.chunks,
        shards=array.shards,
        compressors=zarr.codecs.ZstdCodec(level=instance_codec.LEVEL),
        dimension_names=("i", "c", "z", "y", "x"),
    )
    assert array.metadata == twin.metadata
    assert set(bytes_below(tmp_path / "ours")) == set(bytes_below(tmp_path / "zarr"))


@pytest.mark.usefixtures("small_tiles")
def test_many_shards_and_channels_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three of seven channels, the last one filled up; five rows a shard."""
    mask, image = example(n_channels=7)
    monkeypatch.setattr(instance_codec, "CHUNK_BYTES", 3 * 16 * 16 * 2 + 100)
    monkeypatch.setattr(instances_zarr, "SHARD_BYTES", 5 * 9 * 16 * 16 * 2 + 100)
    run = run_over(
        stored(tmp_path, "mask", mask, (1, 32, 32)), stored(tmp_path, "i", image, (2, 1, 32, 32))
    )
    write_instances(run, run.find(), tmp_path / "image.zarr", None)
    array = zarr.open_array(tmp_path / "image.zarr", mode="r")
    assert array.chunks == (1, 3, 1, 16, 16)
    assert array.shards == (5, 9, 1, 16, 16)
    assert len(bytes_below(tmp_path / "image.zarr")) == 40 // 5 + 1
    expected = windows(mask, image, 16)[2]
    assert expected is not None
    np.testing.assert_array_equal(array[:], expected)
    np.testing.assert_array_equal(array[[3, 17, 38], 6], expected[[3, 17, 38], 6])
    lazy = lazy_rows(tmp_path / "image.zarr")
    assert lazy.chunks[0] == (5,) * 8
    np.testing.assert_array_equal(lazy.compute(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64, np.bool_, ">u2"])
def test_dtypes(tmp_path: Path, dtype: Any) -> None:
    mask, image = example(dtype=dtype)
    run = run_over(mask.astype(np.int16), image)
    write_instances(run, run.find(), tmp_path / "image", tmp_path / "mask")
    array = zarr.open_array(tmp_path / "image", mode="r")
    assert array.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(array[:], windows(mask, image, 16)[2])
    assert zarr.open_array(tmp_path / "mask", mode="r").dtype == np.int16


def test_zarr_of_a_subset_and_of_the_mask_alone(tmp_path: Path) -> None:
    mask, image = example()
    run = run_over(mask, image, channels=(2, 0))
    ids = run.find().ids[[3, 9, 30]]
    write_instances(run, run.find().of(ids, "the mask"), tmp_path / "image", None)
    all_ids, masks, images = windows(mask, image[[2, 0]], 16)
    rows = np.searchsorted(all_ids, ids)
    assert images is not None
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "image")[:], images[rows])
    alone = run_over(mask, None)
    write_instances(alone, alone.find(), None, tmp_path / "mask")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "mask")[:], masks)
    with pytest.raises(ValueError, match="no image"):
        write_instances(alone, alone.find(), tmp_path / "none", None)


def test_no_instances(tmp_path: Path) -> None:
    mask, image = example()
    run = run_over(np.zeros_like(mask), image)
    found = run.find()
    assert isinstance(found, Found)
    write_instances(run, found, tmp_path / "image", tmp_path / "mask")
    array = zarr.open_array(tmp_path / "image", mode="r")
    assert array[:].shape == (0, 3, 1, 16, 16)
    assert lazy_rows(tmp_path / "mask").compute().shape == (0, 1, 1, 16, 16)


@pytest.mark.usefixtures("small_tiles")
def test_the_same_bytes_by_any_executor(tmp_path: Path) -> None:
    mask, image = example()
    mask, image = (
        stored(tmp_path, "m", mask, (1, 32, 32)),
        stored(tmp_path, "i", image, (1, 1, 32, 32)),
    )
    seen = []
    for executor, batch in (("inline", None), ("threads", 3), ("processes", 1)):
        run = run_over(mask, image, executor=executor, batch_size=batch)
        write_instances(run, run.find(), tmp_path / executor, None)
        seen.append(bytes_below(tmp_path / executor))
    assert seen[0] == seen[1] == seen[2]


def test_what_is_there_is_replaced_when_asked_only(tmp_path: Path) -> None:
    mask, image = example()
    target = tmp_path / "out/image.zarr"
    run = run_over(mask, image)
    write_instances(run, run.find(), target, None)
    before = bytes_below(target)
    other = run_over(mask, image + 1)
    with pytest.raises(ElementExistsError, match="overwrite=True"):
        write_instances(other, other.find(), target, None)
    with pytest.raises(ElementExistsError, match="overwrite=True"):
        write_rows(target, np.zeros((3, 2)))
    assert bytes_below(target) == before
    write_instances(other, other.find(), target, None, overwrite=True)
    expected = windows(mask, image + 1, 16)[2]
    np.testing.assert_array_equal(zarr.open_array(target, mode="r")[:], expected)
    assert [path.name for path in target.parent.iterdir()] == ["image.zarr"]


def test_nothing_but_a_zarr_array_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter").write_text("1")
    (tmp_path / "note").write_text("1")
    zarr.create_group(tmp_path / "store")
    mask, image = example()
    run = run_over(mask, image)
    for name, kind in (("thesis", "a folder"), ("note", "a file"), ("store", "a zarr group")):
        with pytest.raises(InputError, match=f"{kind}, not a zarr array"):
            write_instances(run, run.find(), tmp_path / name, None, overwrite=True)
    assert (tmp_path / "thesis/chapter").read_text() == "1"


def test_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    """The input may well be called image.zarr, too."""
    mask, image = example()
    pixels = stored(tmp_path, "image.zarr", image[:, 0], (1, 32, 32))
    run = run_over(mask, da.from_zarr(pixels)[:, None])
    before = bytes_below(tmp_path)
    with pytest.raises(InputError, match="is what is read"):
        write_instances(run, run.find(), tmp_path / "image.zarr", None, overwrite=True)
    assert bytes_below(tmp_path) == before


@dataclass(frozen=True)
class Failing:
    """A head that cannot."""

    image: bool
    mask: bool

    def __call__(self, instances: Any) -> Mapping[str, Any]:
        raise OSError(28, "No space left on device")


def test_a_run_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, image = example()
    run = run_over(mask, image, executor="inline")
    target = tmp_path / "image.zarr"
    write_instances(run, run.find(), target, None)
    before = bytes_below(tmp_path)
    monkeypatch.setattr(instances_zarr, "EncodeHead", Failing)
    with pytest.raises(DiskFullError):
        write_instances(run, run.find(), target, None, overwrite=True)
    assert bytes_below(tmp_path) == before


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from scportrait_like.io import instances_zarr
from tests.instances.test_zarr import example, run_over

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

instances_zarr._create = die
run = run_over(*example())
instances_zarr.write_instances(run, run.find(), Path(sys.argv[1]), None, overwrite=True)
"""


def test_a_killed_call_leaves_the_old_one_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    mask, image = example(seed=1)
    run = run_over(mask, image)
    target = tmp_path / "image.zarr"
    write_instances(run, run.find(), target, None)
    before = bytes_below(target)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert bytes_below(target) == before
    left = {path.name for path in tmp_path.iterdir()} - {"image.zarr"}
    assert len(left) == 1
    # While somebody holds its lock, it is another call's.
    with instances_zarr._claimed(tmp_path / left.pop()):
        write_instances(run, run.find(), target, None, overwrite=True)
        assert len(list(tmp_path.iterdir())) == 2
    write_instances(run, run.find(), target, None, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["image.zarr"]


@pytest.mark.parametrize("shape", [(5, 3), (0, 4), (7,), (300, 2, 3)])
def test_rows(tmp_path: Path, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances_zarr, "SHARD_BYTES", 8 * 1000)
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_rows(tmp_path / "a/rows.zarr", rows)
    array = zarr.open_array(tmp_path / "a/rows.zarr", mode="r")
    assert array.dtype == rows.dtype
    np.testing.assert_array_equal(array[:], rows)
    np.testing.assert_array_equal(lazy_rows(tmp_path / "a/rows.zarr").compute(), rows)
    write_rows(tmp_path / "a/rows.zarr", rows + 1, overwrite=True)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a/rows.zarr")[:], rows + 1)
