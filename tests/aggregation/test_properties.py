"""Any chunking, tiles, workers and executor give the same integers, and floats within bounds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scportrait_like.raster import tiles
from scportrait_like.utils import RasterAggregator

from .cases import BACKINGS, Chunks, as_dask
from .oracle import STATISTICS, Array, check, expect

SHAPE = (3, 4, 37, 41)
# What has one right value, whatever the order in which pixels are met.
ONE_VALUE = ("count", "min", "max", "median", "q0", "q0.25", "q0.9", "q1")
INTEGERS = (*ONE_VALUE, "sum", "mean")


def tissue(dtype: str, offset: float = 0) -> tuple[Array, Array]:
    """Labels scattered over the whole volume, and pixels."""
    rng = np.random.default_rng(8)
    mask = np.repeat(np.repeat(rng.integers(0, 9, (4, 10, 11)), 4, 1), 4, 2)[:, :37, :41]
    mask = np.where(rng.random(mask.shape) < 0.3, rng.integers(0, 30, mask.shape), mask)
    image = rng.gamma(2, 300, SHAPE) if dtype != "int32" else rng.normal(0, 1e6, SHAPE)
    return np.ascontiguousarray(mask.astype("uint32") * 1000), (image + offset).astype(dtype)


INPUTS = {
    "uint16": tissue("uint16"),
    "int32": tissue("int32"),
    "float32": tissue("float32"),
    "float64": tissue("float64", offset=1e9),
}
EXPECTED = {name: expect(mask, image, STATISTICS) for name, (mask, image) in INPUTS.items()}


def aggregated(mask: Any, image: Any, executor: Any) -> dict[str, Array]:
    aggregator = RasterAggregator(mask, image, run_on_gpu=False, executor=executor)
    frames = aggregator.aggregate_stats(STATISTICS)
    assert all(frame["cell_ID"].is_monotonic_increasing for frame in frames)
    return {
        name: frame.drop(columns="cell_ID").to_numpy()
        for name, frame in zip(STATISTICS, frames, strict=True)
    }


@st.composite
def chunkings(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[str, Chunks]:
    """A way to store an array: what is behind it and chunk lengths along each axis."""
    backing = draw(st.sampled_from(BACKINGS))
    found = []
    for length in shape:
        if backing == "zarr":
            edge = draw(st.integers(max(1, length // 5), length))
            rest = (length % edge,) if length % edge else ()
            found.append((edge,) * (length // edge) + rest)
        else:
            inner = st.integers(1, length - 1) if length > 1 else st.nothing()
            borders = sorted(draw(st.sets(inner, max_size=4))) if length > 1 else []
            found.append(tuple(np.diff([0, *borders, length]).tolist()))
    return backing, tuple(found)


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    name=st.sampled_from(sorted(INPUTS)),
    mask_chunks=chunkings(SHAPE[1:]),
    image_chunks=chunkings(SHAPE),
    edge=st.sampled_from([12, 16, 33, 2048]),
    executor=st.sampled_from(["inline", "threads", "pool"]),
)
def test_chunks_tiles_and_workers_change_nothing(
    pool: ThreadPoolExecutor,
    name: str,
    mask_chunks: tuple[str, Chunks],
    image_chunks: tuple[str, Chunks],
    edge: int,
    executor: str,
) -> None:
    mask, image = INPUTS[name]
    expected = EXPECTED[name]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_EDGE", edge)
        found = aggregated(
            as_dask(mask, mask_chunks[1], mask_chunks[0], Path(folder) / "mask.zarr"),
            as_dask(image, image_chunks[1], image_chunks[0], Path(folder) / "image.zarr"),
            pool if executor == "pool" else executor,
        )
    for statistic in STATISTICS:
        check(statistic, found[statistic], expected)
    for statistic in INTEGERS if image.dtype.kind in "iu" else ONE_VALUE:
        # To the bit: the sums of integers are exact, and a mean is one division.
        wanted = expected.values[statistic]
        assert found[statistic].astype(float).tobytes() == wanted.tobytes(), statistic


@st.composite
def vectors(draw: st.DrawFn) -> Array:
    """Pixels of one label, with repeats, extremes and odd values."""
    special = [0.0, -0.0, 1.0, 0.1, -2.5, 1e-12, 7e8]
    odd = [np.nan, np.inf, -np.inf] if draw(st.booleans()) else []
    values = st.one_of(
        st.sampled_from(special + odd),
        st.floats(-1e6, 1e6, allow_subnormal=False, width=32),
    )
    return np.array(draw(st.lists(values, min_size=1, max_size=40)))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(x=vectors(), data=st.data())
def test_any_vector_in_any_pieces(x: Array, data: st.DataObject) -> None:
    """One label's pixels, scattered over tiles of one row."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    place = rng.choice(13 * 13, len(x), replace=False)
    image, mask = np.full(13 * 13, 5.0), np.zeros(13 * 13, "int64")
    image[place], mask[place] = x, 2**40
    image, mask = image.reshape(1, 1, 13, 13), mask.reshape(1, 13, 13)
    expected = expect(mask, image, STATISTICS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_EDGE", data.draw(st.sampled_from([4, 13])))
        found = aggregated(
            as_dask(mask, ((1,), (3,) * 4 + (1,), (13,)), "numpy", Path()),
            as_dask(image, ((1,), (1,), (4, 4, 5), (13,)), "numpy", Path()),
            "inline",
        )
    for statistic in STATISTICS:
        check(statistic, found[statistic], expected, x.tolist())
