"""The nearest node of each pixel, against `predict` of both of flowsom's estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.kernels import Nodes, cell_clusters, cluster_sums, label_runs, nearest_nodes

DTYPES = ["uint8", "uint16", "uint32", "int16", "float32", "float64"]


def estimator(name: str, codes: np.ndarray) -> Any:
    """A cluster model of flowsom with these codes."""
    from flowsom.models import SOMEstimator
    from flowsom.models.batch import BatchSOMEstimator

    found = {"default": SOMEstimator, "batch": BatchSOMEstimator}[name]()
    found.codes, found._is_fitted = codes, True
    return found


def tissue(n_channels: int, n: int, dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.gamma(1.5, 1.0, (n_channels, n)) * rng.random((n_channels, 1)) * 20
    if np.dtype(dtype).kind == "f":
        return values.astype(dtype)
    return np.minimum(values * 3, np.iinfo(dtype).max).astype(dtype)


def codes_of(pixels: np.ndarray, k: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picked = pixels[:, rng.choice(pixels.shape[1], k, replace=False)].T
    return picked.astype(np.float64) + rng.random(picked.shape)


def assigned(pixels: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out = np.full(pixels.shape[1], 77, np.uint16)
    ties = nearest_nodes(pixels, Nodes.of(codes), out)
    return out, ties


def settled(pixels: np.ndarray, codes: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """Clusters from 0, ties by the estimator, as an assignment does; and how many ties."""
    out, ties = assigned(pixels, codes)
    rows = np.ascontiguousarray(pixels[:, ties].T, np.float64)
    if len(ties):
        out[ties] = estimator(name, codes).predict(rows) + 1
    return out.astype(np.int64) - 1, len(ties)


@pytest.mark.parametrize("name", ["default", "batch"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_predict(dtype: str, name: str) -> None:
    pixels = tissue(13, 70_001, dtype)
    codes = codes_of(pixels, 100)
    found, n_ties = settled(pixels, codes, name)
    wanted = estimator(name, codes).predict(np.ascontiguousarray(pixels.T, np.float64))
    np.testing.assert_array_equal(found, wanted)
    assert n_ties < 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "batch"])
def test_equals_predict_on_millions(name: str) -> None:
    pixels = tissue(20, 2_000_000, "float32")
    codes = codes_of(pixels, 100)
    found, n_ties = settled(pixels, codes, name)
    model, rows = estimator(name, codes), np.ascontiguousarray(pixels.T, np.float64)
    wanted = np.concatenate([model.predict(part) for part in np.array_split(rows, 10)])
    np.testing.assert_array_equal(found, wanted)
    assert n_ties == 0


@pytest.mark.parametrize("name", ["default", "batch"])
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e9, 1e15])
@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4])
def test_near_ties(name: str, scale: float, offset: float) -> None:
    """Pixels in the middle between two nodes, moved by rounding errors of float32 and float64."""
    rng = np.random.default_rng(3)
    codes = (rng.random((30, 7)) + offset) * scale
    a, b = rng.integers(0, 30, (2, 20_000))
    middle = (codes[a] + codes[b]) / 2
    step = rng.choice([0, 1e-17, 1e-16, 1e-15, 1e-12, 1e-9, 1e-7, 1e-6], len(a))
    pixels = np.ascontiguousarray((middle + (codes[a] - codes[b]) * step[:, None]).T)
    found, _ = settled(pixels, codes, name)
    wanted = estimator(name, codes).predict(np.ascontiguousarray(pixels.T))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["default", "batch"])
def test_exact_ties(name: str) -> None:
    """Codes that are there twice, and pixels on a lattice with several nodes at one distance."""
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 4, (60, 3)).astype(np.float64)
    codes[30:40] = codes[:10]
    pixels = rng.integers(0, 4, (3, 30_000)).astype(np.uint8)
    found, n_ties = settled(pixels, codes, name)
    wanted = estimator(name, codes).predict(pixels.T.astype(np.float64))
    np.testing.assert_array_equal(found, wanted)
    assert n_ties > 1000


def test_equals_predict_of_trained_models_with_importance() -> None:
    import flowsom

    rows = tissue(5, 4000, "float64").T
    for model in (flowsom.models.FlowSOMEstimator, flowsom.models.BatchFlowSOMEstimator):
        fsom = flowsom.FlowSOM(
            rows.copy(), n_clusters=4, xdim=5, ydim=5, seed=1, model=model,
            importance=[1, 2, 0.5, 1, 3],
        )  # fmt: skip
        name = "batch" if "Batch" in model.__name__ else "default"
        pixels = np.ascontiguousarray(tissue(5, 20_000, "float32", seed=9))
        found, _ = settled(pixels, fsom.model.codes, name)
        fsom.model.predict(np.ascontiguousarray(pixels.T, np.float64))
        np.testing.assert_array_equal(found, fsom.model.cluster_labels)


@settings(max_examples=60, deadline=None)
@given(
    k=st.integers(1, 40),
    c=st.integers(1, 6),
    n=st.integers(0, 300),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_any_shape(k: int, c: int, n: int, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = tissue(c, n, dtype, seed)
    codes = rng.random((k, c)) * 20
    found, _ = settled(pixels, codes, "default")
    if n:
        wanted = estimator("default", codes).predict(np.ascontiguousarray(pixels.T, np.float64))
        np.testing.assert_array_equal(found, wanted)


def test_neither_nan_nor_infinite_pixels_have_a_cluster() -> None:
    pixels = tissue(4, 5000, "float32")
    pixels[1, ::7], pixels[2, ::11], pixels[3, ::13] = np.nan, np.inf, -np.inf
    codes = codes_of(tissue(4, 100, "float32"), 9)
    found, ties = assigned(pixels, codes)
    finite = np.isfinite(pixels).all(axis=0)
    assert (found[~finite] == 0).all()
    assert not len(ties)
    wanted = estimator("default", codes).predict(pixels[:, finite].T.astype(np.float64))
    np.testing.assert_array_equal(found[finite], wanted + 1)


def test_values_beyond_float32_are_left_to_float64() -> None:
    pixels = np.array([[1e30, -1e30, 1e200, 5.0], [2e30, 1e25, 1e190, 5.0]])
    codes = np.array([[1e30, 1e30], [-1e30, 0.0], [5.0, 5.0]])
    found, _ = settled(pixels, codes, "default")
    np.testing.assert_array_equal(found, estimator("default", codes).predict(pixels.T.copy()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_clusters(dtype: str) -> None:
    pixels = tissue(3, 10_003, dtype)
    clusters = np.random.default_rng(2).integers(0, 12, 10_003).astype(np.uint8)
    sums, counts = cluster_sums(pixels, clusters, 15)
    for channel, plane in enumerate(pixels):
        wanted = np.bincount(clusters, plane.astype(np.float64), minlength=16)[1:]
        np.testing.assert_allclose(sums[:, channel], wanted, rtol=1e-12)
    np.testing.assert_array_equal(counts, np.bincount(clusters, minlength=16)[1:])


def test_sums_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        cluster_sums(np.ones((2, 3)), np.array([1, 2, 9], np.uint8), 8)


def test_clusters_in_cells() -> None:
    rng = np.random.default_rng(5)
    labels = rng.choice([0, 3, 2**40, 70_000], (1, 40, 50))
    clusters = rng.integers(0, 7, 2000).astype(np.uint8)
    ids, which, counts = cell_clusters(label_runs(labels), clusters, 6)
    pairs = {
        (i, w): n for i, w, n in zip(ids.tolist(), which.tolist(), counts.tolist(), strict=True)
    }
    wanted: dict[tuple[int, int], int] = {}
    for label, cluster in zip(labels.reshape(-1).tolist(), clusters.tolist(), strict=True):
        if label and cluster:
            wanted[label, cluster] = wanted.get((label, cluster), 0) + 1
    assert pairs == wanted
    assert len(ids) == len(wanted)


@pytest.mark.parametrize("name", ["default", "batch"])
def test_a_node_beyond_what_float32_can_square(name: str) -> None:
    rng = np.random.default_rng(6)
    codes = rng.normal(size=(50, 3)) * 1e18
    codes[7] = [2.8e19, 0, 0]
    pixels = rng.normal(size=(3, 3000)) * 1e17
    pixels[0] += 2.8e19 * 0.55
    found, _ = settled(pixels, codes, name)
    wanted = estimator(name, codes).predict(np.ascontiguousarray(pixels.T))
    np.testing.assert_array_equal(found, wanted)
    assert (found == 7).any()


@pytest.mark.parametrize("name", ["default", "batch"])
def test_nodes_that_nearly_coincide(name: str) -> None:
    """Nodes around zero, as a background of zeros leaves them, and pixels beside them."""
    rng = np.random.default_rng(7)
    sizes = np.repeat([0, 1e-35, 3e-27, 7e-16, 1e-12, 2e-7, 1.0], 6)
    codes = rng.random((len(sizes), 4)) * sizes[:, None]
    pixels = np.zeros((4, 4000))
    pixels[:, 500:] = rng.random((4, 3500)) * rng.choice([1e-27, 1e-15, 1e-11, 1e-7, 1], 3500)
    found, _ = settled(pixels, codes, name)
    wanted = estimator(name, codes).predict(np.ascontiguousarray(pixels.T))
    np.testing.assert_array_equal(found, wanted)
