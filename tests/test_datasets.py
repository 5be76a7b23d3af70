"""Synthetic tissue and the section that ships with scikit-image."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like import datasets, names
from scportrait_like.errors import InputError

HEIGHT, WIDTH = 337, 421
SMALL = datasets.tissue((3, HEIGHT, WIDTH), seed=3, chunks=(2, 100, 170))


@pytest.fixture(scope="module")
def whole():
    return SMALL.read_image(), SMALL.read_labels(), SMALL.read_nuclei()


def spans(n: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda ab: (min(ab), max(ab)))


@settings(max_examples=60, deadline=None)
@given(spans(HEIGHT), spans(WIDTH))
def test_any_region_gives_the_same_pixels(whole, rows, columns):
    region = (*rows, *columns)
    there = (slice(*rows), slice(*columns))
    image, labels, nuclei = whole
    assert np.array_equal(SMALL.read_image(region), image[(slice(None), *there)])
    assert np.array_equal(SMALL.read_labels(region), labels[there])
    assert np.array_equal(SMALL.read_nuclei(region), nuclei[there])


def test_lazy_arrays_give_the_same_pixels(whole):
    image, labels, nuclei = whole
    assert SMALL.image.chunks[0] == (2, 1)
    assert np.array_equal(SMALL.image.compute(), image)
    assert np.array_equal(SMALL.labels.rechunk((64, 64)).compute(), labels)
    assert np.array_equal(SMALL.nuclei.compute(), nuclei)


def test_channels_alone_and_threads_give_the_same_pixels(whole):
    image = whole[0]
    assert np.array_equal(SMALL.image_block(2, 10, 90, 20, 30), image[2, 10:90, 20:30])
    assert np.array_equal(SMALL.read_image(channels=[2, 0]), image[[2, 0]])
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda _: SMALL.read_image(), range(4)))
    assert all(np.array_equal(image, other) for other in again)


def test_another_process_gives_the_same_pixels(whole):
    code = (
        "import pickle, sys, zlib\n"
        f"tissue = pickle.loads({pickle.dumps(SMALL)!r})\n"
        "for pixels in (tissue.read_image(), tissue.read_labels()):\n"
        "    print(zlib.crc32(pixels.tobytes()))"
    )
    expected = [str(zlib.crc32(pixels.tobytes())) for pixels in whole[:2]]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_seeds_and_channels_differ(whole):
    image, labels, _ = whole
    other = datasets.tissue((3, HEIGHT, WIDTH), seed=4)
    assert (other.read_image() != image).mean() > 0.9
    assert (other.read_labels() != labels).mean() > 0.2
    assert (image[0] != image[1]).mean() > 0.9


def test_every_cell_is_there_and_holds_its_nucleus():
    section = datasets.tissue((1, 2048, 2048))
    labels, nuclei = section.read_labels(), section.read_nuclei()
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    assert len(ids) == section.n_cells
    assert np.array_equal(ids, np.unique(nuclei[nuclei > 0]))
    assert np.all((nuclei == 0) | (nuclei == labels))
    assert 300 < areas.mean() < 600
    assert np.count_nonzero(nuclei) < 0.6 * np.count_nonzero(labels)


@pytest.mark.parametrize(("spacing", "radius"), [(6.0, 4.0), (12.0, 8.0), (10.0, 4.0), (22.0, 8.0)])
def test_crowded_cells_all_keep_pixels_and_a_nucleus(spacing, radius):
    section = datasets.tissue((1, 300, 280), spacing, cell_radius=radius, seed=1)
    labels, nuclei = section.read_labels(), section.read_nuclei()
    assert len(np.unique(labels)) - 1 == section.n_cells
    assert len(np.unique(nuclei)) - 1 == section.n_cells


def test_outlines_are_irregular_and_cells_sometimes_touch():
    from skimage.measure import regionprops

    labels = datasets.tissue((1, 1024, 1024)).read_labels()
    solidity = np.array([r.solidity for r in regionprops(labels) if r.area > 100])
    eccentricity = np.array([r.eccentricity for r in regionprops(labels) if r.area > 100])
    assert solidity.min() < 0.96
    assert eccentricity.std() > 0.08
    left, right = labels[:, :-1], labels[:, 1:]
    assert np.count_nonzero((left != right) & (left > 0) & (right > 0)) > 100


@pytest.mark.parametrize(("edge", "expected"), [(4096, 9_750), (8192, 39_100)])
def test_cell_counts_at_the_benchmarks_sizes(edge, expected):
    assert datasets.tissue((5, edge, edge)).n_cells == pytest.approx(expected, rel=0.01)


def test_sparse_ids_are_unique_and_large():
    grid = datasets.tissue((1, 1024, 1024))
    sparse = datasets.tissue((1, 1024, 1024), ids="sparse")
    small, large = grid.read_labels(), sparse.read_labels()
    assert small.dtype == np.uint32
    assert large.dtype == np.uint64
    pairs = np.unique(np.stack([small.ravel().astype(np.uint64), large.ravel()]), axis=1)
    ids = pairs[1][pairs[0] > 0]
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert len(ids) == sparse.n_cells
    assert ids.max() > 2**60
    assert ids.max() < 2**62
    assert pairs[1][pairs[0] == 0].tolist() == [0]


def test_images_are_never_constant_and_compress_little(whole):
    import numcodecs

    image = datasets.tissue((6, 512, 512)).read_image()
    for plane in image:
        assert plane.std() > 20
        tile = plane[:16, :16]
        assert tile.min() < tile.max()
    packed = len(numcodecs.Zstd(3).encode(image.tobytes()))
    assert 1.1 < image.nbytes / packed < 3


def test_types_of_cells_differ_in_their_markers():
    section = datasets.tissue((6, 1024, 1024))
    image, labels = section.read_image(), section.read_labels()
    n = int(labels.max()) + 1
    area = np.bincount(labels.ravel(), minlength=n)
    means = np.stack([np.bincount(labels.ravel(), p.ravel(), n) for p in image], 1)
    means = means[area > 0][1:] / area[area > 0][1:, None]
    for marker in means.T[1:]:
        assert marker.max() > 4 * marker.min()
    assert np.abs(np.corrcoef(means.T)[1:, 1:] - np.eye(5)).min() < 0.5


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32", "float64"])
def test_dtypes(dtype):
    image = datasets.tissue((2, 100, 100), dtype=dtype).read_image()
    assert image.dtype == dtype
    assert image.std() > 0
    if image.dtype.kind == "f":
        assert 0 <= image.min() < image.max() <= 1


def test_tissue_without_a_cell_is_background():
    section = datasets.tissue((1, 3, 2), seed=5)
    assert section.n_cells == 0
    assert not section.read_labels().any()
    assert section.read_image().min() > 0
    assert section.read_image((1, 1, 0, 2)).shape == (1, 0, 2)


def test_terapixel_tissue_is_computed_where_it_is_looked_at():
    section = datasets.tissue((1000, 10_000_000, 10_000_000))
    assert section.labels_dtype == np.uint64
    region = (9_999_000, 9_999_100, 9_999_000, 9_999_100)
    labels = section.read_labels(region)
    assert labels.max() > 2**32
    assert section.read_image(region, channels=[999]).shape == (1, 100, 100)
    assert section.channel_names[999] == "marker_999"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (4096, 4096)}, "shape"),
        ({"shape": (0, 10, 10)}, "at least 1"),
        ({"cell_radius": 2}, "cell_radius=2"),
        ({"cell_spacing": 10}, "cell_spacing / 1.5 = 6.66667"),
        ({"dtype": "int16"}, "uint8, uint16, uint32"),
        ({"ids": "random"}, "grid, sparse"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(InputError, match=words):
        datasets.tissue(**arguments)


def test_bad_regions_and_channels():
    with pytest.raises(InputError, match="does not lie in the image of 337 x 421"):
        SMALL.read_labels((0, 338, 0, 10))
    with pytest.raises(InputError, match="there are 3 channels"):
        SMALL.read_image(channels=[3])


def level(sdata, element: str, n: int):
    """Return one level of an element, which may have no pyramid."""
    node = sdata[element]
    return node[f"scale{n}"]["image"] if hasattr(node, "children") else node


@pytest.mark.parametrize("multiscale", [True, False])
def test_store_holds_the_same_pixels(tmp_path: Path, multiscale: bool):
    import spatialdata

    section = datasets.tissue((9, 1100, 1301), chunks=(2, 512, 600))
    path = section.write_store(tmp_path / "tissue.zarr", multiscale=multiscale, nuclei=True)
    assert [p.name for p in tmp_path.iterdir()] == ["tissue.zarr"]
    sdata = spatialdata.read_zarr(path)
    image = level(sdata, names.INPUT_IMAGE, 0)
    assert image.data.chunksize == (2, 512, 600)
    assert list(image.coords["c"].values) == section.channel_names
    assert np.array_equal(image.data.compute(), section.read_image())
    for element, expected in [
        (names.SEG_CYTOSOL, section.read_labels()),
        (names.SEG_NUCLEUS, section.read_nuclei()),
    ]:
        labels = level(sdata, element, 0)
        assert np.array_equal(labels.data.compute(), expected)
    assert hasattr(sdata[names.INPUT_IMAGE], "children") == multiscale
    with pytest.raises(InputError, match="exists already"):
        section.write_store(path)


def test_store_pyramid_is_made_of_means_and_of_every_other_label(tmp_path: Path):
    import spatialdata

    section = datasets.tissue((2, 1301, 1024), chunks=(1, 256, 256))
    sdata = spatialdata.read_zarr(section.write_store(tmp_path / "t.zarr"))
    coarse = level(sdata, names.INPUT_IMAGE, 1).data.compute()
    fine = section.read_image()
    even = fine[:, :1300].astype(np.float64).reshape(2, 650, 2, 512, 2)
    assert np.array_equal(coarse[:, :650], np.rint(even.mean((2, 4))))
    assert coarse.shape == (2, 651, 512)
    labels = level(sdata, names.SEG_CYTOSOL, 1).data.compute()
    assert np.array_equal(labels, section.read_labels()[::2, ::2])


def test_pixie_example():
    from spatialdata.transformations import get_transformation

    sdata = datasets.pixie_example()
    for k in range(2):
        image, labels = sdata[f"raw_image_fov{k}"], sdata[f"label_whole_fov{k}"]
        assert image.shape == (22, 512, 512)
        assert labels.shape == (512, 512)
        assert len(set(image.coords["c"].values)) == 22
        assert 400 < len(np.unique(labels)) - 1 < 700
        assert list(get_transformation(image, get_all=True)) == [f"fov{k}"]
        assert list(get_transformation(labels, get_all=True)) == [f"fov{k}"]
    first, second = (sdata[f"label_whole_fov{k}"].values for k in range(2))
    assert not np.array_equal(first, second)


def test_immunohistochemistry():
    image, labels, channels = datasets.immunohistochemistry()
    assert image.shape == (3, 512, 512)
    assert image.dtype == np.uint16
    assert channels == ["hematoxylin", "dab", "residual"]
    assert labels.dtype == np.uint32
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))
    areas = np.bincount(labels.ravel())[1:]
    assert 250 < len(areas) < 500
    assert 100 < np.median(areas) < 300
    # Nuclei are blue, and not brown.
    inside, outside = image[:, labels > 0].mean(1), image[:, labels == 0].mean(1)
    assert inside[0] > 1.8 * outside[0]
    assert all(plane.std() > 3000 for plane in image)


def test_demo_files_that_are_there_are_left_alone(tmp_path: Path):
    first = [path.stat() for path in datasets.demo_files(tmp_path)]
    again = [path.stat() for path in datasets.demo_files(tmp_path)]
    assert [(s.st_ino, s.st_mtime_ns) for s in first] == [(s.st_ino, s.st_mtime_ns) for s in again]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.ome.tif", "labels.tif"]


def test_demo_files(tmp_path: Path):
    from ome_types import from_xml

    image_file, labels_file = datasets.demo_files(tmp_path / "new" / "folder")
    image, labels, channels = datasets.immunohistochemistry()
    with tifffile.TiffFile(image_file) as file:
        assert np.array_equal(file.asarray(), image)
        pixels = from_xml(file.ome_metadata).images[0].pixels
    assert [channel.name for channel in pixels.channels] == channels
    assert (pixels.physical_size_x, pixels.physical_size_x_unit.value) == (0.45, "µm")
    assert np.array_equal(tifffile.imread(labels_file), labels)


def test_importing_is_cheap():
    code = (
        "import sys, scportrait_like.datasets\n"
        "heavy = {'numba', 'dask', 'spatialdata', 'skimage', 'zarr', 'pandas', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
