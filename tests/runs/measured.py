"""As a script: extract within a memory limit that counts from what the imports take."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py  # noqa: F401
import numpy as np
import pyarrow.parquet  # noqa: F401
import zarr  # noqa: F401

from scportrait_like.kernels import warm_up
from scportrait_like.project import Project
from scportrait_like.run.memory import tree_memory
from scportrait_like.steps import extraction  # noqa: F401

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    warm_up(np.dtype("uint16"))  # numba is imported when it is first used
    limit = tree_memory() + given["above"]
    print("LIMIT", limit, flush=True)
    config = {**given["config"], "memory_limit": limit}
    project = Project(Path(given["folder"]), {"HDF5CellExtraction": config})
    project.extract()
    report = project.extraction_f.report
    print("PEAK", report.peak, report.workers, report.window, report.batch_size, report.seconds)
