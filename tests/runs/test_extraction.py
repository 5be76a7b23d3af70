"""Extractions of small awkward inputs against the plain statement in `tests/oracle.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import oracle
import pytest

from scportrait_like import names
from scportrait_like.errors import InputError
from scportrait_like.io.ledger import read_ledger
from scportrait_like.raster import tiles

from .cases import Case, random_case
from .helpers import Array, project_of


def project_for(case: Case, folder: Path, **options: Any) -> Any:
    masks = dict(zip(("cytosol", "nucleus"), reversed(case.masks), strict=False))
    return project_of(
        folder,
        case.config,
        case.image,
        **masks,
        image_chunks=case.chunks["image"],
        mask_chunks=case.chunks["mask"],
        **options,
    )


def extract(case: Case, project: Any) -> Path:
    if case.pick is None:
        return Path(project.extract())
    return Path(project.extract(partial=True, n_cells=case.pick[0], seed=case.pick[1]))


def expected_of(case: Case) -> oracle.Expected:
    return oracle.extraction(
        case.image,
        case.masks,
        case.config["image_size"],
        quantiles=case.quantiles,
        border=case.config["border"],
        pick=case.pick,
    )


def read(path: Path) -> tuple[Array, Array]:
    with h5py.File(path) as file:
        return file["obs/scportrait_cell_id"][:], file["obsm/single_cell_images"][:]


def check(path: Path, expected: oracle.Expected, about: Any = None) -> None:
    ids, images = read(path)
    np.testing.assert_array_equal(ids, expected.ids, str(about))
    assert ids.dtype == np.uint64
    assert images.dtype == np.float16
    np.testing.assert_array_equal(images, expected.images, str(about))
    check_ledger(path.parent, expected, ids)


def check_ledger(output: Path, expected: oracle.Expected, written: Array) -> None:
    """Every id stands in the ledger once, and the output and the csv agree with it."""
    ledger = read_ledger(output / names.LEDGER_FILE)
    fates = {row.id: (row.state, row.reason) for row in ledger.itertuples()}
    assert len(ledger) == len(fates)
    assert fates == expected.fates
    assert set(written.tolist()) == {i for i, (state, _) in fates.items() if state == "written"}
    removed = (output / names.REMOVED_FILE).read_text().split()
    assert [int(line) for line in removed] == expected.removed
    unit = dict(zip(ledger.id, ledger.unit, strict=True))
    assert all(bool(unit[i]) == (state == "written") for i, (state, _) in fates.items())


def run_case(seed: int, folder: Path, patch: pytest.MonkeyPatch) -> None:
    case = random_case(seed)
    patch.setattr(tiles, "TILE_EDGE", case.tile)
    project = project_for(case, folder, executor="inline" if seed % 2 else "threads")
    check(extract(case, project), expected_of(case), {"seed": seed, **case.about})


@pytest.mark.parametrize("seed", range(20))
def test_random_input(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_case(seed, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 500, 50))
def test_many_random_inputs(start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(start, start + 50):
        run_case(seed, tmp_path / str(seed), monkeypatch)


def test_tiles_and_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(3)
    found = []
    for number, (tile, chunks) in enumerate([(2048, (256, 256)), (16, (16, 16)), (40, (10, 20))]):
        monkeypatch.setattr(tiles, "TILE_EDGE", tile)
        case.chunks = {"image": chunks, "mask": (chunks[1], chunks[0])}
        project = project_for(case, tmp_path / str(number))
        found.append(read(extract(case, project)))
        assert project.extraction_f.report.computed == 1 or number
    for ids, images in found[1:]:
        np.testing.assert_array_equal(ids, found[0][0])
        np.testing.assert_array_equal(images.view(np.uint16), found[0][1].view(np.uint16))


def simple(dtype: str = "uint16", edge: int = 96) -> Case:
    """Round cells on a grid, one channel."""
    yy, xx = np.mgrid[:edge, :edge]
    centre = (np.indices((edge, edge)) // 16) * 16 + 8
    inside = (yy - centre[0]) ** 2 + (xx - centre[1]) ** 2 <= 30
    mask = np.where(inside, (yy // 16) * 10 + xx // 16 + 1, 0).astype(np.uint32)
    image = np.random.default_rng(0).random((1, edge, edge))
    if np.dtype(dtype).kind != "f":
        image = image * 200
    config = {
        "image_size": 16,
        "normalize_output": True,
        "normalization_range": (0.01, 0.99),
        "border": "discard",
    }
    chunks = {"image": (32, 32), "mask": (64, 64)}
    return Case(image.astype(dtype), [mask], config, chunks, 32)


@pytest.fixture
def tiles_of_32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_EDGE", 32)


@pytest.mark.usefixtures("tiles_of_32")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("normalize", [True, False])
def test_pixels_that_are_no_numbers(tmp_path: Path, bad: float, normalize: bool) -> None:
    """One of them inside a cell, one beside it, one at the window's corner."""
    case = simple("float32")
    case.config.update(normalize_output=normalize, image_size=24)
    for y, x in ((40, 40), (56, 49), (30, 61)):
        case.image[0, y, x] = bad
    project = project_for(case, tmp_path)
    if not normalize:
        with pytest.raises(InputError, match=r"channel channel 0 holds (nan|-?inf) inside a cell"):
            extract(case, project)
        return
    with np.errstate(invalid="ignore"):
        expected = expected_of(case)
    assert np.isnan(expected.images).any() == np.isnan(bad)
    check(extract(case, project), expected)


def test_floats_out_of_range(tmp_path: Path) -> None:
    case = simple("float64")
    case.config["normalize_output"] = False
    case.image[0, 40, 40] = 1.5
    project = project_for(case, tmp_path)
    with pytest.raises(InputError, match=r"holds 1.5 inside a cell.*normalize_output: true"):
        extract(case, project)


def test_nothing_left(tmp_path: Path) -> None:
    """All cells are too near to the border: a file of no rows, and all of them accounted for."""
    case = simple(edge=48)
    case.config["image_size"] = 48
    path = extract(case, project_for(case, tmp_path))
    expected = expected_of(case)
    assert len(expected.ids) == 0
    check(path, expected)
    assert project_for(case, tmp_path / "again").filehandler.sdata


@pytest.mark.usefixtures("tiles_of_32")
def test_only_some_channels(tmp_path: Path) -> None:
    case = simple()
    case.image = np.concatenate([case.image, case.image // 2, case.image // 3])
    case.config["channels"] = ["channel 2", "channel 0"]
    path = extract(case, project_for(case, tmp_path))
    case.image = case.image[[2, 0]]
    check(path, expected_of(case))
