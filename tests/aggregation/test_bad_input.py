"""What is refused, and that the message tells what to do; nothing is silently wrong."""

from __future__ import annotations

import pickle
from typing import Any

import dask.array as da
import numpy as np
import pytest

from scportrait_like.errors import InputError, ScportraitLikeError, ShapeError
from scportrait_like.utils import RasterAggregator

pytestmark = pytest.mark.usefixtures("small_tiles")
KNOWN = ("count", "sum", "mean", "var", "skew", "kurtosis", "min", "max", "median")


def arrays(dtype: str = "uint16") -> tuple[Any, Any]:
    mask = np.zeros((1, 40, 50), dtype)
    mask[0, 3:9, 4:30] = 5
    mask[0, 20:30, 4:30] = 7
    image = np.arange(2 * mask.size, dtype="uint16").reshape(2, *mask.shape)
    return da.from_array(mask, (1, 20, 20)), da.from_array(image, (1, 1, 16, 50))


@pytest.fixture
def aggregator() -> RasterAggregator:
    return RasterAggregator(*arrays(), run_on_gpu=False)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_masks_that_hold_no_integers(dtype: str) -> None:
    mask, image = arrays()
    with pytest.raises(InputError, match=dtype):
        RasterAggregator(mask.astype(dtype), image)


@pytest.mark.parametrize(
    ("mask_shape", "image_shape"),
    [
        ((40, 50), (2, 1, 40, 50)),
        ((1, 1, 40, 50), (2, 1, 40, 50)),
        ((1, 40, 50), (1, 40, 50)),
        ((1, 40, 50), (40, 50)),
        ((1, 40, 50), (1, 2, 1, 40, 50)),
        ((1, 40, 50), (2, 1, 40, 51)),
        ((1, 40, 50), (2, 1, 50, 40)),
        ((1, 40, 50), (2, 2, 40, 50)),
        ((2, 40, 50), (2, 1, 40, 50)),
    ],
    ids=str,
)
def test_shapes(mask_shape: tuple[int, ...], image_shape: tuple[int, ...]) -> None:
    mask, image = da.zeros(mask_shape, dtype="uint16"), da.zeros(image_shape, dtype="uint16")
    with pytest.raises(ShapeError) as caught:
        RasterAggregator(mask, image, run_on_gpu=False)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AssertionError)
    wrong = mask_shape if len(mask_shape) != 3 or len(image_shape) == 4 else image_shape
    assert str(wrong) in str(caught.value)


def test_a_mask_alone_of_other_rank() -> None:
    with pytest.raises(ShapeError, match=r"\(40, 50\)"):
        RasterAggregator(da.zeros((40, 50), dtype="uint16"))


def test_complex_pixels() -> None:
    mask, image = arrays()
    with pytest.raises(InputError, match="complex"):
        RasterAggregator(mask, image.astype("complex64"), run_on_gpu=False).aggregate_mean()


@pytest.mark.parametrize("name", ["mode", "Mean", "", "quantile"])
def test_unknown_statistics(aggregator: RasterAggregator, name: str) -> None:
    for asked in (name, ("mean", name)):
        with pytest.raises(InputError) as caught:
            aggregator.aggregate_stats(asked)
        message = str(caught.value)
        assert repr(name) in message
        assert all(known in message for known in KNOWN), message


@pytest.mark.parametrize("name", ["q1.5", "q-0.1", "qabc", "q", "qnan", "qinf", "q0.5x", "q 0.5"])
def test_quantiles_that_are_none(aggregator: RasterAggregator, name: str) -> None:
    with pytest.raises(InputError) as caught:
        aggregator.aggregate_stats((name,))
    assert repr(name) in str(caught.value)


def test_no_statistics(aggregator: RasterAggregator) -> None:
    assert aggregator.aggregate_stats(()) == []


