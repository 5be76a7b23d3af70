"""The featurizer's interface: signatures, windows, embeddings, zarr, bad input."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

import scportrait_like as sl
from scportrait_like.errors import (
    ConfigError,
    ElementExistsError,
    InputError,
    ModelError,
    ShapeError,
)
from scportrait_like.raster.instance_statistics import channel_means
from scportrait_like.utils import Featurizer

from .cases import Array, odd_labels, odd_pixels, write_zarr
from .oracle import same_bits, windows

pytestmark = pytest.mark.usefixtures("small_tiles")
SHAPE = (2, 41, 53)


def pair(dtype: str = "uint16", shape: tuple[int, int, int] = SHAPE) -> tuple[Array, Array]:
    """Mask and image with everything that is awkward."""
    rng = np.random.default_rng(8)
    return odd_labels(rng, shape, "int64"), odd_pixels(rng, (3, *shape), dtype)


def plain(shape: tuple[int, int, int] = (1, 40, 50)) -> tuple[Array, Array]:
    """Mask of squares of 10 pixels, image of small numbers."""
    rng = np.random.default_rng(3)
    mask = np.kron(1 + np.arange(20).reshape(1, 4, 5), np.ones((1, 10, 10), int))
    return mask.astype("uint32"), rng.integers(1, 99, (3, *shape), "uint16")


# The interface

METHODS = {
    "extract_instances": {
        "diameter": inspect.Parameter.empty,
        "depth": None,
        "remove_background": True,
        "extract_mask": False,
        "extract_image": True,
        "zarr_output_path": None,
        "name_instances_image": "image.zarr",
        "name_instances_mask": "mask.zarr",
        "batch_size": None,
        "overwrite": False,
    },
    "featurize": {
        "embedding_dimension": inspect.Parameter.empty,
        "diameter": inspect.Parameter.empty,
        "depth": None,
        "remove_background": True,
        "zarr_output_path": None,
        "store_intermediate": False,
        "model": channel_means,
        "batch_size": None,
        "model_kwargs": {},
        "dtype": np.float32,
    },
    "calculate_instance_statistics": {
        "depth": inspect.Parameter.empty,
        "statistic_dimension": inspect.Parameter.empty,
        "diameter": None,
        "zarr_output_path": None,
        "store_intermediate": False,
        "fn": None,
        "batch_size": None,
        "extract_image": True,
        "fn_kwargs": {},
        "overwrite": False,
    },
    "quantiles": {
        "diameter": inspect.Parameter.empty,
        "q": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "zarr_output_path": None,
        "store_intermediate": False,
        "depth": None,
        "batch_size": None,
        "instance_key": "cell_ID",
        "overwrite": False,
    },
    "radii_and_principal_axes": {
        "diameter": inspect.Parameter.empty,
        "calculate_axes": True,
        "depth": None,
        "batch_size": None,
        "instance_key": "cell_ID",
    },
}


@pytest.mark.parametrize("name", METHODS)
def test_signatures(name: str) -> None:
    parameters = inspect.signature(getattr(Featurizer, name)).parameters
    positional = [
        (key, p.default) for key, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert positional[1:] == list(METHODS[name].items())
    others = {p.kind for p in parameters.values()} - {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert others <= {inspect.Parameter.KEYWORD_ONLY}


def test_where_it_is_found() -> None:
    assert sl.utils.Featurizer is Featurizer
    parameters = list(inspect.signature(Featurizer).parameters)
    assert parameters[:3] == ["mask_dask_array", "image_dask_array", "run_on_gpu"]


def test_gpu_is_an_info_line(caplog: pytest.LogCaptureFixture) -> None:
    mask, image = plain()
    with caplog.at_level(logging.INFO):
        Featurizer(mask, image)
    assert [r.levelname for r in caplog.records if "run_on_gpu" in r.message] == ["INFO"]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        Featurizer(mask, image, False)
    assert not caplog.records


# Windows

BOTH = pytest.mark.parametrize("remove_background", [True, False], ids=["alone", "all"])


@BOTH
@pytest.mark.parametrize("diameter", [8, 15])
@pytest.mark.parametrize("dtype", ["uint16", "float64", "bool", ">f4"])
def test_lazy_windows(dtype: str, diameter: int, remove_background: bool) -> None:
    mask, image = pair(dtype)
    ids, (masks, images) = Featurizer(
        da.from_array(mask, (1, 20, 53)), da.from_array(image, (2, 2, 16, 16))
    ).extract_instances(diameter, None, remove_background, True, batch_size=5)
    expected_ids, expected_masks, expected = windows(mask, image, diameter, remove_background)
    assert isinstance(images, da.Array)
    assert same_bits(ids, expected_ids)
    assert images.chunks[0][:2] == masks.chunks[0][:2] == (5, 5)
    assert images.dtype == image.dtype.newbyteorder("=")
    assert images.shape == expected.shape
    assert same_bits(images.compute(), expected)
    assert same_bits(masks.compute(), expected_masks)


@BOTH
def test_stored_windows(tmp_path: Path, remove_background: bool) -> None:
    mask, image = pair("float32")
    one = Featurizer(mask, image, executor="threads")
    ids, (masks, images) = one.extract_instances(
        13,
        remove_background=remove_background,
        extract_mask=True,
        zarr_output_path=tmp_path / "new" / "out",
        name_instances_mask="m",
    )
    expected_ids, expected_masks, expected = windows(mask, image, 13, remove_background)
    assert same_bits(ids, expected_ids)
    assert same_bits(images.compute(), expected)
    assert same_bits(masks.compute(), expected_masks)
    assert same_bits(np.asarray(zarr.open_array(tmp_path / "new/out/image.zarr")[:]), expected)
    assert same_bits(np.asarray(zarr.open_array(tmp_path / "new/out/m")[:]), expected_masks)


def test_image_or_mask_only() -> None:
    mask, image = pair()
    _, images = Featurizer(mask, image).extract_instances(9)
    assert same_bits(images.compute(), windows(mask, image, 9)[2])
    for one in (Featurizer(mask, image), Featurizer(mask)):
        _, masks = one.extract_instances(9, extract_mask=True, extract_image=False)
        assert same_bits(masks.compute(), windows(mask, None, 9)[1])


def test_diameter_is_twice_the_depth_if_not_given() -> None:
    mask, image = plain()
    _, images = Featurizer(mask, image).extract_instances(None, 7)
    assert images.shape[-2:] == (14, 14)


def test_ids_have_the_dtype_of_the_mask() -> None:
    mask, image = plain()
    for dtype in ("uint8", "int32", ">u2"):
        ids, _ = Featurizer(mask.astype(dtype), image).extract_instances(4)
        assert ids.dtype == np.dtype(dtype).newbyteorder("=")
        assert ids.tolist() == list(range(1, 21))


# Embeddings


def sums(batch: Array, embedding_dimension: int, factor: int = 1) -> Array:
    assert batch.ndim == 5
    total = batch.sum(axis=(2, 3, 4), dtype=np.int64) * factor
    return total[:, :embedding_dimension]


def areas(batch: Array, embedding_dimension: int, mask: Array) -> Array:
    assert mask.shape == (len(batch), 1, *batch.shape[2:])
    assert mask.dtype == bool
    return mask.sum(axis=(1, 2, 3, 4))[:, None]


@BOTH
def test_embeddings(remove_background: bool) -> None:
    mask, image = plain()
    one = Featurizer(da.from_array(mask, (1, 20, 20)), image)
    ids, found = one.featurize(
        3, 12, None, remove_background, model=sums, model_kwargs={"factor": 2}, dtype=np.float64
    )
    expected = 2 * windows(mask, image, 12, remove_background)[2].sum((2, 3, 4), dtype=np.int64)
    assert found.dtype == np.float64
    assert found.shape == (20, 3)
    assert (found.compute() == expected).all()
    assert ids.tolist() == list(range(1, 21))


def test_embeddings_have_the_dtype_asked_for() -> None:
    mask, image = plain()
    one = Featurizer(mask, image)
    assert one.featurize(3, 8, model=sums)[1].compute().dtype == np.float32
    for dtype in ("float16", np.int32):
        found = one.featurize(3, 8, model=sums, dtype=dtype)[1]
        assert found.dtype == found.compute().dtype == np.dtype(dtype)


def test_models_see_batches_of_the_size_asked_for() -> None:
    mask, image = plain()
    seen: list[int] = []

    def model(batch: Array, embedding_dimension: int) -> Array:
        seen.append(len(batch))
        return np.zeros((len(batch), embedding_dimension))

    _, found = Featurizer(mask, image).featurize(1, 6, model=model, batch_size=8)
    found.compute(scheduler="synchronous")
    assert sorted(seen) == [4, 8, 8]
    assert found.chunks[0] == (8, 8, 4)


def test_default_model_is_the_mean_of_channels() -> None:
    mask, image = plain()
    expected = windows(mask, image, 10)[2].mean((2, 3, 4))
    one = Featurizer(mask, image)
    np.testing.assert_allclose(one.featurize(3, 10)[1].compute(), expected, rtol=1e-6)
    np.testing.assert_allclose(one.featurize(2, 10)[1].compute(), expected[:, :2], rtol=1e-6)
    wide = one.featurize(5, 10)[1].compute()
    np.testing.assert_allclose(wide[:, :3], expected, rtol=1e-6)
    assert not wide[:, 3:].any()


def test_models_by_name_and_with_masks() -> None:
    mask, image = plain()
    one = Featurizer(mask, image)
    _, found = one.featurize(None, 10, model="intensity_statistics")
    assert found.compute().shape == found.shape
    _, found = one.featurize(1, 12, False, model=areas)
    assert (found.compute() == 100).all()


def test_fitted_models(tmp_path: Path) -> None:
    mask, image = plain()
    one = Featurizer(mask, image)
    lazy = one.featurize(2, 10, model="pca")[1].compute()
    stored = one.featurize(2, 10, model="pca", zarr_output_path=tmp_path / "e.zarr")[1].compute()
    assert lazy.shape == (20, 2)
    assert np.isfinite(lazy).all()
    np.testing.assert_allclose(lazy, stored, rtol=1e-5, atol=1e-5)


def test_stored_embeddings(tmp_path: Path) -> None:
    mask, image = plain()
    one = Featurizer(mask, image)
    path = tmp_path / "embedding.zarr"
    _, found = one.featurize(3, 10, model=sums, zarr_output_path=path)
    assert (found.compute() == one.featurize(3, 10, model=sums)[1].compute()).all()
    assert zarr.open_array(path).dtype == np.float32
    with pytest.raises(ElementExistsError):
        one.featurize(3, 10, model=sums, zarr_output_path=path)
    _, found = one.featurize(2, 10, model=sums, zarr_output_path=path, overwrite=True)
    assert found.shape == (20, 2)


# What is refused


def failing(batch: Array, embedding_dimension: int) -> Array:
    raise AssertionError("the model was called")


def test_what_is_there_is_refused_before_any_work(tmp_path: Path) -> None:
    mask, image = plain()
    out = tmp_path / "out"
    Featurizer(mask, image).extract_instances(8, zarr_output_path=out)
    path = out / "image.zarr"

    def untouched(block: Array) -> Array:
        raise AssertionError("pixels were looked at")

    lazy_mask = da.from_array(mask, (1, 20, 50)).map_blocks(untouched, dtype=mask.dtype, meta=mask)
    one = Featurizer(lazy_mask, image)
    with pytest.raises(ElementExistsError, match=r"image\.zarr.*overwrite=True"):
        one.extract_instances(8, zarr_output_path=out)
    with pytest.raises(ElementExistsError):
        one.featurize(3, 8, model=failing, zarr_output_path=path)
    with pytest.raises(ElementExistsError):
        one.calculate_instance_statistics(4, 1, zarr_output_path=str(path))
    with pytest.raises(ElementExistsError):
        one.quantiles(4, zarr_output_path=path)
    Featurizer(mask, image).extract_instances(6, zarr_output_path=out, overwrite=True)
    assert zarr.open_array(path).shape == (20, 3, 1, 6, 6)


def test_shapes_are_checked() -> None:
    mask, image = plain()
    for given in ((mask[0], image), (mask, image[0]), (mask, image[..., 1:]), (mask[None], None)):
        for kind in (ShapeError, ValueError, AssertionError):
            with pytest.raises(kind):
                Featurizer(*given)


def test_dtypes_are_checked() -> None:
    mask, image = plain()
    with pytest.raises(InputError, match="float64"):
        Featurizer(mask.astype(float), image)
    with pytest.raises(InputError, match="complex"):
        Featurizer(mask, image.astype(complex))
    with pytest.raises(InputError, match="dtype"):
        Featurizer(mask, image).featurize(3, 8, dtype="S3")


@pytest.mark.parametrize("diameter", [0, -3, 2.5, True, "8", None])
def test_diameters_are_checked(diameter: Any) -> None:
    mask, image = plain()
    with pytest.raises(InputError, match="diameter"):
        Featurizer(mask, image).extract_instances(diameter)


def test_arguments_are_checked() -> None:
    mask, image = plain()
    one = Featurizer(mask, image)
    with pytest.raises(InputError, match="nothing"):
        one.extract_instances(8, extract_image=False)
    with pytest.raises(InputError, match="batch_size"):
        one.extract_instances(8, batch_size=0)
    with pytest.raises(ConfigError, match="gibberish"):
        one.featurize(3, 8, model="gibberish")
    with pytest.raises(InputError, match="embedding_dimension"):
        one.featurize(3, 8, model=lambda batch: batch)
    with pytest.raises(InputError, match="embedding_dimension"):
        one.featurize(0, 8)
    with pytest.raises(ConfigError, match="executor"):
        Featurizer(mask, image, executor="gibberish")


def test_without_image() -> None:
    mask, _ = plain()
    one = Featurizer(mask)
    for call in (
        lambda: one.extract_instances(8),
        lambda: one.featurize(3, 8),
        lambda: one.calculate_instance_statistics(4, 1),
        lambda: one.quantiles(8),
    ):
        with pytest.raises(InputError, match="image_dask_array"):
            call()
    assert len(one.radii_and_principal_axes(8)) == 20


def broken(batch: Array, embedding_dimension: int) -> Array:
    return np.zeros((len(batch), embedding_dimension + 1))


def test_errors_of_a_model_tell_what_is_wrong(tmp_path: Path) -> None:
    mask, image = plain()
    one = Featurizer(mask, image)
    wanted = r"broken.*\d+ to \d+.*\(\d, 3\).*\(\d, 2\)"
    with pytest.raises(ModelError, match=wanted):
        one.featurize(2, 8, model=broken)[1].compute()
    with pytest.raises(ModelError, match=wanted):
        one.featurize(2, 8, model=broken, zarr_output_path=tmp_path / "e.zarr")
    assert not (tmp_path / "e.zarr").exists()


# No label


def test_a_mask_without_labels(tmp_path: Path) -> None:
    mask, image = np.zeros((2, 20, 30), "uint16"), np.ones((3, 2, 20, 30), "uint8")
    one = Featurizer(mask, image)
    ids, (masks, images) = one.extract_instances(7, extract_mask=True)
    assert ids.shape == (0,)
    assert ids.dtype == mask.dtype
    assert images.compute().shape == (0, 3, 2, 7, 7)
    assert masks.compute().dtype == mask.dtype
    _, stored = one.extract_instances(7, zarr_output_path=tmp_path)
    assert stored.compute().shape == (0, 3, 2, 7, 7)
    for model in (sums, "pca"):
        assert one.featurize(3, 7, model=model)[1].compute().shape == (0, 3)
    _, found = one.featurize(3, 7, model=sums, zarr_output_path=tmp_path / "e.zarr")
    assert found.compute().shape == (0, 3)
    assert one.calculate_instance_statistics(4, 1)[1].compute().shape == (0, 3, 1)
    assert [list(frame.columns) for frame in one.quantiles(7, 0.5)] == [[0, 1, 2, "cell_ID"]]
    assert one.radii_and_principal_axes(7).shape == (0, 13)


def test_zarr_paths_and_arrays(tmp_path: Path) -> None:
    mask, image = plain()
    masks, images = tmp_path / "m.zarr", tmp_path / "i.zarr"
    write_zarr(masks, mask, (1, 16, 16))
    write_zarr(images, image, (3, 1, 32, 16))
    expected = windows(mask, image, 12)[2]
    for given in ((masks, images), (zarr.open_array(masks), zarr.open_array(images))):
        _, found = Featurizer(*given).extract_instances(12)
        assert same_bits(found.compute(), expected)
