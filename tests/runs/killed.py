"""What the processes do that the tests kill. As a script: load and extract, nothing else."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from scportrait_like.io import copying
from scportrait_like.project import Project
from scportrait_like.raster import tiles

_CHANGES = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.unlink")


def extract(folder: Path, store: Path, tile: int, config: dict[str, Any]) -> Any:
    """A user's script: the same each time, whether the last one was killed or not."""
    # Small chunks and tiles make many units of a small image.
    tiles.TILE_EDGE = tile
    copying.store_chunk = partial(copying.store_chunk, largest=tile)
    project = Project(folder, {"HDF5CellExtraction": config})
    project.load_input_from_sdata(store, "input_image", "seg_all_nucleus", "seg_all_cytosol")
    project.extract()
    return project


def report_of(project: Any) -> dict[str, Any]:
    report = project.extraction_f.report
    if report is None:
        return {"computed": 0, "resumed": 0}
    return {"computed": report.computed, "resumed": report.resumed, "peak": report.peak}


def changes_disk(event: str, args: tuple[Any, ...]) -> bool:
    if event == "open":
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR))
    return event in _CHANGES


def killed_at_step(folder: Path, store: Path, tile: int, config: dict[str, Any], step: int) -> None:
    """Kill this process just before its `step`-th change to the disk."""
    seen = count()

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if changes_disk(event, args) and next(seen) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    extract(folder, store, tile, config)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    done = extract(Path(given["folder"]), Path(given["store"]), given["tile"], given["config"])
    print("REPORT", json.dumps(report_of(done)))