@pytest.mark.parametrize(
    ("index", "what"),
    [
        ([5, 7, 5], "5"),
        ([5, -7], "below 0"),
        (np.array([5.0, 7.0]), "float64"),
        (np.array([[5, 7]]), r"\(1, 2\)"),
        (["5"], "U1"),
        (np.array([2**63 + 1], "uint64"), "above"),
        ([True, False], "bool"),
    ],
    ids=["duplicate", "negative", "float", "2-D", "text", "beyond int64", "bool"],
)
def test_index(aggregator: RasterAggregator, index: Any, what: str) -> None:
    for method in (aggregator.aggregate_mean, aggregator.aggregate_area, aggregator.center_of_mass):
        with pytest.raises(InputError, match=what) as caught:
            method(index=index)
        assert "index" in str(caught.value)


def test_negative_ids_in_the_mask() -> None:
    mask, image = arrays("int32")
    mask = da.where(mask == 7, -3, mask).astype("int32")
    for executor in ("inline", "threads"):
        own = RasterAggregator(mask, image, run_on_gpu=False, executor=executor)
        with pytest.raises(InputError, match="negative"):
            own.aggregate_mean()


def test_ids_beyond_int64() -> None:
    """Refused or right, never wrapped around."""
    mask, image = arrays("uint64")
    mask = da.where(mask == 7, np.uint64(2**63 + 5), mask)
    own = RasterAggregator(mask, image, run_on_gpu=False)
    try:
        frame = own.aggregate_area()
    except InputError:
        return
    assert frame["cell_ID"].tolist() == [0, 5, 2**63 + 5]


def test_background_alone() -> None:
    """A mask without a label has the background's row, and nothing else."""
    _, image = arrays()
    mask = da.zeros((1, 40, 50), dtype="uint8", chunks=20)
    own = RasterAggregator(mask, image, run_on_gpu=False)
    mean, count = own.aggregate_stats(("mean", "count"))
    assert count.to_numpy().tolist() == [[2000, 0]]
    assert mean[[0, 1]].to_numpy().tolist() == [[999.5, 2999.5]]
    assert own.center_of_mass().to_numpy().tolist() == [[0, 19.5, 24.5, 0]]


@pytest.mark.parametrize("shape", [(0, 40, 50), (1, 0, 50), (1, 0, 0)], ids=str)
def test_no_pixels(shape: tuple[int, ...]) -> None:
    """No row, or refused; no traceback from within."""
    mask = da.zeros(shape, dtype="uint16")
    image = da.zeros((2, *shape), dtype="uint16")
    try:
        mean = RasterAggregator(mask, image, run_on_gpu=False).aggregate_mean()
    except InputError:
        return
    assert mean.columns.tolist() == [0, 1, "cell_ID"]
    assert len(mean) == 0


def test_no_channels() -> None:
    mask, image = arrays()
    try:
        frame = RasterAggregator(mask, image[:0], run_on_gpu=False).aggregate_mean()
    except InputError:
        return
    assert frame.columns.tolist() == ["cell_ID"]


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_pixels_that_cannot_be_read(executor: str) -> None:
    """What a block raises reaches the caller, on every executor."""
    mask, image = arrays()
    own = RasterAggregator(
        mask, image.map_blocks(broken, dtype=image.dtype, meta=np.zeros((0,) * 4, "uint16")),
        run_on_gpu=False, executor=executor,
    )  # fmt: skip
    with pytest.raises((OSError, ScportraitLikeError), match="no such disk"):
        own.aggregate_mean()


def broken(block: Any) -> Any:
    raise OSError("no such disk")


def test_unknown_executor() -> None:
    with pytest.raises(ScportraitLikeError, match="threads"):
        RasterAggregator(*arrays(), run_on_gpu=False, executor="cloud").aggregate_mean()


def test_errors_pickle(aggregator: RasterAggregator) -> None:
    with pytest.raises(InputError) as caught:
        aggregator.aggregate_stats(("nonsense",))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_chunks_that_lie_on_a_cluster() -> None:
    from distributed import Client

    mask = da.ones((1, 64, 64), dtype="u2", chunks=32)
    with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None):
        there = (mask[None] + 1).persist()
        with pytest.raises(InputError, match="persisted on a cluster"):
            RasterAggregator(mask, there)
