"""Featurizations by every executor, number of workers and size of batches: the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scportrait_like.project import Project
from scportrait_like.raster import featurizing, tiles

from .featurizing import EXTRACTION, HERE, STEP, feature_digests, section

MODELS = {
    "statistics": {"model": "intensity_statistics"},
    "own": {"model": f"{HERE}:channel_maxima", "embedding_dimension": 3, "batch_size": 5},
}
SOURCES = {"images": section(), "extraction": {}}


@pytest.fixture(autouse=True, scope="module")
def small_units() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_EDGE", 128)
        patch.setattr(featurizing, "UNIT_ROWS", 20)
        patch.setattr(featurizing, "_SMALLEST_UNIT", 20)
        yield


def project_in(folder: Path, store: Path, given: dict[str, Any], executor: Any = None) -> Project:
    """A project with the store as it is: chunks of 128, where the loaders would join them."""
    extraction = {"image_size": 24, "executor": "inline"}
    project = Project(folder, {EXTRACTION: extraction, STEP: given}, executor=executor)
    shutil.copytree(store, project.filehandler.path)
    if given.get("source") != "images":
        project.extract()
    return project


def featurized(folder: Path, store: Path, given: Any, executor: Any = None) -> dict[str, str]:
    project_in(folder, store, given, executor).featurize()
    return feature_digests(folder)


@pytest.fixture(scope="module")
def expected(tissue_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = {}
    for source, keys in SOURCES.items():
        for model, more in MODELS.items():
            folder = tmp_path_factory.mktemp(source) / model
            found[source, model] = featurized(folder, tissue_store, keys | more, "inline")
    return found


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "run",
    [
        {"executor": "threads", "threads": 2},
        pytest.param({"executor": "processes", "threads": 2}, marks=pytest.mark.slow),
        {"executor": "inline", "max_batch_size": 1},
        pytest.param({"memory_limit": "900MB", "flush_every": 3}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_same_bits(
    tmp_path: Path, tissue_store: Path, expected: Any, source: str, model: str, run: dict[str, Any]
) -> None:
    given = SOURCES[source] | MODELS[model] | run
    project = project_in(tmp_path / "p", tissue_store, given)
    project.featurize()
    report = project.featurization_f.report
    assert report.computed > 10
    assert report.executor == run.get("executor", "threads")
    assert feature_digests(tmp_path / "p") == expected[source, model]


def test_processes(tmp_path: Path, tissue_store: Path, expected: Any) -> None:
    """They find the user's model by its name."""
    given = MODELS["own"] | {"executor": "processes", "threads": 2}
    assert featurized(tmp_path, tissue_store, given) == expected["extraction", "own"]


def test_a_cache_elsewhere(tmp_path: Path, tissue_store: Path, expected: Any) -> None:
    given = section(cache=str(tmp_path / "cache"), **MODELS["own"])
    assert featurized(tmp_path / "p", tissue_store, given) == expected["images", "own"]
    assert list((tmp_path / "cache").iterdir()) == []


def test_handed_in_threads(tmp_path: Path, tissue_store: Path, expected: Any) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = featurized(tmp_path / "p", tissue_store, MODELS["statistics"], pool)
        assert found == expected["extraction", "statistics"]
        assert pool.submit(int, "7").result() == 7, "it is still its owner's"


@pytest.mark.slow
def test_dask_client(tmp_path: Path, tissue_store: Path, expected: Any) -> None:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster):
        for source, keys in SOURCES.items():
            given = keys | MODELS["statistics"]
            found = featurized(tmp_path / source, tissue_store, given)
            assert found == expected[source, "statistics"]
