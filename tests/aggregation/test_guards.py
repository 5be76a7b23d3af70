"""What an aggregation must survive: many tiles, labels of very different sizes, odd dtypes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import dask.array as da
import numpy as np
import pytest

from scportrait_like.errors import ConfigError, InputError
from scportrait_like.project import Project
from scportrait_like.raster import aggregation, sources
from scportrait_like.raster.aggregate import aggregate
from scportrait_like.raster.ranks import padded_batches
from scportrait_like.raster.reading import Reading
from scportrait_like.raster.sources import ArraySource, SelectSource, ZarrSource, source_of
from scportrait_like.raster.statistics import Measure, Statistic
from scportrait_like.raster.tiles import TileGrid
from scportrait_like.utils import RasterAggregator

Array = np.ndarray[Any, Any]

FEW_FILES = """
import resource
import numpy as np
from scportrait_like.raster import tiles
from scportrait_like.raster.aggregate import aggregate
from scportrait_like.raster.sources import ArraySource

tiles.TILE_EDGE = 8
labels = (np.indices((160, 160)).sum(axis=0) // 3).astype(np.uint32)  # many cross tiles
image = np.arange(160 * 160, dtype=np.uint16).reshape(1, 160, 160)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 4096))  # of 400 tiles
found = aggregate(ArraySource(labels), ArraySource(image), ["mean", "median"])
print(len(found.ids), int(found.count.sum()))
"""


def test_open_files_do_not_grow_with_tiles() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["107", "25600"]


def test_rows_of_unequal_labels_are_bounded() -> None:
    """One large label among many of a pixel: as rows of one length they would take gigabytes."""
    area = np.sort(np.concatenate([np.ones(60_000, np.int64), [60_000]]))
    taken = [int(area[part].max() * len(area[part])) for part in padded_batches(area, 1 << 17)]
    assert max(taken) <= 1 << 17
    covered = np.concatenate([area[part] for part in padded_batches(area, 1 << 17)])
    np.testing.assert_array_equal(covered, area)


@pytest.mark.parametrize("dtype", ["float16", ">u2", ">f4", ">i8", "bool"])
def test_dtypes_that_kernels_do_not_have(dtype: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (1, 30, 40)).astype(np.uint8)
    image = rng.integers(0, 2, (2, 1, 30, 40)).astype(dtype)
    names = ("sum", "var", "max", "median")
    frames = RasterAggregator(da.from_array(labels), da.from_array(image)).aggregate_stats(names)
    for name, frame in zip(names, frames, strict=True):
        for label, row in zip(frame["cell_ID"], frame[[0, 1]].to_numpy(), strict=True):
            pixels = image[:, labels == label].astype(np.float64)
            np.testing.assert_allclose(row, getattr(np, name)(pixels, axis=1), rtol=1e-12)


def test_values_of_a_step_with_half_floats(project: Project, labels: Array, image: Array) -> None:
    pixels = (image / 65536).astype(np.float16)
    project = Project(project.project_location, {"Aggregation": {}}, overwrite=True)
    project.load_input_from_array(pixels, ["a", "b", "c"])
    project.load_labels(labels)
    project.aggregate()
    found = project.sdata["intensities"]
    label = int(found.obs["scportrait_cell_id"].iloc[5])
    expected = pixels[:, labels == label].astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(found.X[5], expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("section", "error", "told"),
    [
        ({"table_name": "my table"}, InputError, "my table"),
        ({"table_name": "input_image"}, InputError, "images"),
        ({"table_name": "Intensities", "statistics": ["mean"]}, InputError, "upper case"),
        ({"region_key": "area"}, InputError, "area"),
        ({"instance_key": "my id"}, InputError, "my id"),
        ({"name": "../stray"}, ConfigError, "plain name"),
    ],
)
def test_wrong_names_are_refused_before_any_work(
    project: Project,
    labels: Array,
    image: Array,
    section: dict[str, Any],
    error: type[Exception],
    told: str,
) -> None:
    folder = project.project_location
    first = Project(folder, {"Aggregation": {}}, overwrite=True)
    first.load_input_from_array(image, ["a", "b", "c"])
    first.load_labels(labels)
    first.aggregate()
    with pytest.raises(error, match=told):
        Project(folder, {"Aggregation": section}, overwrite=True).aggregate()
    assert not list((folder / "aggregation").glob(".*.run"))
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        ".index",
        "aggregation",
        "scportrait.sdata",
    ]


def test_sections_do_not_share_a_table(project: Project) -> None:
    parts = [{"name": "a", "table_name": "one"}, {"name": "b", "table_name": "one"}]
    with pytest.raises(ConfigError, match="would both write table one"):
        Project(project.project_location, {"Aggregation": parts}, overwrite=True)


def test_a_table_taken_away_needs_no_permission(
    project: Project, labels: Array, image: Array
) -> None:
    project = Project(project.project_location, {"Aggregation": {}}, overwrite=True)
    project.load_input_from_array(image, ["a", "b", "c"])
    project.load_labels(labels)
    project.aggregate()
    project.filehandler.delete_element("intensities")
    step = project.aggregation_f
    assert step is not None
    assert step.how_to_go_on("data") == "run project.aggregate()"


def test_channels_that_share_chunks_are_read_once(tmp_path: Any, labels: Array) -> None:
    """Also where the config names them in another order, and some only."""
    image = np.random.default_rng(1).integers(0, 99, (6, *labels.shape)).astype(np.uint8)
    project = Project(tmp_path / "p", {"Aggregation": {"channels": ["c4", "c0", "c5", "c1"]}})
    from tests.runs.helpers import write_raster

    (tmp_path / "p").mkdir(exist_ok=True)
    write_raster(tmp_path / "p", "input_image", image, (2, 300, 420))
    store = project.filehandler
    names = store.channel_names("input_image")
    wanted = [names[4], names[0], names[5], names[1]]
    project = Project(tmp_path / "p", {"Aggregation": {"channels": wanted}}, overwrite=True)
    project.load_labels(labels)
    project.aggregate()
    report = project.aggregation_f.report  # type: ignore[union-attr]
    assert report is not None
    assert report.parts["chunks"] == 3  # two of the image's three, and the mask
    table = project.sdata["intensities"]
    assert list(table.var_names) == wanted
    label = int(table.obs["scportrait_cell_id"].iloc[3])
    means = image[[4, 0, 5, 1]][:, labels == label].mean(axis=1)
    np.testing.assert_allclose(table.X[3], means, rtol=1e-13)


def test_selected_channels_are_read_by_chunk(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zarr

    pixels = np.random.default_rng(2).integers(0, 99, (40, 8, 9)).astype(np.uint8)
    array = zarr.create_array(tmp_path / "a", shape=pixels.shape, chunks=(10, 8, 9), dtype="u1")
    array[:] = pixels
    read: list[slice] = []
    plain = ZarrSource.read

    def noting(self: ZarrSource, region: Any) -> Array:
        read.append(region[0])
        return plain(self, region)

    monkeypatch.setattr(sources.ZarrSource, "read", noting)
    chosen = SelectSource(ZarrSource.open(tmp_path / "a"), (39, 0, 35))
    found = chosen.read((slice(0, 3), slice(1, 5), slice(0, 9)))
    np.testing.assert_array_equal(found, pixels[[39, 0, 35], 1:5])
    assert sum(part.stop - part.start for part in read) == 1 + 5


def test_chunks_are_freed_before_the_next_ones_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of channels that share chunks one group is held, never two."""
    import weakref

    alive: list[weakref.ref[Array]] = []
    held: list[int] = []
    read = Reading.read

    def noting(self: Reading, source: Any, region: Any) -> Array:
        held.append(sum(one() is not None for one in alive))
        pixels = read(self, source, region).copy()
        if pixels.ndim == 3:
            alive.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(aggregation.Reading, "read", noting)
    labels = np.ones((30, 30), np.uint8)
    image = da.from_array(np.zeros((6, 30, 30), np.uint8), (2, 30, 30)) + 1
    aggregate(ArraySource(labels), source_of(image), ["mean"], executor="inline")
    assert held == [0, 0, 0, 0]


