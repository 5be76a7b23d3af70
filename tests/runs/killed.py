"""What the processes do that the tests kill. As a script: load and run a step, nothing else."""

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

EXTRACTION = "HDF5CellExtraction"
_CHANGES = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.unlink")


def work(
    folder: Path, store: Path, tile: int, config: dict[str, Any], step: str = EXTRACTION
) -> Any:
    """A user's script: the same each time, whether the last one was killed or not."""
    # Small chunks and tiles make many units of a small image.
    tiles.TILE_EDGE = tile
    copying.store_chunk = partial(copying.store_chunk, largest=tile)
    project = Project(folder, {step: config})
    project.load_input_from_sdata(store, "input_image", "seg_all_nucleus", "seg_all_cytosol")
    project.run(step)
    return project


def report_of(project: Any) -> dict[str, Any]:
    ((step,),) = project.steps.values()
    if step.report is None:
        return {"computed": 0, "resumed": 0}
    report = step.report
    return {
        "computed": report.computed,
        "resumed": report.resumed,
        "peak": report.peak,
        "workers": report.workers,
    }


def changes_disk(event: str, args: tuple[Any, ...]) -> bool:
    if event == "open":
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR))
    return event in _CHANGES


def killed_at_change(
    folder: Path,
    store: Path,
    tile: int,
    config: dict[str, Any],
    step: str,
    change: int,
    first: str = "",
) -> None:
    """Kill this process just before so many changes to the disk.

    They are counted from the first one whose path holds the text `first`.
    """
    seen = count()
    counting = not first

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal counting
        if not changes_disk(event, args):
            return
        counting = counting or first in str(args[0])
        if counting and next(seen) == change:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    work(folder, store, tile, config, step)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    folder, store = Path(given["folder"]), Path(given["store"])
    done = work(folder, store, given["tile"], given["config"], given["step"])
    print("REPORT", json.dumps(report_of(done)))
