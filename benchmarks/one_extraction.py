"""One extraction of ours, in a process of its own; prints what it took as JSON.

    python -m benchmarks.one_extraction --store X.zarr --project DIR --size 64 [--executor threads]

Loading comes first, as in a user's script; it does nothing where the project holds the store's
elements already. Then ``extract()`` is timed twice, from call to return: the first of this process,
and one more after the output was removed. With --mark, memory is watched from outside meanwhile,
and the chunk files that this process opens are counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import shutil
import time
from pathlib import Path

import scportrait_like as sl
from benchmarks.common import ChunkReads, cpu_seconds
from scportrait_like.raster.sources import ZarrSource


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--executor", default=None)
    parser.add_argument("--once", action="store_true", help="extract only once")
    parser.add_argument("--mark", type=Path, default=None, help="made when the extraction begins")
    return parser.parse_args()


def extract(project: sl.Project) -> dict[str, float]:
    """Time one ``extract()`` into an empty folder."""
    shutil.rmtree(project.project_location / "extraction", ignore_errors=True)
    os.sync()
    began, cpu = time.perf_counter(), cpu_seconds()
    project.extract()
    return {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - cpu}


def _arrays(project: sl.Project) -> list[Path]:
    return [project.filehandler.array_path(n) for n in ("input_image", "seg_all_cytosol")]


def n_chunks(project: sl.Project) -> int:
    """Count the chunks of the image and of the mask."""
    sources = [ZarrSource.open(path) for path in _arrays(project)]
    return sum(
        math.prod(-(-n // c) for n, c in zip(s.shape, s.chunks, strict=True)) for s in sources
    )


def main() -> None:
    args = _arguments()
    logging.disable(logging.WARNING)
    section = {
        "image_size": args.size,
        "normalization_range": [0.01, 0.99],
        "threads": args.threads,
        "executor": args.executor,
    }
    began = time.perf_counter()
    project = sl.Project(args.project, {"HDF5CellExtraction": section})
    project.load_input_from_sdata(
        args.store, "input_image", cytosol_segmentation_name="seg_all_cytosol", keep_all=False
    )
    load = time.perf_counter() - began
    reads = None
    if args.mark is not None:
        reads = ChunkReads(_arrays(project))
        args.mark.touch()
    first = extract(project)
    again = None if args.once else extract(project)
    step = project.extraction_f
    report = step.report if step is not None else None
    if report is None:
        raise SystemExit("nothing was extracted: the output lay there complete")
    h5sc = project.project_location / "extraction" / "data" / "single_cells.h5sc"
    found = {
        "load_s": load,
        "first": first,
        "again": again,
        "parts": report.parts,
        "n_chunks": n_chunks(project),
        "chunk_reads": reads.n if reads is not None else None,
        "executor": report.executor,
        "workers": report.workers,
        "run_s": report.seconds,
        "cells": project.h5sc.n_obs,
        "h5sc": str(h5sc),
        "h5sc_bytes": h5sc.stat().st_size,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
