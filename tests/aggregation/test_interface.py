"""The aggregator's methods and frames, as the documented interface has them."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest

import scportrait_like as sl
from scportrait_like.utils import RasterAggregator

from .oracle import Array, check, check_centroid, expect, ndimage_centers

pytestmark = pytest.mark.usefixtures("small_tiles")
DEFAULTS = ("sum", "mean", "count", "var", "kurtosis", "skew")
ONE_EACH = ("sum", "mean", "var", "kurtosis", "skew", "min", "max")


def volume(dtype: str = "uint16") -> tuple[Array, Array]:
    """Image (3, 2, 50, 60) and a mask of labels 0, 3, 70 ... in it."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 9000, (3, 2, 50, 60), "uint16")
    mask = np.kron(rng.integers(0, 12, (2, 5, 6)), np.ones((1, 10, 10), int))
    names = np.array([0, 70, 3, 900, 17, 250, 4, 5, 66, 12_000, 31, 8])
    return names[mask].astype(dtype), image


@pytest.fixture
def arrays() -> tuple[Array, Array]:
    return volume()


@pytest.fixture
def aggregator(arrays: tuple[Array, Array]) -> RasterAggregator:
    mask, image = arrays
    return RasterAggregator(
        da.from_array(mask, (1, 20, 60)), da.from_array(image, (2, 2, 16, 16)), run_on_gpu=False
    )


def test_where_it_is_found() -> None:
    assert sl.utils.RasterAggregator is RasterAggregator


def test_signature() -> None:
    parameters = inspect.signature(RasterAggregator).parameters
    positional = {
        name: p.default for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD
    }
    assert positional == {
        "mask_dask_array": inspect.Parameter.empty,
        "image_dask_array": None,
        "instance_key": "cell_ID",
        "instance_size_key": "shapeSize",
        "run_on_gpu": True,
    }
    assert parameters["executor"].kind is inspect.Parameter.KEYWORD_ONLY
    stats = inspect.signature(RasterAggregator.aggregate_stats).parameters
    assert stats["stats_funcs"].default == DEFAULTS
    for name in ("area", "kurtosis", "max", "mean", "min", "skew", "stats", "sum", "var"):
        method = getattr(RasterAggregator, f"aggregate_{name}")
        assert inspect.signature(method).parameters["index"].default is None
        assert method.__doc__
    assert inspect.signature(RasterAggregator.center_of_mass).parameters["index"].default is None


@pytest.mark.parametrize("name", ONE_EACH)
@pytest.mark.parametrize("index", [None, [250, 0, 3, 5000]], ids=["all", "some"])
def test_one_statistic(
    arrays: tuple[Array, Array], aggregator: RasterAggregator, name: str, index: list[int] | None
) -> None:
    wanted = None if index is None else np.array(index, "uint32")
    frame = getattr(aggregator, f"aggregate_{name}")(index=wanted)
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns.tolist() == [0, 1, 2, "cell_ID"]
    assert frame.index.tolist() == list(range(len(frame)))
    assert frame.dtypes.tolist() == [np.float64] * 3 + [np.uint16 if index is None else np.uint32]
    expected = expect(*arrays, (name,), wanted)
    assert frame["cell_ID"].tolist() == expected.ids.tolist()
    check(name, frame[[0, 1, 2]].to_numpy(), expected)


def test_several_statistics(arrays: tuple[Array, Array], aggregator: RasterAggregator) -> None:
    names = ("q0.05", "max", "count", "median", "mean", "q0.95", "min")
    frames = aggregator.aggregate_stats(names)
    assert isinstance(frames, list)
    expected = expect(*arrays, names)
    for name, frame in zip(names, frames, strict=True):
        columns = [0] if name == "count" else [0, 1, 2]
        assert frame.columns.tolist() == [*columns, "cell_ID"]
        check(name, frame[columns].to_numpy(), expected)
        assert frame["cell_ID"].dtype == np.uint16


def test_defaults(arrays: tuple[Array, Array], aggregator: RasterAggregator) -> None:
    frames = aggregator.aggregate_stats()
    expected = expect(*arrays, DEFAULTS)
    assert len(frames) == 6
    for name, frame in zip(DEFAULTS, frames, strict=True):
        check(name, frame.drop(columns="cell_ID").to_numpy(), expected)


def test_a_single_name(arrays: tuple[Array, Array], aggregator: RasterAggregator) -> None:
    frames = aggregator.aggregate_stats("mean")
    assert len(frames) == 1
    check("mean", frames[0][[0, 1, 2]].to_numpy(), expect(*arrays, ("mean",)))


