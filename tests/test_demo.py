"""The demo, and real tissue through the command line: all cells accounted for, pictures there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from matplotlib.image import imread
from scipy import ndimage

from scportrait_like import datasets, names
from scportrait_like.io.ledger import read_ledger
from scportrait_like.project import Project

PROGRAM = str(Path(sys.executable).with_name("scportrait-like"))
DATA = Path(__file__).parent.parent.parent / "shared" / "data"
CODEX = "codex_intestine/R001_X003_Y004"
MEMBRANES = "labels_DeepCell-0.9.0_membrane"


def run(*words: str | Path) -> str:
    """Run a command as a user does, and return what it says."""
    line = [PROGRAM, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(line)}\n{done.stderr}"
    return done.stdout


def check_outputs(folder: Path, mask: np.ndarray) -> None:
    """Every id of the mask is in the ledger once, and the output agrees with it."""
    project = Project(folder)
    output = folder / names.EXTRACTION_DIR / names.EXTRACTION_DATA
    ledger = read_ledger(output / names.LEDGER_FILE)
    assert ledger["id"].tolist() == np.unique(mask[mask > 0]).tolist()
    assert set(ledger["state"].astype(str)) <= {"written", "dropped"}
    written = ledger.loc[ledger["state"] == "written", "id"]
    dropped = ledger.loc[ledger["state"] == "dropped", "id"]
    assert project.h5sc.obs[names.INSTANCE_KEY].tolist() == written.tolist()
    lines = (output / names.REMOVED_FILE).read_text().split()
    assert [int(line) for line in lines] == dropped.tolist()
    images = project.h5sc.obsm[names.IMAGES_KEY]
    assert images.shape[0] == len(written) > 0
    # Each cell's mask plane covers the cell itself.
    assert (np.stack([images[k, 0] for k in range(0, len(written), 50)]).max((1, 2)) > 0).all()


def check_intensities(folder: Path, image: np.ndarray, mask: np.ndarray) -> None:
    """The table has a row for every id of the mask, with the means that scipy finds."""
    table = Project(folder).sdata[names.INTENSITIES]
    ids = np.unique(mask[mask > 0])
    assert table.obs[names.INSTANCE_KEY].tolist() == ids.tolist()
    expected = np.stack([ndimage.mean(plane, mask, ids) for plane in image], axis=1)
    np.testing.assert_allclose(table.X, expected, rtol=1e-5)
    ledger = read_ledger(folder / names.AGGREGATION_DIR / "data" / names.LEDGER_FILE)
    assert ledger["id"].tolist() == ids.tolist()
    assert set(ledger["state"].astype(str)) == {"written"}


def check_pictures(folder: Path, expected: set[str]) -> None:
    """The pictures are there and hold more than a background."""
    found = {path.name: imread(path) for path in (folder / "report").glob("*.png")}
    assert set(found) == expected
    for name, picture in found.items():
        assert min(picture.shape[:2]) > 200, name
        assert picture[..., :3].std() > 0.1, name


SMALL = {
    "input_image.png",
    "masks.png",
    "single_cells_data.png",
    "map_intensities.png",
    "distribution_intensities.png",
    "distribution_features.png",
    "components_features.png",
    "pixel_metaclusters_cells.png",
    "pixel_metaclusters_map.png",
    "pixel_metaclusters_heatmap.png",
    "pixel_metaclusters_som.png",
}
MIDDLE = SMALL | {"input_detail.png"}  # a page shows every pixel of the map
LARGE = MIDDLE | {"pixel_metaclusters_detail.png"}


def test_demo_runs_and_runs_again(tmp_path: Path) -> None:
    folder = tmp_path / "demo_project"
    said = run("demo", folder)
    for command in ("new", "load", "run", "status", "report"):
        assert f"\n$ scportrait-like {command} {folder}" in said
    image, mask, _ = datasets.immunohistochemistry()
    check_outputs(folder, mask)
    check_intensities(folder, image, mask)
    check_pictures(folder, SMALL)
    pictures, table = said.split("Look at the pictures:")[1].strip().split("\n\n")
    for line in pictures.splitlines():
        assert Path(line.split(": ")[0].strip()).is_file()
    place, head, first, *_, layers = table.splitlines()
    assert place.startswith(f"The mean intensities, {len(np.unique(mask)) - 1} cells x 3 channels")
    assert str(folder / names.STORE) in place
    assert head.split() == ["hematoxylin", "dab", "residual"]
    means = [plane[mask == 1].mean() for plane in image]
    assert [float(value) for value in first.split()[1:]] == pytest.approx(means, abs=0.05)
    assert layers == "Its layers: median, q0.95"
    # Nothing is lost at the border of a small section.
    assert len(Project(folder).h5sc) == len(np.unique(mask)) - 1
    first = (folder / "extraction" / "data" / names.H5SC_FILE).stat()
    said_again = run("demo", folder)
    assert said_again.endswith(table + "\n")
    again = (folder / "extraction" / "data" / names.H5SC_FILE).stat()
    assert (first.st_ino, first.st_mtime_ns) == (again.st_ino, again.st_mtime_ns)
    assert "nothing to do" in (folder / "processing.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "labels", "size", "kind", "pictures"),
    [
        (f"{CODEX}_image.ome.tif", f"{CODEX}_{MEMBRANES}.tif", 48, "cytosol", LARGE),
        (f"{CODEX}_image.ome.tif", f"{CODEX}_labels_expert1.tif", 64, "nucleus", LARGE),
        ("imc_spleen/r2_image.ome.tif", "imc_spleen/r2_labels.tif", 32, "cytosol", MIDDLE),
        ("imc_spleen/r8_image.ome.tif", "imc_spleen/r8_labels.tif", 32, "cytosol", MIDDLE),
    ],
)
def test_real_tissue(
    image: str, labels: str, size: int, kind: str, pictures: set[str], tmp_path: Path
) -> None:
    if not (DATA / image).exists():
        pytest.skip(f"{DATA / image} is not here")
    folder = tmp_path / "project"
    run("new", folder)
    config = folder / "config.yml"
    config.write_text(config.read_text().replace("image_size: 128", f"image_size: {size}"))
    said = run("load", folder, "--image", DATA / image, "--labels", DATA / labels, "--kind", kind)
    assert f"seg_all_{kind}" in said
    run("run", folder)
    assert "complete" in run("status", folder)
    run("report", folder)
    check_outputs(folder, tifffile.imread(DATA / labels))
    check_intensities(folder, tifffile.imread(DATA / image), tifffile.imread(DATA / labels))
    check_pictures(folder, pictures)
