"""An `.h5sc` file of ours, opened by an h5py of 2024 with its own HDF5 1.14."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scportrait_like import names
from scportrait_like.project import Project

pytestmark = pytest.mark.peers

READ = """
import sys, h5py, numpy as np
assert h5py.__version__.startswith("3.11"), h5py.__version__
assert h5py.version.hdf5_version.startswith("1.14"), h5py.version.hdf5_version
with h5py.File(sys.argv[1], "r") as file:
    print(file.attrs["encoding-type"], file["uns/single_cell_images/compression"].asstr()[()])
    np.savez(
        sys.argv[2],
        images=file["obsm/single_cell_images"][:],
        ids=file["obs/scportrait_cell_id"][:],
        names=file["var/channels"].asstr()[:].astype("U"),
    )
"""


@pytest.fixture(scope="session")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own."""
    folder = tmp_path_factory.mktemp("old_h5py")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    wanted = ["h5py==3.11.*", "numpy<2.3"]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


@pytest.mark.parametrize("codec", ["lzf", "gzip", False])
def test_read_by_hdf5_1_14(
    old_python: Path, loaded: Project, tmp_path: Path, codec: str | bool
) -> None:
    config = {"HDF5CellExtraction": {"image_size": 32, "compression": codec}}
    path = Project(loaded.project_location, config, overwrite=True).extract()
    read = subprocess.run(
        [str(old_python), "-c", READ, str(path), str(tmp_path / "read.npz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.returncode == 0, read.stderr
    assert read.stdout.split() == ["anndata", codec or "None"]
    ours = loaded.h5sc
    with np.load(tmp_path / "read.npz") as theirs:
        np.testing.assert_array_equal(theirs["images"], ours.obsm[names.IMAGES_KEY][:])
        np.testing.assert_array_equal(theirs["ids"], ours.obs[names.INSTANCE_KEY])
        assert theirs["names"].tolist() == ours.var["channels"].tolist()