def test_a_name_twice(aggregator: RasterAggregator) -> None:
    first, between, again = aggregator.aggregate_stats(("mean", "sum", "mean"))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(between)


def test_frames_share_nothing(aggregator: RasterAggregator) -> None:
    """What a caller does to one frame does not show in another, nor in the next call."""
    first, second = aggregator.aggregate_stats(("mean", "mean"))
    before = second.copy()
    first.iloc[:, :] = 0
    pd.testing.assert_frame_equal(second, before)
    pd.testing.assert_frame_equal(aggregator.aggregate_mean(), before)


def test_quantiles_are_nearby_names(arrays: tuple[Array, Array], aggregator: Any) -> None:
    low, plain, median, high = aggregator.aggregate_stats(("q0", "q0.5", "median", "q1"))
    expected = expect(*arrays, ("min", "max", "median"))
    check("min", low[[0, 1, 2]].to_numpy(), expected)
    check("max", high[[0, 1, 2]].to_numpy(), expected)
    check("median", median[[0, 1, 2]].to_numpy(), expected)
    pd.testing.assert_frame_equal(plain, median)


def test_area(arrays: tuple[Array, Array], aggregator: RasterAggregator) -> None:
    ids, counts = np.unique(arrays[0], return_counts=True)
    frame = aggregator.aggregate_area()
    assert frame.columns.tolist() == ["cell_ID", "shapeSize"]
    assert frame["cell_ID"].tolist() == ids.tolist()
    assert frame["cell_ID"].dtype == np.uint16
    assert frame["shapeSize"].tolist() == counts.tolist()
    asked = aggregator.aggregate_area(index=np.array([3, 9999, 0]))
    assert asked["cell_ID"].tolist() == [3, 9999, 0]
    assert asked["shapeSize"].tolist() == [(arrays[0] == 3).sum(), 0, (arrays[0] == 0).sum()]


def test_center_of_mass(arrays: tuple[Array, Array], aggregator: RasterAggregator) -> None:
    mask = arrays[0]
    ids = np.unique(mask)
    frame = aggregator.center_of_mass()
    assert frame.columns.tolist() == [0, 1, 2, "cell_ID"]
    assert frame["cell_ID"].tolist() == ids.tolist()
    assert frame["cell_ID"].dtype == np.uint16
    np.testing.assert_allclose(frame[[0, 1, 2]], ndimage_centers(mask, ids), rtol=1e-13)
    index = np.array([9999, 70, 0], "int32")
    asked = aggregator.center_of_mass(index=index)
    assert asked["cell_ID"].tolist() == [9999, 70, 0]
    assert asked["cell_ID"].dtype == np.int32
    check_centroid(asked[[0, 1, 2]].to_numpy(), expect(mask, None, (), index))
    assert asked.iloc[0, :3].isna().all()


def test_keys_of_the_callers_own(arrays: tuple[Array, Array]) -> None:
    mask, image = (da.from_array(array) for array in arrays)
    own = RasterAggregator(mask, image, "cell", "pixels", False)
    assert own.aggregate_mean().columns.tolist() == [0, 1, 2, "cell"]
    assert own.aggregate_area().columns.tolist() == ["cell", "pixels"]
    assert own.center_of_mass().columns.tolist() == [0, 1, 2, "cell"]
    assert own.aggregate_stats("count")[0].columns.tolist() == [0, "cell"]


@pytest.mark.parametrize("kind", [list, tuple, pd.Index, pd.Series, np.array])
def test_index_of_any_kind(aggregator: RasterAggregator, kind: Callable[..., Any]) -> None:
    frame = aggregator.aggregate_sum(index=kind([900, 3]))
    assert frame["cell_ID"].tolist() == [900, 3]
    assert frame["cell_ID"].dtype == np.int64


def test_index_is_a_selection(aggregator: RasterAggregator) -> None:
    """Rows do not depend on what else is asked for."""
    whole = aggregator.aggregate_var().set_index("cell_ID")
    index = np.array([12_000, 0, 31, 70], "uint16")
    some = aggregator.aggregate_var(index=index)
    assert some[[0, 1, 2]].to_numpy().tolist() == whole.loc[index].to_numpy().tolist()


def test_empty_index(aggregator: RasterAggregator) -> None:
    mean, count = aggregator.aggregate_stats(("mean", "count"), index=np.array([], "uint16"))
    assert mean.columns.tolist() == [0, 1, 2, "cell_ID"]
    assert count.columns.tolist() == [0, "cell_ID"]
    assert len(mean) == len(count) == 0
    assert len(aggregator.center_of_mass(index=[])) == 0


