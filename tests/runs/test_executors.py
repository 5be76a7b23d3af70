"""Every executor, batch size and window gives the same bytes."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scportrait_like import names
from scportrait_like.errors import RunError
from scportrait_like.project import Project
from scportrait_like.raster import tiles

from .helpers import digests

pytestmark = pytest.mark.usefixtures("tiles_of_128")
CONFIG = {"image_size": 32, "threads": 2}


def loaded(folder: Path, store: Path, given: Executor | str | None = None, **config: Any) -> Any:
    project = Project(folder, {"HDF5CellExtraction": {**CONFIG, **config}}, executor=given)
    # A plain copy of chunks of 128: the loaders would join them.
    if not project.filehandler.path.exists():
        project.project_location.mkdir(parents=True, exist_ok=True)
        project.filehandler.path.symlink_to(store, target_is_directory=True)
    return project


def extracted(folder: Path, store: Path, given: Any = None, **config: Any) -> dict[str, str]:
    return digests(loaded(folder, store, given, **config).extract().parent)


@pytest.fixture(scope="module")
def expected(tissue_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_EDGE", 128)
        project = loaded(tmp_path_factory.mktemp("inline"), tissue_store, "inline")
        output = project.extract().parent
        assert project.extraction_f.report.computed > 20
        yield digests(output)


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_by_name(tissue_store: Path, tmp_path: Path, expected: Any, executor: str) -> None:
    project = loaded(tmp_path, tissue_store, executor=executor)
    assert digests(project.extract().parent) == expected
    assert project.extraction_f.report.executor == executor
    assert project.extraction_f.report.workers == 2
    assert extracted(tmp_path / "key", tissue_store, executor=executor) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"max_batch_size": 1},
        {"max_batch_size": 7, "flush_every": 1},
        {"max_inflight_result_batches": 1},
        {"threads": 1},
        {"flush_every": 3},
    ],
    ids=str,
)
def test_run_keys_change_no_byte(
    tissue_store: Path, tmp_path: Path, expected: Any, config: dict[str, Any]
) -> None:
    assert extracted(tmp_path, tissue_store, "threads", **config) == expected


def test_handed_in_threads(tissue_store: Path, tmp_path: Path, expected: Any) -> None:
    with ThreadPoolExecutor(3) as pool:
        project = loaded(tmp_path, tissue_store, pool)
        assert digests(project.extract().parent) == expected
        assert project.extraction_f.report.workers == 3
        assert pool.submit(int, "7").result() == 7, "it is still its owner's"


def test_handed_in_loky(tissue_store: Path, tmp_path: Path, expected: Any) -> None:
    from loky import get_reusable_executor

    pool = get_reusable_executor(2)
    try:
        assert extracted(tmp_path, tissue_store, pool) == expected
        assert pool.submit(int, "7").result() == 7
    finally:
        pool.shutdown(kill_workers=True)


def test_handed_in_spawned_processes(tissue_store: Path, tmp_path: Path, expected: Any) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        assert extracted(tmp_path, tissue_store, pool) == expected


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_dask_client(client: Any, tissue_store: Path, tmp_path: Path, expected: Any) -> None:
    active = loaded(tmp_path / "active", tissue_store)
    assert digests(active.extract().parent) == expected
    assert (active.extraction_f.report.executor, active.extraction_f.report.workers) == ("dask", 2)
    assert extracted(tmp_path / "name", tissue_store, "dask") == expected
    assert extracted(tmp_path / "executor", tissue_store, client.get_executor()) == expected
    assert sum(client.nthreads().values()) == 2, "it is still its owner's"
    pids = set(client.run(lambda: __import__("os").getpid()).values())
    # Another executor that is named goes before the active client.
    assert extracted(tmp_path / "threads", tissue_store, "threads") == expected
    assert len(pids) == 2


def test_a_worker_that_sees_no_files(client: Any, tissue_store: Path, tmp_path: Path) -> None:
    """Workers in another mount namespace: here, a run directory that they find gone."""
    from scportrait_like.run.plan import Unit
    from scportrait_like.run.runner import Orders, execute

    orders = Orders(tmp_path / "elsewhere", True, tmp_path / "elsewhere" / "mark", 10, 0, False)
    with pytest.raises(RunError, match="all workers must see it under the same path"):
        client.submit(execute, None, Unit("tile-000000"), orders).result()


@pytest.mark.slow
def test_dask_by_name_starts_a_cluster(tissue_store: Path, tmp_path: Path, expected: Any) -> None:
    assert extracted(tmp_path, tissue_store, "dask") == expected


def test_partial_runs_too(tissue_store: Path, tmp_path: Path) -> None:
    found = []
    for name in ("threads", "processes"):
        project = loaded(tmp_path / name, tissue_store, name)
        found.append(digests(project.extract(partial=True, n_cells=40, seed=1).parent))
        assert not (project.extraction_f.output_path / names.H5SC_FILE).exists()
    assert found[0] == found[1]


UNGUARDED = """
from scportrait_like.project import Project
from scportrait_like.raster import tiles
tiles.TILE_EDGE = 128
project = Project({folder!r}, {config!r})
project.extract()
print(project.extraction_f.report.executor)
"""


def test_a_script_needs_no_main_guard(tissue_store: Path, tmp_path: Path, expected: Any) -> None:
    """Worker processes do not run the script again."""
    project = loaded(tmp_path, tissue_store)
    section = {**CONFIG, "executor": "processes"}
    script = UNGUARDED.format(folder=str(tmp_path), config={"HDF5CellExtraction": section})
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["processes"]
    assert digests(project.extraction_f.output_path) == expected
