"""As a script: load, extract if that is asked for, and featurize; to be killed."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from scportrait_like.io import copying
from scportrait_like.project import Project
from scportrait_like.raster import featurizing, tiles


def work(folder: Path, store: Path, tile: int, config: dict[str, Any]) -> Any:
    """A user's script: the same each time, whether the last one was killed or not."""
    # Small chunks, tiles and units make many units of a small image.
    tiles.TILE_EDGE = tile
    copying.store_chunk = partial(copying.store_chunk, largest=tile)
    featurizing.UNIT_ROWS, featurizing._SMALLEST_UNIT = 3, 1
    extraction = {"image_size": 32, "executor": "inline"}
    project = Project(folder, {"HDF5CellExtraction": extraction, "Featurization": config})
    project.load_input_from_sdata(store, "input_image", "seg_all_nucleus", "seg_all_cytosol")
    if config.get("source") != "images":
        project.extract()
    project.featurize()
    return project


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    folder, store = Path(given["folder"]), Path(given["store"])
    report = work(folder, store, given["tile"], given["config"]).featurization_f.report
    found = ("computed", "resumed", "workers")
    done = {key: getattr(report, key) if report else 0 for key in found}
    print("REPORT", json.dumps(done))