def test_absent_labels(aggregator: RasterAggregator) -> None:
    names = ("count", "sum", "mean", "var", "skew", "kurtosis", "min", "max", "median", "q0.1")
    frames = aggregator.aggregate_stats(names, index=np.array([44_000]))
    for name, frame in zip(names, frames, strict=True):
        row = frame.drop(columns="cell_ID").to_numpy()[0]
        assert (row == 0).all() if name in ("count", "sum") else np.isnan(row).all(), name


def test_ids_beyond_the_masks_dtype(arrays: tuple[Array, Array]) -> None:
    """An id that the mask cannot hold is absent: it does not wrap around."""
    mask = (arrays[0] % 251).astype("uint8")
    own = RasterAggregator(da.from_array(mask), da.from_array(arrays[1]), run_on_gpu=False)
    index = np.array([256 + int(mask.max()), 2**40, int(mask.max())])
    count = own.aggregate_area(index=index)["shapeSize"].tolist()
    assert count == [0, 0, (mask == mask.max()).sum()]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_key_has_the_masks_dtype(dtype: str) -> None:
    mask = da.from_array(np.array([[[0, 1], [2, 2]]], dtype))
    own = RasterAggregator(mask, mask[None].astype("float32"), run_on_gpu=False)
    for frame in (own.aggregate_mean(), own.aggregate_area(), own.center_of_mass()):
        assert frame["cell_ID"].dtype == np.dtype(dtype)
        assert frame["cell_ID"].tolist() == [0, 1, 2]


def test_mask_without_background() -> None:
    mask = np.ones((1, 4, 4), "uint8")
    own = RasterAggregator(da.from_array(mask), da.from_array(np.ones((1, 1, 4, 4))))
    assert own.aggregate_sum()["cell_ID"].tolist() == [1]


def test_without_an_image(arrays: tuple[Array, Array]) -> None:
    mask, _ = arrays
    own = RasterAggregator(da.from_array(mask, (2, 20, 20)), run_on_gpu=False)
    ids, counts = np.unique(mask, return_counts=True)
    assert own.aggregate_area()["shapeSize"].tolist() == counts.tolist()
    assert own.aggregate_stats("count")[0][0].tolist() == counts.tolist()
    np.testing.assert_allclose(
        own.center_of_mass()[[0, 1, 2]], ndimage_centers(mask, ids), rtol=1e-13
    )
    for name in ONE_EACH:
        with pytest.raises(ValueError, match="image"):
            getattr(own, f"aggregate_{name}")()
    with pytest.raises(ValueError, match="image"):
        own.aggregate_stats(("count", "mean"))


def test_gpu_is_asked_for(arrays: tuple[Array, Array], caplog: Any) -> None:
    mask, image = (da.from_array(array) for array in arrays)
    with caplog.at_level(logging.INFO, "scportrait_like"):
        own = RasterAggregator(mask, image)
        mean = own.aggregate_mean()
    told = [r for r in caplog.records if "CPU" in r.getMessage().upper()]
    assert [r.levelno for r in told] == [logging.INFO]
    check("mean", mean[[0, 1, 2]].to_numpy(), expect(*arrays, ("mean",)))
    caplog.clear()
    with caplog.at_level(logging.INFO, "scportrait_like"):
        RasterAggregator(mask, image, run_on_gpu=False).aggregate_mean()
    assert not [r for r in caplog.records if "GPU" in r.getMessage().upper()]


def test_arrays_are_left_alone(arrays: tuple[Array, Array]) -> None:
    mask, image = (array.copy() for array in arrays)
    mask.flags.writeable = image.flags.writeable = False
    own = RasterAggregator(da.from_array(mask), da.from_array(image), run_on_gpu=False)
    own.aggregate_stats(("mean", "median", "kurtosis"))
    assert (mask == arrays[0]).all()
    assert (image == arrays[1]).all()


def test_byte_order_and_strides(arrays: tuple[Array, Array]) -> None:
    """Big-endian pixels, and views with negative steps."""
    mask, image = arrays
    names = ("mean", "median", "max")
    expected = expect(mask[:, ::-1], image[..., ::-1, :], names)
    own = RasterAggregator(
        da.from_array(mask.astype(">u4"), (1, 20, 20))[:, ::-1],
        da.from_array(np.asfortranarray(image.astype(">u2")), (1, 1, 30, 30))[..., ::-1, :],
        run_on_gpu=False,
    )
    for name, frame in zip(names, own.aggregate_stats(names), strict=True):
        assert frame["cell_ID"].tolist() == expected.ids.tolist()
        check(name, frame[[0, 1, 2]].to_numpy(), expected)


