"""What the featurizer makes of labels without a model: a function's numbers, quantiles, axes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr

from scportrait_like.errors import InputError, ModelError
from scportrait_like.raster import instance_statistics
from scportrait_like.raster.instance_statistics import principal_axes
from scportrait_like.utils import Featurizer

from .cases import Array, odd_labels, odd_pixels
from .oracle import windows

pytestmark = pytest.mark.usefixtures("small_tiles")
SIZE = 14


def pair(dtype: str = "uint16", depth: int = 2) -> tuple[Array, Array]:
    """Mask and image with everything that is awkward, but for odd floats."""
    rng = np.random.default_rng(8)
    mask = odd_labels(rng, (depth, 41, 53), "int64")
    if np.dtype(dtype).kind == "f":
        return mask, rng.normal(0, 1e3, (3, *mask.shape)).astype(dtype)
    return mask, odd_pixels(rng, (3, *mask.shape), dtype)


def featurizer(mask: Array, image: Array | None = None, **options: Any) -> Featurizer:
    images = None if image is None else da.from_array(image, (2, 1, 16, 16))
    return Featurizer(da.from_array(mask, (1, 20, 53)), images, **options)


def own_pixels(mask: Array, image: Array, size: int) -> list[Array]:
    """Of each label its pixels inside its window (c, N), in the order of memory."""
    _, labels, pixels = windows(mask, image, size, remove_background=False)
    ids = np.unique(mask[mask != 0])
    return [line[:, one[0] == label] for label, one, line in zip(ids, labels, pixels, strict=True)]


# A user's function


def spread(pixels: Array, scale: float = 1) -> Array:
    assert pixels.ndim == 2
    return np.stack([pixels.min(1), pixels.max(1), pixels.mean(1)], axis=1) * scale


@pytest.mark.parametrize("batch_size", [None, 1, 7])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_statistics_of_pixels(tmp_path: Path, dtype: str, batch_size: int | None) -> None:
    mask, image = pair(dtype)
    one = featurizer(mask, image, executor="threads")
    options: dict[str, Any] = {"fn": spread, "fn_kwargs": {"scale": 2.0}, "batch_size": batch_size}
    ids, lazy = one.calculate_instance_statistics(None, 3, SIZE, **options)
    _, stored = one.calculate_instance_statistics(
        None, 3, SIZE, zarr_output_path=tmp_path / "s.zarr", **options
    )
    expected = np.array(
        [
            spread(pixels, 2.0) if pixels.size else np.full((3, 3), np.nan)
            for pixels in own_pixels(mask, image, SIZE)
        ]
    )
    assert isinstance(lazy, da.Array)
    assert lazy.shape == expected.shape
    assert np.isnan(expected[:, 0, 0]).any()
    assert ids.tolist() == np.unique(mask[mask != 0]).tolist()
    for found in (lazy.compute(), stored.compute(), zarr.open_array(tmp_path / "s.zarr")[:]):
        np.testing.assert_array_equal(found, expected)
    assert lazy.dtype == stored.dtype == np.float64


def corners(window: Array) -> Array:
    assert window.shape == (2, SIZE, SIZE)
    z, y, x = np.nonzero(window)
    assert len(np.unique(window[z, y, x])) == 1
    return np.array([z.min(), y.min(), x.min(), window.max() % 1000])


def test_statistics_of_masks() -> None:
    mask, _ = pair()
    ids, found = featurizer(mask).calculate_instance_statistics(
        SIZE // 2, 4, fn=corners, extract_image=False
    )
    labels = windows(mask, None, SIZE)[1][:, 0]
    assert found.shape == (len(ids), 4)
    for row, window in zip(found.compute(), labels, strict=True):
        if window.any():
            assert row.tolist() == corners(window).tolist()
        else:
            assert np.isnan(row).all()


def test_default_function_is_the_mean() -> None:
    mask, image = pair()
    found = featurizer(mask, image).calculate_instance_statistics(7, 1)[1].compute()
    for row, pixels in zip(found, own_pixels(mask, image, 14), strict=True):
        if pixels.size:
            np.testing.assert_allclose(row[:, 0], pixels.mean(1), rtol=1e-12)
    with pytest.raises(InputError, match="give fn"):
        featurizer(mask).calculate_instance_statistics(7, 1, extract_image=False)


def test_arguments_of_statistics() -> None:
    mask, image = pair()
    one = featurizer(mask, image)
    for dimension in (0, -1, True):
        with pytest.raises(InputError, match="statistic_dimension"):
            one.calculate_instance_statistics(7, dimension)
    with pytest.raises(InputError, match="diameter"):
        one.calculate_instance_statistics(None, 1)


def test_errors_of_a_function_tell_what_is_wrong() -> None:
    mask = np.zeros((1, 20, 20), "uint8")
    mask[0, 5:8, 5:9] = 77
    image = np.ones((2, *mask.shape), "uint16")
    one = Featurizer(mask, image)

    def wrong_shape(pixels: Array) -> Array:
        return pixels.mean(1)

    def raising(pixels: Array) -> Array:
        return pixels[:, 99]

    def words(pixels: Array) -> Array:
        return np.full((2, 1), "a")

    for fn, text in (
        (wrong_shape, r"wrong_shape.*label 77.*\(2, 12\) of uint16.*\(2,\).*\(2, 1\)"),
        (raising, r"raising.*label 77.*\(2, 12\).*IndexError"),
        (words, r"words.*label 77.*<U1"),
    ):
        with pytest.raises(ModelError, match=text):
            one.calculate_instance_statistics(6, 1, fn=fn)[1].compute()
        with pytest.raises(ModelError, match=r"label 77.*\(1, 12, 12\) of uint8"):
            one.calculate_instance_statistics(
                6, 5, fn=lambda window: window[:, 0], extract_image=False
            )[1].compute()


# Quantiles

Q = (0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0)


def expected_quantiles(mask: Array, image: Array, size: int, q: tuple[float, ...]) -> Array:
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for pixels in own_pixels(mask, image, size):
            if pixels.size:
                rows.append(np.quantile(pixels.astype(np.float64), q, axis=1))
            else:
                rows.append(np.full((len(q), len(image)), np.nan))
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float16", "float64", "bool"])
def test_quantiles(tmp_path: Path, dtype: str, depth: int) -> None:
    mask, image = pair(dtype, depth)
    one = featurizer(mask, image, executor="threads")
    expected = expected_quantiles(mask, image, SIZE, Q)
    frames = one.quantiles(SIZE, Q, instance_key="id")
    assert len(frames) == len(Q)
    for frame, values in zip(frames, expected, strict=True):
        assert isinstance(frame, pd.DataFrame)
        assert list(frame.columns) == [0, 1, 2, "id"]
        assert frame["id"].tolist() == np.unique(mask[mask != 0]).tolist()
        np.testing.assert_array_equal(frame[[0, 1, 2]].to_numpy(), values)
    ids, stored = one.quantiles(SIZE, Q, tmp_path / "q.zarr")
    assert ids.tolist() == frames[0]["id"].tolist()
    np.testing.assert_array_equal(stored.compute(), np.moveaxis(expected, 0, 2))


def test_quantiles_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, image = pair()
    monkeypatch.setattr(instance_statistics, "_SORTED", 30)
    found = np.array([f[[0, 1, 2]] for f in featurizer(mask, image).quantiles(SIZE, Q)])
    np.testing.assert_array_equal(found, expected_quantiles(mask, image, SIZE, Q))


def test_default_quantiles_and_a_single_one() -> None:
    mask, image = pair()
    one = featurizer(mask, image)
    deciles = tuple(float(q) for q in np.arange(1, 10) / 10)
    found = np.array([frame[[0, 1, 2]] for frame in one.quantiles(SIZE)])
    np.testing.assert_array_equal(found, expected_quantiles(mask, image, SIZE, deciles))
    tiny = one.quantiles(SIZE, 1e-7)
    np.testing.assert_array_equal(
        tiny[0][[0, 1, 2]], expected_quantiles(mask, image, SIZE, (1e-7,))[0]
    )
    twice = one.quantiles(SIZE, [0.5, 0.5])
    pd.testing.assert_frame_equal(*twice)
    for q in (-0.1, 1.5, [], [0.5, float("nan")]):
        with pytest.raises(InputError, match="from 0 to 1"):
            one.quantiles(SIZE, q)


def test_nan_pixels_make_their_label_nan() -> None:
    mask, image = pair("float32")
    label = int(mask[0, 20, 25])
    assert label
    image[1, 0, 20, 25] = np.nan
    mask[0, 0, 0] = 0
    row = np.unique(mask[mask != 0]).tolist().index(label)
    found = np.array([f[[0, 1, 2]] for f in featurizer(mask, image).quantiles(60, Q)])
    assert np.isnan(found[:, row, 1]).all()
    assert not np.isnan(found[:, row, [0, 2]]).any()
    np.testing.assert_array_equal(found, expected_quantiles(mask, image, 60, Q))


# Radii and axes


def coordinates(mask: Array, size: int) -> list[Array]:
    """Of each label the coordinates (N, 3) of its pixels inside its window."""
    return [np.argwhere(window[0]) for window in windows(mask, None, size)[1]]


def by_svd(points: Array) -> tuple[Array, Array]:
    """Principal components as scikit-learn defines them, from the data and not its covariance."""
    centred = points - points.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=True)
    values = np.pad(values, (0, 3 - len(values)))
    signs = np.sign(axes[np.arange(3), np.abs(axes).round(9).argmax(axis=1)])
    return values / np.sqrt(max(len(points) - 1, 1)), axes * signs[:, None]


def test_radii_and_axes() -> None:
    mask, _ = pair(depth=5)
    frame = featurizer(mask).radii_and_principal_axes(33, instance_key="id")
    assert list(frame.columns) == [*range(12), "id"]
    assert frame["id"].tolist() == np.unique(mask[mask != 0]).tolist()
    compared = 0
    for row, points in zip(frame.to_numpy(float), coordinates(mask, 33), strict=True):
        if not len(points):
            assert np.isnan(row[:12]).all()
            continue
        radii, axes = by_svd(points)
        np.testing.assert_allclose(row[:3], radii, rtol=1e-9, atol=1e-7)
        own = row[3:12].reshape(3, 3)
        np.testing.assert_allclose(own @ own.T, np.eye(3), atol=1e-12)
        gaps = np.abs(np.diff(radii))
        for i in range(3):
            if gaps[max(0, i - 1) : i + 1].min() > 1e-3:  # else the axis is anybody's
                np.testing.assert_allclose(own[i], axes[i], atol=1e-6)
                compared += 1
    assert compared > 20


def test_against_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is absent")
    mask, _ = pair(depth=5)
    frame = featurizer(mask).radii_and_principal_axes(33)
    compared = 0
    for row, points in zip(frame.to_numpy(float), coordinates(mask, 33), strict=True):
        if len(points) < 20 or np.ptp(points[:, 0]) < 1:
            continue
        pca = decomposition.PCA(3, svd_solver="full").fit(points.astype(float))
        radii = np.sqrt(pca.explained_variance_)
        np.testing.assert_allclose(row[:3], radii, rtol=1e-9, atol=1e-7)
        if np.abs(np.diff(radii)).min() > 1e-3:
            np.testing.assert_allclose(row[3:12].reshape(3, 3), pca.components_, atol=1e-6)
            compared += 1
    assert compared > 3


def test_flat_labels() -> None:
    """In a plane the third radius is 0 and its axis z; of one pixel all are 0."""
    mask, _ = pair(depth=1)
    mask[0, 30, 30:34] = 5
    frame = featurizer(mask).radii_and_principal_axes(60)
    values = frame.to_numpy(float)
    assert (values[:, 2] == 0).all()
    area = np.array([len(points) for points in coordinates(mask, 60)])
    assert (values[area == 1, :3] == 0).all()
    assert np.isfinite(values[area == 1]).all()
    round_ones = (area > 30) & (values[:, 1] > 0)
    assert round_ones.sum() > 3
    assert (values[round_ones, 9:12] == [1, 0, 0]).all()


def test_known_shapes() -> None:
    mask = np.zeros((11, 41, 41), "uint8")
    z, y, x = np.ogrid[-5:6, -20:21, -20:21]
    mask[(z / 4.5) ** 2 + (y / 9.5) ** 2 + (x / 19.5) ** 2 <= 1] = 1
    row = featurizer(mask).radii_and_principal_axes(41).to_numpy(float)[0]
    np.testing.assert_allclose(row[:3] * np.sqrt(5), [19.5, 9.5, 4.5], rtol=0.03)
    np.testing.assert_allclose(row[3:12].reshape(3, 3), np.eye(3)[::-1], atol=1e-12)
    plane = np.zeros((1, 61, 61), "uint8")
    plane[0, 30, 10:20] = 9
    frame = featurizer(plane).radii_and_principal_axes(61, calculate_axes=False)
    assert list(frame.columns) == [0, 1, 2, "cell_ID"]
    np.testing.assert_allclose(frame.loc[0, [0, 1, 2]], [np.arange(10).std(ddof=1), 0, 0])


def test_only_what_lies_in_the_window_counts() -> None:
    mask = np.zeros((1, 40, 60), "uint8")
    mask[0, 18:22, 2:58] = 1
    wide = featurizer(mask).radii_and_principal_axes(60)
    narrow = featurizer(mask).radii_and_principal_axes(10)
    np.testing.assert_allclose(wide[0], np.repeat(np.arange(56), 4).std(ddof=1))
    np.testing.assert_allclose(narrow[0], np.repeat(np.arange(10), 4).std(ddof=1))


def test_principal_axes_leave_rounding_out() -> None:
    """Points on a line have one radius."""
    points = np.stack([np.arange(200), 3 * np.arange(200), -7 * np.arange(200)], axis=1)
    covariance = np.cov(points.T.astype(float))
    variances, axes = principal_axes(np.stack([covariance, covariance * np.nan]))
    assert (variances[0, 1:] == 0).all()
    np.testing.assert_allclose(axes[0, 0], np.array([-1, -3, 7]) / np.sqrt(59), atol=1e-12)
    assert np.isnan(variances[1]).all()
    assert np.isnan(axes[1]).all()
