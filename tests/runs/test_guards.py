"""What must never happen: each of these once did."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

from scportrait_like import names
from scportrait_like.errors import ConfigError, DiskFullError, InputError, MissingInputError
from scportrait_like.filehandler import FileHandler
from scportrait_like.project import Project
from scportrait_like.raster.cell_plan import JOIN_CELLS, JOIN_PIXELS, box_pixels, plan_cells
from scportrait_like.raster.sources import DaskSource, SelectSource
from scportrait_like.raster.tiles import TileGrid
from scportrait_like.run.memory import MB, tree_memory
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.unitfile import UnitReader, UnitWriter
from scportrait_like.steps import HDF5CellExtraction
from scportrait_like.writing import writing


@pytest.fixture
def labels() -> np.ndarray[Any, Any]:
    mask = np.zeros((200, 200), np.uint16)
    for number, (y, x) in enumerate([(60, 60), (60, 140), (140, 60), (140, 140)], 1):
        mask[y - 5 : y + 6, x - 6 : x + 5] = number
    return mask


def make(folder: Path, labels: Any, **section: Any) -> Project:
    project = Project(folder, {"HDF5CellExtraction": {"image_size": 32, **section}}, overwrite=True)
    project.load_input_from_array(np.full((2, 200, 200), 7, np.uint16))
    project.load_labels(labels)
    return project


@pytest.mark.parametrize("content", ["", "{", ".", '{"units": ".", "run": "elsewhere"}'])
def test_a_damaged_note_of_the_cache_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    home = tmp_path / "home"
    (home / "thesis").mkdir(parents=True)
    (home / ".profile").write_text("mine")
    monkeypatch.chdir(home)
    run = RunDirectory(tmp_path / ".data.run")
    run.path.mkdir()
    (run.path / "units_path.json").write_text(content)
    run.clean()
    run.start({})
    run.remove()
    assert (home / "thesis").is_dir()
    assert (home / ".profile").read_text() == "mine"


def test_a_copied_folder_leaves_the_originals_units_alone(tmp_path: Path) -> None:
    original = RunDirectory(tmp_path / "a" / ".data.run")
    original.start({}, tmp_path / "cache" / "scportrait_like-1")
    unit = original.unit_file("tile-0")
    unit.write_text("finished")
    copy = RunDirectory(tmp_path / "b" / ".data.run")
    copy.path.mkdir(parents=True)
    note = "units_path.json"
    (copy.path / note).write_text((original.path / note).read_text())
    copy.remove()
    assert unit.read_text() == "finished"


def test_reading_a_large_unit_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "unit"
    with path.open("wb") as file:
        writer = UnitWriter(file)
        for number in range(8):
            writer.put(f"part {number}", np.full(30 * MB, number, np.uint8))
        writer.close()
    reader = UnitReader(path)
    before = tree_memory()
    first = reader["part 0"]
    for number in range(8):
        assert reader[f"part {number}"].max() == number
        assert tree_memory() - before < 50 * MB
    assert first.min() == first.max() == 0  # a view that was kept still shows its pixels


def test_joins_are_cut_by_pixels_too() -> None:
    grid = TileGrid((4000, 400_000), (2000, 2000))
    x = np.arange(300) * 1000
    corner = np.stack([np.full(300, 1900), x], axis=1)
    boxes = np.concatenate([corner, corner + 250], axis=1)
    plan = plan_cells(np.arange(300), corner, boxes, grid)
    joins = [slice(*unit.what["cells"]) for unit in plan.units if unit.stage == 1]
    pixels = [int(box_pixels(plan.arrays["border_box"][rows]).sum()) for rows in joins]
    assert len(joins) > 1
    assert sum(rows.stop - rows.start for rows in joins) == 300
    assert max(pixels) <= JOIN_PIXELS + 250 * 250
    assert all(rows.stop - rows.start <= JOIN_CELLS for rows in joins)


def test_a_refused_call_leaves_nothing_in_the_way(tmp_path: Path, labels: Any) -> None:
    project = make(tmp_path, labels, image_size=400)
    with pytest.raises(InputError, match="image_size: 400 is larger than the image"):
        project.extract()
    assert [status.state for status in project.status()] == ["absent"]
    corrected = make(tmp_path, labels)
    corrected.overwrite = False
    with pytest.raises(InputError, match="n_cells=1000000, but mask"):
        corrected.extract(partial=True, n_cells=10**6)
    with pytest.raises(InputError, match="seed -1 is not allowed"):
        corrected.extract(partial=True, n_cells=1, seed=-1)
    assert [status.state for status in corrected.status()] == ["absent"]
    corrected.extract(overwrite=False)
    assert len(corrected.h5sc) == 4


def test_channels_of_one_name_are_not_taken_for_each_other(tmp_path: Path, labels: Any) -> None:
    import spatialdata
    from spatialdata.models import Image2DModel, Labels2DModel

    pixels = np.stack([np.full((200, 200), value, np.uint16) for value in (1000, 30000)])
    image = Image2DModel.parse(pixels, c_coords=["a", "a"], scale_factors=[2])
    mask = Labels2DModel.parse(labels, scale_factors=[2])
    spatialdata.SpatialData.init_from_elements(
        {names.INPUT_IMAGE: image, names.SEG_CYTOSOL: mask}
    ).write(tmp_path / names.STORE)
    section = {"image_size": 32, "normalize_output": False}
    project = Project(tmp_path, {"HDF5CellExtraction": section})
    project.extract()
    centre = project.h5sc.obsm[names.IMAGES_KEY][0, :, 16, 16]
    assert centre[1:] == pytest.approx([1000 / 65535, 30000 / 65535], rel=1e-3)


@pytest.mark.parametrize("channels", [[], ["channel_0", "channel_0"]])
def test_channels_twice_or_none(tmp_path: Path, labels: Any, channels: list[str]) -> None:
    with pytest.raises(InputError, match="give each channel once, or leave the key out"):
        make(tmp_path, labels, channels=channels).extract()


def test_a_selection_decodes_chunks_of_several_channels_once() -> None:
    computed = []

    def note(block: Any) -> Any:
        computed.append(block.shape)
        return block

    pixels = np.arange(4 * 8 * 8).reshape(4, 8, 8)
    lazy = da.from_array(pixels, chunks=(4, 8, 8)).map_blocks(note, meta=np.empty((0, 0, 0), int))
    source = SelectSource(DaskSource(lazy), (3, 1, 0))
    assert source.chunks == (3, 8, 8)
    whole = (slice(0, 3), slice(2, 7), slice(0, 8))
    assert np.array_equal(source.read(whole), pixels[[3, 1, 0], 2:7])
    assert computed == [(4, 8, 8)]


def test_a_full_disk_has_no_room_for_the_locks_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *args: Any, **kwargs: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with writing(FileHandler(tmp_path / "p"), "a test"):
            pass
    with (
        pytest.raises(DiskFullError, match="no space left"),
        writing(FileHandler(tmp_path / "p"), "a test"),
    ):
        full(tmp_path)


class Needy(HDF5CellExtraction):
    """Reads the extraction."""

    folder = "needy"

    def needs(self) -> tuple[str, ...]:
        return ("HDF5CellExtraction",)


@pytest.fixture
def needy(tmp_path: Path, labels: Any) -> Project:
    section = {"image_size": 32}
    project = Project(
        tmp_path, {"HDF5CellExtraction": section, "Needy": section}, featurization_f=Needy
    )
    project.load_input_from_array(np.full((2, 200, 200), 7, np.uint16))
    project.load_labels(labels)
    return project


def test_no_steps_are_no_steps(needy: Project) -> None:
    needy.run([])
    assert {status.state for status in needy.status()} == {"absent"}


def test_a_missing_prerequisite_names_the_call(needy: Project) -> None:
    with pytest.raises(MissingInputError, match=r"needs HDF5CellExtraction, which is absent; run"):
        needy.run("Needy")
    needy.run()
    assert {status.state for status in needy.status()} == {"complete"}
    needy.run("Needy")


def test_an_interrupted_pick_names_its_own_call(tmp_path: Path, labels: Any) -> None:
    project = make(tmp_path, labels)
    step = project.extraction_f
    assert step is not None
    call = {"partial": True, "n_cells": 2, "seed": 3, "folder": None}
    output = step.output_name(call)
    RunDirectory(step.directory / f".{output}.run").start(step.fingerprint(call))
    said = step.how_to_go_on(output)
    assert "run project.extract(partial=True, n_cells=2, seed=3) again" in said


def test_a_cache_that_cannot_be_made(tmp_path: Path, labels: Any) -> None:
    project = make(tmp_path, labels, cache="/proc/nowhere/x")
    with pytest.raises(ConfigError, match=r"key cache: '/proc/nowhere/x' cannot be used"):
        project.extract()
    make(tmp_path, labels).extract()


def test_the_output_folder_by_its_own_name(tmp_path: Path, labels: Any) -> None:
    project = make(tmp_path, labels)
    first = project.extract()
    assert project.extract(output_folder_name="data", overwrite=False) == first
