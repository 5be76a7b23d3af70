"""A wheel built from the checkout, installed elsewhere, works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SCRIPT = """
import sys
import numpy as np
import scportrait_like
from scportrait_like import Project
from scportrait_like.steps import HDF5CellExtraction
assert {site!r} in scportrait_like.__file__, scportrait_like.__file__
assert {site!r} in sys.modules[HDF5CellExtraction.__module__].__file__
labels = np.zeros((128, 128), np.uint16)
labels[40:60, 50:70] = 7
project = Project({folder!r}, {{"HDF5CellExtraction": {{"image_size": 32, "threads": 2}}}},
                  executor="processes")
project.load_input_from_array(np.random.default_rng(0).integers(0, 999, (2, 128, 128), np.uint16))
project.load_labels(labels)
project.extract()
assert project.h5sc.obs["scportrait_cell_id"].tolist() == [7]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the wheel unpacked, as pip lays it out; its dependencies come from here."""
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: setuptools keeps a build folder, and what was removed since would linger in it.
    source = folder / "source"
    source.mkdir()
    for name in ("scportrait_like", "steps", "project_templates"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
    return target


def test_wheel_holds_steps_and_templates(site: Path) -> None:
    (wheel,) = site.parent.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "scportrait_like/steps/extraction.py",
        "scportrait_like/project_templates/default/config.yml",
        "scportrait_like/project_templates/default/run.py",
        "scportrait_like/project_templates/demo/config.yml",
        "scportrait_like/report_template.html",
        "scportrait_like/py.typed",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "steps/", "benchmarks/"))]


def run_elsewhere(site: Path, cwd: Path, arguments: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        arguments, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_installed_wheel_extracts_with_worker_processes(site: Path, tmp_path: Path) -> None:
    script = SCRIPT.format(site=str(site), folder=str(tmp_path / "project"))
    run_elsewhere(site, tmp_path, [sys.executable, "-c", script])


def test_the_installed_command_line_works(site: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(site / "bin" / "scportrait-like")]
    assert "default" in run_elsewhere(site, tmp_path, [*command, "templates"])
    run_elsewhere(site, tmp_path, [*command, "new", "project"])
    assert (tmp_path / "project" / "config.yml").is_file()
