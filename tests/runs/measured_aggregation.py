"""As a script: aggregate within a memory limit that counts from what the imports take."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import spatialdata  # noqa: F401 - the table is written with it

from scportrait_like.kernels import warm_up_runs
from scportrait_like.project import Project
from scportrait_like.run.memory import tree_memory
from scportrait_like.steps import aggregation  # noqa: F401

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    warm_up_runs(np.dtype("uint32"), np.dtype("uint16"))  # numba is imported when first used
    limit = tree_memory() + given["above"]
    print("LIMIT", limit, flush=True)
    config = {**given["config"], "memory_limit": limit}
    project = Project(Path(given["folder"]), {"Aggregation": config})
    project.aggregate()
    report = project.aggregation_f.report
    print("PEAK", report.peak, report.workers, report.window, report.batch_size, report.seconds)