def test_entries_that_cannot_work_are_refused() -> None:
    def take(vectors: Any) -> Array:
        return vectors.floats[:, None]

    with pytest.raises(InputError, match="cannot name a measure"):
        Measure("ranks", 1, take, lambda a, b, *_: a + b)
    with pytest.raises(InputError, match="for each channel"):
        Statistic((Measure("own", 1, take, lambda a, b, *_: a + b),), len, per_channel=False)  # type: ignore[arg-type]


def test_chunks_that_do_not_fit_cost_the_mask_not_the_image() -> None:
    from scportrait_like.raster.aggregate import aggregation_grid

    class Chunked(ArraySource):
        def __init__(self, array: Array, edges: tuple[int, ...]) -> None:
            super().__init__(array)
            object.__setattr__(self, "edges", edges)

        @property
        def chunks(self) -> tuple[int, ...]:
            return self.edges  # type: ignore[attr-defined,no-any-return]

    labels = Chunked(np.empty((9000, 9000), np.uint8), (1024, 1024))
    image = Chunked(np.empty((2, 9000, 9000), np.uint8), (1, 1000, 1000))
    assert aggregation_grid(labels, image) == TileGrid((9000, 9000), (2000, 2000))


@pytest.mark.parametrize("corner", [(0, 0), (7, 0), (16, 21), (5, 13), (50, 57), (31, 69)])
def test_a_view_decodes_each_chunk_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, corner: tuple[int, int]
) -> None:
    """Also where it begins inside a chunk: tiles follow the chunks of the image."""
    import zarr

    from scportrait_like.raster import tiles

    monkeypatch.setattr(tiles, "TILE_EDGE", 16)
    rng = np.random.default_rng(3)
    whole = rng.integers(0, 999, (2, 60, 70)).astype(np.uint16)
    array = zarr.create_array(tmp_path / "a", shape=whole.shape, chunks=(1, 16, 16), dtype="u2")
    array[:] = whole
    y, x = corner
    labels = rng.integers(0, 9, (60 - y, 70 - x)).astype(np.uint8)
    image = source_of(da.from_zarr(array)[:, y:, x:])
    found = aggregate(ArraySource(labels), image, ["mean", "median"])
    touched = (-(-60 // 16) - y // 16) * (-(-70 // 16) - x // 16)
    assert found.report is not None
    assert found.report.parts["chunks"] >= 2 * touched
    read = found.report.parts["chunks"] - labels.size  # pixels of an array are their own chunks
    assert read == 2 * touched
    for label in range(9):
        pixels = whole[:, y:, x:][:, labels == label].astype(np.float64)
        np.testing.assert_allclose(found.values["mean"][label], pixels.mean(axis=1), rtol=1e-13)
        np.testing.assert_array_equal(found.values["median"][label], np.median(pixels, axis=1))
