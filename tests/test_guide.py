"""The guide's code runs as it stands: all its blocks, one after the other, as one user's script."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scportrait_like import datasets

GUIDE = Path(__file__).parent.parent / "docs" / "guide.md"

LOAD = """
project.load_input_from_sdata(
    "tissue.zarr", "input_image", cytosol_segmentation_name="seg_all_cytosol"
)
"""
# What the text says of the results.
CHECK = """
assert set(table.layers) == {"var", "median", "q0.95"}
assert table.uns["X_statistic"] == "mean"
states = pd.read_parquet("my_project/extraction/data/ledger.parquet")["state"]
assert features.n_obs == (states == "written").sum() and "cytosol_area" in features.var_names
assert embedding.shape == (project.sdata["intensities"].n_obs, 5)
assert cells.X.sum() == cells.obs["pixels"].sum() > 0 and kinds.shape == (6, 4)
assert sdata["cluster_intensities"].obs["fov_labels"].nunique() == 2 and len(mapping) == 64
assert vectors.shape == (sdata["intensities"].n_obs, 22) and (vectors > 0).any()
assert first.shape == (10, 5, 1, 48, 48) and list(median.columns) == [0, 1, 2, 3, 4, "cell_ID"]
assert chosen["cell_ID"].tolist() == [7, 3]
assert mean["cell_ID"][0] == 0 and list(area.columns) == ["cell_ID", "shapeSize"]
fovs = sdata["intensities"].obs
assert fovs["fov_labels"].nunique() == 2 and "shapeSize" in fovs and "var_CD3" in fovs
assert "half_fov0" in sdata
pixels = image.compute().astype(float)
inside = mask.compute() == 7
row = spreads["cell_ID"] == 7
assert np.allclose(spreads.loc[row, 0], np.ptp(pixels[0][inside]))
assert np.allclose(powers.loc[row, 0], (pixels[0][inside] ** 2).mean())
bright = np.loadtxt("my_project/count_bright/data/bright.csv")
assert bright.tolist() == (pixels > 500).sum(axis=(1, 2)).tolist()
assert all(map(os.path.getsize, ["map.png", "distribution.png", "pixels.png"]))
assert all(status.state == "complete" for status in project.status())
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_every_block_runs(tmp_path: Path) -> None:
    datasets.tissue((5, 1024, 1024), seed=1).write_store(tmp_path / "tissue.zarr")
    aggregation, _, featurization, pixels, _, own_step = blocks("yaml")
    sections = f"{aggregation}{featurization}{pixels}{own_step}"
    config = f"HDF5CellExtraction:\n  image_size: 64\n{sections}"
    (tmp_path / "config.yml").write_text(config)
    script = ["import os\nimport numpy as np\n"]
    for number, block in enumerate(blocks("python")):
        if name := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / name[1]).write_text(block)
        else:
            script += [block, LOAD] if number == 0 else [block]
    (tmp_path / "script.py").write_text("".join([*script, CHECK]))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
