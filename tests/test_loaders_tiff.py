"""Images and masks from TIFF and OME-TIFF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from scportrait_like import datasets
from scportrait_like.errors import (
    ElementExistsError,
    InputError,
    MissingInputError,
    ShapeError,
)
from scportrait_like.project import Project

Pixels = np.ndarray[Any, Any]
Check = Callable[..., Any]
NAMES = ["DNA", "CD45", "CD3"]

OME = {
    "axes": "CYX",
    "Channel": {"Name": NAMES},
    "PhysicalSizeX": 0.5,
    "PhysicalSizeXUnit": "µm",
    "PhysicalSizeY": 250.0,
    "PhysicalSizeYUnit": "nm",
}


def micrometers(project: Project, name: str = "input_image") -> list[float]:
    """Length of a pixel in micrometers along y and x."""
    from spatialdata.transformations import get_transformation

    found = get_transformation(project.sdata[name], get_all=True)
    assert set(found) == {"global", "micrometer"}
    matrix = found["micrometer"].to_affine_matrix(("y", "x"), ("y", "x"))
    assert matrix[:2, 2].tolist() == [0, 0]
    return [float(matrix[0, 0]), float(matrix[1, 1])]


WAYS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "big-endian": {"byteorder": ">"},
    "strips": {"rowsperstrip": 7},
    "strips-deflate": {"rowsperstrip": 16, "compression": "zlib"},
    "pages-lzw": {"compression": "lzw"},
    "tiles": {"tile": (64, 96)},
    "tiles-zstd": {"tile": (64, 64), "compression": "zstd"},
    "tiles-deflate-predictor": {"tile": (128, 128), "compression": "zlib", "predictor": True},
    "bigtiff-tiles": {"tile": (64, 64), "bigtiff": True, "compression": "lzw"},
    "bigtiff": {"bigtiff": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_lie_in_a_file(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels, way: str
) -> None:
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, image, photometric="minisblack", metadata=OME, **WAYS[way])
    project.load_input_from_tif_files(path)
    check_image(project, image, NAMES)
    assert micrometers(project) == [0.25, 0.5]
    project.load_input_from_tif_files([str(path)])  # nothing to do


@pytest.mark.parametrize("way", ["contiguous", "strips-deflate", "tiles-zstd", "planar"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "u8", "f4", "f8"])
def test_plain_tiff_of_every_dtype(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels, way: str, dtype: str
) -> None:
    pixels = (image / 8).astype(dtype)
    path = tmp_path / "image.tif"
    planar = {"planarconfig": "separate", "tile": (64, 64)}
    tifffile.imwrite(path, pixels, photometric="minisblack", **WAYS.get(way, planar))
    project.load_input_from_tif_files(path)
    check_image(project, pixels, ["channel_0", "channel_1", "channel_2"])


@pytest.mark.parametrize("ome", [True, False])
def test_a_pyramid_is_read_at_its_finest_level(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels, ome: bool
) -> None:
    path = tmp_path / ("image.ome.tif" if ome else "image.tif")
    with tifffile.TiffWriter(path, ome=ome) as file:
        options: dict[str, Any] = {
            "tile": (64, 64),
            "compression": "zlib",
            "photometric": "minisblack",
        }
        metadata = {"metadata": OME} if ome else {}
        file.write(image, subifds=2, **metadata, **options)
        file.write(image[:, ::2, ::2], subfiletype=1, **options)
        file.write(image[:, ::4, ::4], subfiletype=1, **options)
    project.load_input_from_tif_files(path)
    check_image(project, image, NAMES if ome else [f"channel_{i}" for i in range(3)])


def test_one_file_a_channel(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels
) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"tile": (64, 64), "compression": "zlib"},
        {"rowsperstrip": 9},
    ]
    paths = [tmp_path / f"slide.{name}.tif" for name in NAMES]
    for path, plane, way in zip(paths, image, ways, strict=True):
        tifffile.imwrite(path, plane, **way)
    with pytest.raises(InputError, match=r"slide stands twice.*give channel_names"):
        project.load_input_from_tif_files(paths)
    project.load_input_from_tif_files(paths, NAMES)
    check_image(project, image, NAMES)
    with pytest.raises(ElementExistsError):
        project.load_input_from_tif_files(paths[::-1], NAMES)
    project.load_input_from_tif_files(paths[::-1], NAMES[::-1], remap=[2, 1, 0])  # the same


def test_names_from_the_files(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels
) -> None:
    paths = [tmp_path / name for name in ("DNA.tif", "b.ome.tif", "CD3.tiff")]
    tifffile.imwrite(paths[0], image[0])
    metadata = {"axes": "YX", "Channel": {"Name": "CD45"}}
    tifffile.imwrite(paths[1], image[1], metadata=metadata, ome=True)
    tifffile.imwrite(paths[2], image[2][None])
    project.load_input_from_tif_files(paths)
    check_image(project, image, NAMES)


def test_more_files_than_are_held_open(
    project: Project, check_image: Check, tmp_path: Path
) -> None:
    planes = np.random.default_rng(0).integers(0, 255, (40, 150, 150), np.uint8)
    paths = [tmp_path / f"{number}.tif" for number in range(40)]
    for path, plane in zip(paths, planes, strict=True):
        tifffile.imwrite(path, plane, tile=(32, 32), compression="zlib")
    project.load_input_from_tif_files(paths)
    check_image(project, planes, [str(number) for number in range(40)])


@pytest.mark.parametrize("way", ["contiguous", "tiles-zstd"])
def test_colours_are_channels(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels, way: str
) -> None:
    colours = np.moveaxis((image / 256).astype(np.uint8), 0, -1)
    path = tmp_path / "rgb.ome.tif"
    tifffile.imwrite(path, colours, photometric="rgb", **WAYS[way])
    project.load_input_from_tif_files(path)
    check_image(project, np.moveaxis(colours, -1, 0), ["channel_0", "channel_1", "channel_2"])


def test_our_own_files_for_the_demo(
    project: Project, check_image: Check, check_labels: Check, tmp_path: Path
) -> None:
    pytest.importorskip("pooch")
    image_path, labels_path = datasets.demo_files(tmp_path)
    project.load_input_from_tif_files(image_path)
    project.load_labels(labels_path)
    check_image(project, tifffile.imread(image_path), ["hematoxylin", "dab", "residual"])
    check_labels(project, tifffile.imread(labels_path))


@pytest.mark.parametrize("way", ["contiguous", "tiles-zstd", "strips-deflate"])
@pytest.mark.parametrize(
    ("crop", "part"),
    [
        ([(10, 200), (33, 400)], (slice(10, 200), slice(33, 400))),
        ([(0, -1), (0, -1)], (slice(0, -1), slice(0, -1))),
        ([(None, None), (100, None)], (slice(None), slice(100, None))),
        ([(0, 10**6), (-50, None)], (slice(None), slice(-50, None))),
    ],
)
def test_crop(
    project: Project,
    check_image: Check,
    tmp_path: Path,
    image: Pixels,
    way: str,
    crop: Any,
    part: tuple[slice, slice],
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image, photometric="minisblack", **WAYS[way])
    project.load_input_from_tif_files(path, NAMES, crop=crop)
    check_image(project, image[:, *part], NAMES)


@pytest.mark.parametrize(
    "crop",
    [[(5, 5), (0, 9)], [(9, 5), (0, 9)], [(0, 9)], 5, [(0, 1), (0, 1), (0, 1)], [(0.5, 2), (0, 9)]],
)
def test_a_crop_that_is_none(project: Project, tmp_path: Path, image: Pixels, crop: Any) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image, photometric="minisblack")
    with pytest.raises(InputError, match=r"crop .* (must be|leaves no pixel)"):
        project.load_input_from_tif_files(path, NAMES, crop=crop)


def test_another_crop_is_another_image(project: Project, tmp_path: Path, image: Pixels) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image, photometric="minisblack")
    project.load_input_from_tif_files(path, NAMES, crop=[(0, 100), (0, 100)])
    project.load_input_from_tif_files(path, NAMES, crop=[(0, 100), (None, 100)])
    with pytest.raises(ElementExistsError):
        project.load_input_from_tif_files(path, NAMES, crop=[(1, 101), (0, 100)])


def test_remap_of_a_file(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels
) -> None:
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, image, photometric="minisblack", metadata=OME)
    project.load_input_from_tif_files(path, remap=[1, 2, 0])
    check_image(project, image[[1, 2, 0]], ["CD45", "CD3", "DNA"])


def test_a_copied_file_holds_the_same(project: Project, tmp_path: Path, image: Pixels) -> None:
    for name in ("one.tif", "two.tif"):
        tifffile.imwrite(tmp_path / name, image, photometric="minisblack", rowsperstrip=20)
    project.load_input_from_tif_files(tmp_path / "one.tif", NAMES)
    project.load_input_from_tif_files(tmp_path / "two.tif", NAMES)
    tifffile.imwrite(tmp_path / "two.tif", image + 1, photometric="minisblack")
    with pytest.raises(ElementExistsError, match=r"loaded from .*one.tif, and .*two.tif differs"):
        project.load_input_from_tif_files(tmp_path / "two.tif", NAMES)


def test_axes_of_length_one_go(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels
) -> None:
    path = tmp_path / "image.ome.tif"
    metadata = {"axes": "TCZYX", "Channel": {"Name": NAMES}}
    tifffile.imwrite(path, image[None, :, None], photometric="minisblack", metadata=metadata)
    project.load_input_from_tif_files(path)
    check_image(project, image, NAMES)


def test_stacks_are_refused(project: Project, tmp_path: Path, image: Pixels) -> None:
    path = tmp_path / "image.ome.tif"
    stack = np.stack([image, image])
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZCYX"})
    with pytest.raises(InputError, match="has 2 positions along axis z"):
        project.load_input_from_tif_files(path)
    colours = np.zeros((2, 40, 50, 3), np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb")
    with pytest.raises(InputError, match="give one RGB plane or single channels"):
        project.load_input_from_tif_files(tmp_path / "rgb.tif")


def test_files_that_do_not_fit_each_other(project: Project, tmp_path: Path, image: Pixels) -> None:
    good, short = tmp_path / "good.tif", tmp_path / "short.tif"
    other, many = tmp_path / "other.tif", tmp_path / "many.tif"
    tifffile.imwrite(good, image[0])
    tifffile.imwrite(short, image[0, :-1])
    tifffile.imwrite(other, image[0].astype(np.float32))
    tifffile.imwrite(many, image, photometric="minisblack")
    with pytest.raises(ShapeError, match=r"short.tif is \(299, 420\) \(y, x\), but .*good.tif"):
        project.load_input_from_tif_files([good, short])
    with pytest.raises(InputError, match=r"other.tif holds float32, but .*good.tif uint16"):
        project.load_input_from_tif_files([good, other])
    with pytest.raises(InputError, match=r"many.tif has 3 channels; of several files each holds"):
        project.load_input_from_tif_files([good, many])
    with pytest.raises(InputError, match="file_paths is empty"):
        project.load_input_from_tif_files([])
    with pytest.raises(InputError, match="has 1 channels, but 2 channel_names"):
        project.load_input_from_tif_files(good, ["a", "b"])
    assert not project.filehandler.element_names()


def test_files_that_are_no_tiff(project: Project, tmp_path: Path, image: Pixels) -> None:
    with pytest.raises(MissingInputError, match=r"none.tif: no such file"):
        project.load_input_from_tif_files(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("not a TIFF at all")
    with pytest.raises(InputError, match=r"text.tif cannot be read as TIFF"):
        project.load_input_from_tif_files(tmp_path / "text.tif")
    (tmp_path / "empty.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty.tif cannot be read as TIFF"):
        project.load_input_from_tif_files(tmp_path / "empty.tif")


@pytest.mark.parametrize("way", ["contiguous", "tiles", "tiles-zstd", "strips-deflate"])
def test_a_file_cut_short_is_refused_and_leaves_nothing(
    project: Project, tmp_path: Path, image: Pixels, way: str
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image, photometric="minisblack", **WAYS[way])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match=r"image.tif cannot be read"):
        project.load_input_from_tif_files(path, NAMES)
    assert not project.filehandler.element_names()


@pytest.mark.parametrize("way", ["tiles-zstd", "strips-deflate"])
def test_a_damaged_file_is_named_and_leaves_nothing(
    project: Project, tmp_path: Path, image: Pixels, way: str
) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image, photometric="minisblack", **WAYS[way])
    with tifffile.TiffFile(path) as file:
        offset = file.pages[1].dataoffsets[3]  # type: ignore[union-attr]
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(bytes(range(100)))
    with pytest.raises(InputError, match=r"image.tif cannot be read, it is damaged"):
        project.load_input_from_tif_files(path, NAMES)
    assert not project.filehandler.element_names()


def test_a_damaged_description_is_no_obstacle(
    project: Project, check_image: Check, tmp_path: Path, image: Pixels
) -> None:
    path = tmp_path / "image.tif"
    broken = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/"><Image></OME>'
    tifffile.imwrite(path, image, photometric="minisblack", description=broken, metadata=None)
    project.load_input_from_tif_files(path, NAMES)
    check_image(project, image, NAMES)


# Masks


@pytest.mark.parametrize("way", ["contiguous", "tiles-zstd", "strips-deflate", "pages-lzw"])
@pytest.mark.parametrize("name", ["mask.tif", "mask.TIFF", "mask.ome.tif"])
def test_masks(
    project: Project, check_labels: Check, tmp_path: Path, labels: Pixels, way: str, name: str
) -> None:
    tifffile.imwrite(tmp_path / name, labels, **WAYS[way])
    project.load_labels(tmp_path / name)
    check_labels(project, labels)
    project.load_labels(str(tmp_path / name))


def test_a_mask_of_colours_is_refused(project: Project, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", np.ones((40, 50, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match=r"rgb.tif has the shape \(3, 40, 50\), but a mask is"):
        project.load_labels(tmp_path / "rgb.tif")


def test_a_page_compressed_as_one_strip_beyond_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "page.tif"
    tifffile.imwrite(path, np.zeros((9000, 9000), np.uint16), compression="zlib", rowsperstrip=9000)
    from scportrait_like.run.memory import tree_memory

    project = Project(tmp_path / "p", memory_limit=tree_memory() + 350_000_000)
    with pytest.raises(InputError, match=r"page.tif: its chunks of .*vips tiffsave IN.tif OUT.tif"):
        project.load_input_from_tif_files(path)
