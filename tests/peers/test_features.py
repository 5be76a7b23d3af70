"""The features of scPortrait 1.8.0 and of this package, of the same pictures.

Each extraction, ours and scPortrait's own, is featurized by both: here through the section of an
old config, or through ours, and by scPortrait's Project on a copy of the folder. There our table is
already in the store, so its reader shows it too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

import scportrait_like as sl

from .conftest import CASES, CYTOSOL, NUCLEUS, Made

pytestmark = pytest.mark.peers

Table = dict[str, Any]

# Of an old config file; our own step does what it asks for.
OLD = {
    "CellFeaturizer": {
        "batch_size": 900,
        "dataloader_worker_number": 0,
        "inference_device": "cpu",
        "label": "all_channels",
    }
}
OURS = {"Featurization": {"model": "intensity_statistics", "source": "extraction"}}
SECTIONS = {"theirs": OLD, "ours": OURS}
KINDS = {NUCLEUS: "nucleus", CYTOSOL: "cytosol"}
ALL_ROWS = 10**6

both_files = pytest.mark.parametrize("whose", SECTIONS)
some_cases = pytest.mark.parametrize(
    "case", ["two masks", "nucleus, wide range", "cytosol, gzip", "partial"]
)


@dataclass(frozen=True)
class Found:
    """The tables of a project, as scPortrait's Project reads them from the store.

    Attributes
    ----------
    mine
        What our step made.
    peers
        What scPortrait made of the same file, by kind of mask.
    written
        Values of our table, as they were written.
    """

    mine: Table
    peers: dict[str, Table]
    written: NDArray[np.float32]


Finder = Callable[[str, str], Found]


@pytest.fixture(scope="module")
def featurized(
    ours: Callable[[str], Made],
    theirs: Callable[[str], Made],
    run_peer: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Finder:
    """Features of a case's file, made by both programs, once."""

    @cache
    def find(case: str, whose: str) -> Found:
        made = {"ours": ours, "theirs": theirs}[whose](case)
        folder = tmp_path_factory.mktemp("features") / "project"
        shutil.copytree(made.project, folder)
        project = _featurize(folder, whose, CASES[case].n_cells)
        (name,) = project.sdata.tables
        found = run_peer(
            "read_with_scportrait.py",
            *(folder / made.h5sc.relative_to(made.project), "--project", folder),
            *("--only", "project", "--rows", ALL_ROWS),
        )
        tables = found["project"]["tables"]
        return Found(
            tables.pop(name),
            {label.removeprefix("peer_"): table for label, table in tables.items()},
            project.sdata[name].X,
        )

    return find


def _featurize(folder: Path, whose: str, n_cells: int | None) -> sl.Project:
    config = folder / "config.yml"
    sections = yaml.safe_load(config.read_text()) | SECTIONS[whose]
    config.write_text(yaml.safe_dump(sections))
    project = sl.Project(folder)
    if n_cells is None:
        project.featurize()
    else:
        project.featurize(n_cells=n_cells, data_type="partial", partial_seed=42)
    return project


def _values(table: Table, key: str = "first_rows") -> NDArray[np.float64]:
    """Numbers of a table from JSON, where NaN is a text."""
    return np.array(table[key], dtype=object).astype(np.float64)


@both_files
@some_cases
def test_features_are_those_of_scportrait(case: str, whose: str, featurized: Finder) -> None:
    found = featurized(case, whose)
    kinds = [KINDS[mask] for mask in CASES[case].masks]
    assert sorted(found.peers) == sorted(kinds)
    mine, values = found.mine, _values(found.mine)
    for peer in found.peers.values():
        assert mine["ids"] == peer["ids"]
        assert mine["columns"] == peer["columns"]
        assert values.shape == tuple(peer["shape"])
        np.testing.assert_allclose(values, _values(peer), rtol=1e-5, atol=0, equal_nan=True)
    assert len(values) > 20
    assert mine["columns"][0] == f"{kinds[0]}_area"
    assert np.nanmin(np.nanmax(values, axis=0)) > 0
    # The two masks of some cells are equal: no pixel lies in one of them only, so there is no mean.
    assert np.isnan(values).any() == (len(kinds) == 2)


@both_files
@some_cases
def test_scportrait_reads_our_table(case: str, whose: str, featurized: Finder) -> None:
    found = featurized(case, whose)
    np.testing.assert_array_equal(_values(found.mine), found.written)
    assert found.mine["dtype"] == "float32"
    # It annotates the mask that the pictures were cut with, as one of scPortrait's tables does.
    peer = found.peers[KINDS[CASES[case].masks[-1]]]
    region = CASES[case].masks[-1]
    assert peer["attrs"]["region"] in (region, [region])
    assert found.mine["attrs"] == {
        "region": region,
        "region_key": "region",
        "instance_key": "scportrait_cell_id",
    }
    assert set(peer["obs"]) <= set(found.mine["obs"])
    np.testing.assert_allclose(
        _values(found.mine, "spatial"), _values(peer, "spatial"), rtol=0, atol=1e-3
    )