def told(caplog: Any, caught: list[Any], what: str) -> list[str]:
    """What was said of something, by warnings or by the log."""
    messages = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    return [m for m in messages + [str(w.message) for w in caught] if what in m.lower()]


def test_constant_pixels(arrays: tuple[Array, Array], caplog: Any) -> None:
    """Skew and kurtosis are 0 where the variance is, with one warning for all of them."""
    mask, image = arrays[0], arrays[1].astype(float)
    image[1] = 0.1
    image[2] = np.where(mask == 70, 1e9 + 0.3, image[2])
    own = RasterAggregator(da.from_array(mask, (1, 7, 60)), da.from_array(image, (1, 1, 50, 7)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names = ("var", "skew", "kurtosis")
        frames = own.aggregate_stats(names)
    expected = expect(mask, image, names)
    for name, frame in zip(names, frames, strict=True):
        assert (frame[1] == 0).all()
        assert (frame.loc[frame["cell_ID"] == 70, 2] == 0).all()
        check(name, frame[[0, 1, 2]].to_numpy(), expected)
    assert len(told(caplog, caught, "skew")) == 1
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        own.aggregate_stats(("mean", "var", "min"))
    assert not told(caplog, caught, "skew"), "nothing to warn of"


def test_nan_pixels(arrays: tuple[Array, Array]) -> None:
    """They make the statistics of their label in their channel NaN, and nothing else."""
    mask, image = arrays[0], arrays[1].astype("float32")
    where = np.argwhere(mask == 250)[17]
    image[(1, *where)] = np.nan
    names = ("count", "sum", "mean", "var", "skew", "kurtosis", "min", "max", "median", "q0.25")
    own = RasterAggregator(da.from_array(mask, (1, 9, 9)), da.from_array(image), run_on_gpu=False)
    expected = expect(mask, image, names)
    for name, frame in zip(names, own.aggregate_stats(names), strict=True):
        values = frame.set_index("cell_ID")
        if name == "count":
            assert values.loc[250, 0] == (mask == 250).sum()
            continue
        assert np.isnan(values.loc[250, 1])
        assert values.isna().to_numpy().sum() == 1, name
        check(name, values.to_numpy(), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int64"])
def test_sums_do_not_overflow(dtype: str) -> None:
    top = np.iinfo(dtype).max
    image = np.full((2, 1, 80, 90), top, dtype)
    image[1, 0, ::2] -= 1
    mask = np.ones((1, 80, 90), "uint16")
    mask[0, 3:7, 5:80] = 2
    own = RasterAggregator(
        da.from_array(mask, (1, 30, 30)), da.from_array(image, (1, 1, 20, 90)), run_on_gpu=False
    )
    names = ("sum", "mean", "min", "max", "median", "var")
    expected = expect(mask, image, names)
    for name, frame in zip(names, own.aggregate_stats(names), strict=True):
        if name == "var" and dtype.endswith("64"):
            assert (frame[0] == 0).all()  # in float64 these neighbours are the same number
            continue
        check(name, frame[[0, 1]].to_numpy(), expected)


def test_one_pixel() -> None:
    own = RasterAggregator(
        da.from_array(np.array([[[9]]], "uint64")), da.from_array(np.array([[[[-4]]]], "int16"))
    )
    names = ("count", "sum", "mean", "var", "skew", "kurtosis", "min", "max", "median", "q0.3")
    frames = own.aggregate_stats(names)
    assert [f[0].item() for f in frames] == [1, -4, -4, 0, 0, 0, -4, -4, -4, -4]
    assert own.center_of_mass().to_numpy().tolist() == [[0, 0, 0, 9]]


def test_2d_as_one_plane(arrays: tuple[Array, Array]) -> None:
    """As the documented example does it: a dummy axis put before."""
    mask, image = arrays[0][0], arrays[1][:, 0]
    own = RasterAggregator(
        da.from_array(mask, 16)[None, ...],
        da.from_array(image, (1, 25, 25))[:, None, ...],
        run_on_gpu=False,
    )
    mean, count = own.aggregate_stats(("mean", "count"))
    expected = expect(mask[None], image[:, None], ("mean", "count"))
    check("mean", mean[[0, 1, 2]].to_numpy(), expected)
    check("count", count[[0]].to_numpy(), expected)
    assert (own.center_of_mass()[0] == 0).all()
