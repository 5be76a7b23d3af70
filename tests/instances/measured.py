"""As a script: sum windows within a memory limit that counts from what the imports take."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from instances.oracle import Sums
from scportrait_like.raster.instance_runs import Collected, InstanceRun
from scportrait_like.raster.sources import source_of
from scportrait_like.run.memory import tree_memory


def warm_up() -> None:
    """Import and compile what the run needs."""
    mask, image = np.eye(8, dtype="uint32")[None], np.ones((1, 1, 8, 8), "uint16")
    run = InstanceRun(source_of(mask), source_of(image), 4, Sums(), executor="inline")
    run.collect(run.find())


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    warm_up()
    folder = Path(given["folder"])
    limit = tree_memory() + given["above"]
    began = time.perf_counter()
    run = InstanceRun(
        *(source_of(folder / "mask.zarr"), source_of(folder / "image.zarr"), given["size"], Sums()),
        remove_background=given["remove_background"],
        executor=given["executor"],
        memory_limit=limit,
    )
    found = run.find()
    plan = run.plan(found)
    sink = Collected(plan)
    report = run.go(plan, sink)
    figures = {
        "limit": limit,
        "rows": len(found.ids),
        "seconds": time.perf_counter() - began,
        "unit_bytes": plan.unit_bytes,
        "window": report.window,
        "executor": report.executor,
        "total": int(sink.found["sums"].sum()),
    }
    print("FOUND", json.dumps(figures), flush=True)
