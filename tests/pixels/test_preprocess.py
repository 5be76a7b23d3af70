"""`im.pixel_clustering_preprocess`: images of SpatialData objects, in memory and in stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import spatialdata
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Image3DModel
from spatialdata.transformations import Scale, Translation, get_transformation

from scportrait_like import im
from scportrait_like.errors import (
    ConfigError,
    ElementExistsError,
    InputError,
    MissingInputError,
)
from scportrait_like.pixels.preparation import Preparation
from scportrait_like.raster import tiles

from .preparing import Array, assert_alike, oracle

NAMES = ["DNA", "CD3", "CD8"]
USUAL = Preparation()


def pixels(shape: tuple[int, ...] = (3, 70, 90), seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    return (random.gamma(2, 20, shape) * (random.random(shape) > 0.3)).astype(np.uint16)


def made(**images: Any) -> SpatialData:
    moved = {"global": Scale([2, 2], ("x", "y")), "slide": Translation([3, 4], ("x", "y"))}
    return SpatialData(
        images={
            name: (Image3DModel if image.ndim == 4 else Image2DModel).parse(
                image,
                c_coords=NAMES[: len(image)],
                transformations=moved,
                chunks=(1,) * (image.ndim - 2) + (32, 32),
            )
            for name, image in images.items()
        }
    )


def backed(sdata: SpatialData, folder: Path) -> SpatialData:
    sdata.write(folder / "study.zarr")
    return spatialdata.read_zarr(folder / "study.zarr")


def found_in(sdata: SpatialData, name: str) -> Array:
    return np.asarray(im.get_dataarray(sdata, name).data)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_EDGE", 32)


@pytest.mark.parametrize("in_store", [False, True])
def test_an_image_beside_another(in_store: bool, tmp_path: Path) -> None:
    image = pixels()
    sdata = made(raw=image)
    if in_store:
        sdata = backed(sdata, tmp_path)
    assert im.pixel_clustering_preprocess(sdata, "raw", "ready") is sdata
    (wanted,), _ = oracle([image], USUAL)
    assert_alike([found_in(sdata, "ready")], [wanted], "float32")
    assert np.array_equal(found_in(sdata, "raw"), image)
    element = sdata["ready"]
    assert list(element.coords["c"].values) == NAMES
    assert element.data.chunks == ((1, 1, 1), (32, 32, 6), (32, 32, 26))
    for system in ("global", "slide"):
        assert get_transformation(element, system) == get_transformation(sdata["raw"], system)
    if in_store:
        again = spatialdata.read_zarr(tmp_path / "study.zarr")
        assert np.array_equal(found_in(again, "ready"), found_in(sdata, "ready"), equal_nan=True)
        assert [path.name for path in tmp_path.iterdir()] == ["study.zarr"]


def test_same_bits_for_any_chunks_and_executor(tmp_path: Path) -> None:
    image = pixels()
    results = []
    for number, chunks in enumerate([(3, 70, 90), (1, 16, 16), (2, 25, 40), (1, 70, 7)]):
        sdata = backed(
            SpatialData(images={"raw": Image2DModel.parse(image, chunks=chunks)}),
            tmp_path / str(number),
        )
        for executor in ("threads", "inline"):
            im.pixel_clustering_preprocess(sdata, "raw", "ready", executor=executor, overwrite=True)
            results.append(found_in(sdata, "ready").tobytes())
    cut = da.from_array(np.pad(image, 5), chunks=13)[:, 5:-5, 5:-5][5:-5]
    sdata = SpatialData(images={"raw": Image2DModel.parse(cut.rechunk((1, 20, 30)))})
    im.pixel_clustering_preprocess(sdata, "raw", "ready", executor="processes")
    results.append(found_in(sdata, "ready").tobytes())
    assert len(set(results)) == 1


def test_a_part_of_a_stored_array(tmp_path: Path) -> None:
    """Its chunks begin before it."""
    import zarr

    wide = pixels((3, 100, 120))
    stored = zarr.create_array(tmp_path / "wide", data=wide, chunks=(1, 32, 32))
    part = da.from_zarr(stored)[:, 10:90, 20:119]
    sdata = SpatialData(images={"raw": Image2DModel.parse(part)})
    im.pixel_clustering_preprocess(sdata, "raw", "ready", chunks=40)
    (wanted,), _ = oracle([wide[:, 10:90, 20:119]], USUAL)
    assert_alike([found_in(sdata, "ready")], [wanted], "float32")


def test_channels_chunks_and_scales(tmp_path: Path) -> None:
    image = pixels()
    sdata = backed(made(raw=image), tmp_path)
    im.pixel_clustering_preprocess(
        sdata,
        "raw",
        "ready",
        channels=["CD8", 0],
        sigma=[1, 3],
        chunks=(1, 50, 50),
        scale_factors=[2],
        cast_dtype="float64",
        cap_max=0.5,
    )
    how = replace(USUAL, sigma=(1.0, 3.0), dtype="float64", cap_max=0.5)
    (wanted,), _ = oracle([image[[2, 0]]], how)
    assert_alike([found_in(sdata, "ready")], [wanted], "float64")
    element = sdata["ready"]
    assert list(element) == ["scale0", "scale1"]
    finest = im.get_dataarray(sdata, "ready")
    assert finest.data.chunks == ((1, 1), (50, 20), (50, 40))
    assert list(finest.coords["c"].values) == ["CD8", "DNA"]


def test_several_images_and_volumes(tmp_path: Path) -> None:
    images = {"a": pixels((3, 4, 33, 40), 1), "b": pixels((3, 2, 50, 37), 2)}
    sdata = backed(made(**images), tmp_path)
    im.pixel_clustering_preprocess(sdata, ["a", "b"], ["a_ready", "b_ready"])
    wanted, _ = oracle(list(images.values()), USUAL)
    assert_alike([found_in(sdata, name) for name in ("a_ready", "b_ready")], wanted, "float32")


def test_channels_of_other_images_are_found_by_name() -> None:
    images = [pixels(seed=1), pixels(seed=2)]
    sdata = SpatialData(
        images={
            "a": Image2DModel.parse(images[0], c_coords=NAMES),
            "b": Image2DModel.parse(images[1], c_coords=NAMES[::-1]),
        }
    )
    im.pixel_clustering_preprocess(sdata, ["a", "b"], ["c", "d"])
    wanted, _ = oracle([images[0], images[1][::-1]], USUAL)
    assert_alike([found_in(sdata, name) for name in "cd"], wanted, "float32")


def test_in_place_of_the_image(tmp_path: Path) -> None:
    image = pixels()
    sdata = backed(made(raw=image), tmp_path)
    with pytest.raises(ElementExistsError, match="overwrite"):
        im.pixel_clustering_preprocess(sdata, "raw", "raw")
    im.pixel_clustering_preprocess(sdata, "raw", "raw", p_post=None, overwrite=True)
    (wanted,), _ = oracle([image], replace(USUAL, p_post=None))
    assert_alike([found_in(sdata, "raw")], [wanted], "float32")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image_name": "none"}, MissingInputError, "no images element 'none'"),
        ({"channels": ["CD4"]}, InputError, "no channel 'CD4'"),
        ({"channels": []}, InputError, "channels is empty"),
        ({"image_name": ["raw", "other"]}, InputError, "2 images need 2 names"),
        (
            {"image_name": ["raw", "other"], "output_image_name": ["a", "b"]},
            InputError,
            "different channels",
        ),
        (
            {"image_name": ["raw", "raw2"], "output_image_name": ["a", "a"]},
            InputError,
            "names of its own",
        ),
        ({"p": 100.1}, InputError, "p=100.1"),
        ({"sigma": [1, 2]}, InputError, "2 values for 3 channels"),
        ({"sigma": -1}, InputError, "sigma=-1"),
        ({"cast_dtype": np.float16}, InputError, "cast_dtype"),
        ({"cast_dtype": "floaty"}, InputError, "cast_dtype='floaty'"),
        ({"cast_dtype": None}, InputError, "cast_dtype=None"),
        ({"executor": "thread"}, ConfigError, "executor"),
        ({"image_name": "empty"}, InputError, "every channel has nothing but zeros"),
        ({"image_name": "dark"}, InputError, "channel CD3 has nothing but zeros"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    dark = pixels()
    dark[1] = 0
    sdata = made(raw=pixels(), raw2=pixels(), dark=dark, other=pixels()[:2], empty=pixels() * 0)
    before = set(sdata.images)
    given = {"image_name": "raw", "output_image_name": "ready", **arguments}
    with pytest.raises(error, match=message):
        im.pixel_clustering_preprocess(sdata, **given)
    assert set(sdata.images) == before


def test_a_blur_wider_than_the_image_is_refused() -> None:
    pixels = np.random.default_rng(0).random((2, 70, 90)).astype(np.float32)
    sdata = SpatialData(images={"image": Image2DModel.parse(pixels, dims=("c", "y", "x"))})
    with pytest.raises(InputError, match=r"its blur looks 400 pixels .* give 22\.5 at most"):
        im.pixel_clustering_preprocess(sdata, "image", "out", sigma=100)
    im.pixel_clustering_preprocess(sdata, "image", "out", sigma=22)
    assert np.isfinite(np.asarray(sdata["out"].data)).any()
