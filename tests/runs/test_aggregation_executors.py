"""Aggregations by every executor and number of workers: the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scportrait_like.project import Project
from scportrait_like.raster import tiles

from .helpers import aggregation_digests

pytestmark = pytest.mark.usefixtures("tiles_of_128")
# All measures, and quantiles of cells that cross tiles.
CONFIG = {"statistics": ["mean", "var", "skew", "kurtosis", "min", "max", "sum", "median", "q0.9"]}


def loaded(folder: Path, store: Path, given: Any = None, **config: Any) -> Project:
    """A project with the store as it is: chunks of 128, where the loaders would join them."""
    project = Project(folder, {"Aggregation": {**CONFIG, **config}}, executor=given)
    project.project_location.mkdir(parents=True, exist_ok=True)
    shutil.copytree(store, project.filehandler.path)
    return project


def aggregated(folder: Path, store: Path, given: Any = None, **config: Any) -> dict[str, str]:
    loaded(folder, store, given, **config).aggregate()
    return aggregation_digests(folder)


@pytest.fixture(scope="module")
def expected(tissue_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("inline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_EDGE", 128)
        project = loaded(folder, tissue_store, "inline")
        project.aggregate()
        assert project.aggregation_f.report.computed > 25
        assert project.aggregation_f.report.executor == "inline"
        yield aggregation_digests(folder)


@pytest.mark.parametrize(
    ("executor", "threads"),
    [
        ("threads", 1),
        ("threads", 2),
        ("processes", 2),
        pytest.param("processes", 1, marks=pytest.mark.slow),
    ],
)
def test_by_name(
    tissue_store: Path, tmp_path: Path, expected: Any, executor: str, threads: int
) -> None:
    project = loaded(tmp_path, tissue_store, executor=executor, threads=threads)
    project.aggregate()
    assert project.aggregation_f.report.executor == executor
    assert project.aggregation_f.report.workers == threads
    assert aggregation_digests(tmp_path) == expected


def test_threads_by_default(tissue_store: Path, tmp_path: Path, expected: Any) -> None:
    project = loaded(tmp_path, tissue_store)
    project.aggregate()
    assert project.aggregation_f.report.executor == "threads"
    assert aggregation_digests(tmp_path) == expected


@pytest.mark.parametrize(
    "config",
    [{"max_batch_size": 1}, {"max_inflight_result_batches": 1}, {"flush_every": 3}],
    ids=str,
)
def test_run_keys_change_no_bit(
    tissue_store: Path, tmp_path: Path, expected: Any, config: dict[str, Any]
) -> None:
    assert aggregated(tmp_path, tissue_store, **config) == expected


def test_a_cache_elsewhere(tissue_store: Path, tmp_path: Path, expected: Any) -> None:
    cache = tmp_path / "cache"
    assert aggregated(tmp_path / "project", tissue_store, cache=str(cache)) == expected
    assert list(cache.iterdir()) == []


def test_handed_in_threads(tissue_store: Path, tmp_path: Path, expected: Any) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert aggregated(tmp_path, tissue_store, pool) == expected
        assert pool.submit(int, "7").result() == 7, "it is still its owner's"


def test_dask_client(tissue_store: Path, tmp_path: Path, expected: Any) -> None:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        active = loaded(tmp_path / "active", tissue_store)
        active.aggregate()
        report = active.aggregation_f.report
        assert (report.executor, report.workers) == ("dask", 2)
        assert aggregation_digests(tmp_path / "active") == expected
        assert aggregated(tmp_path / "name", tissue_store, "dask") == expected
        assert sum(client.nthreads().values()) == 2, "it is still its owner's"
