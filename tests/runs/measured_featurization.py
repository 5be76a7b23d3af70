"""As a script: featurize within a memory limit that counts from what the imports take."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py  # noqa: F401
import imagecodecs  # noqa: F401
import numpy as np
import spatialdata  # noqa: F401 - the table is written with it

from scportrait_like.kernels import warm_up, warm_up_runs, warm_up_windows
from scportrait_like.project import Project
from scportrait_like.run.memory import tree_memory
from scportrait_like.steps import featurization  # noqa: F401

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    labels, image = np.dtype("uint32"), np.dtype("uint16")
    warm_up_windows(labels, image)  # numba is imported when it is first used
    warm_up_runs(labels, image)
    sections = {"Featurization": given["config"]}
    if given["config"].get("source") != "images":
        warm_up(image)
        extraction = {"image_size": 32, "executor": "threads", "compression": "lzf"}
        sections["HDF5CellExtraction"] = extraction
        Project(Path(given["folder"]), sections).extract()
    limit = tree_memory() + given["above"]
    print("LIMIT", limit, flush=True)
    sections["Featurization"] = {**given["config"], "memory_limit": limit}
    project = Project(Path(given["folder"]), sections)
    project.featurize()
    report = project.featurization_f.report
    print("PEAK", report.peak, report.workers, report.window, report.batch_size, report.seconds)
