"""One `project.aggregate()`, in a process of its own; prints what it took as JSON.

    python -m benchmarks.one_step --project DIR --memory-limit 8GB

The project's store lies there. An interrupted run goes on, as it does for a user.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

from benchmarks.big_tissue import IMAGE, LABELS
from benchmarks.common import ChunkReads, bytes_read, cpu_seconds

TABLE = "intensities"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--statistics", default="mean", help="separated by commas")
    parser.add_argument("--memory-limit", default=None)
    parser.add_argument("--mark", type=Path, default=None, help="made when the work begins")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    began = time.perf_counter()
    import scportrait_like as sl

    section = {
        "image": IMAGE,
        "labels": LABELS,
        "statistics": args.statistics.split(","),
        "table_name": TABLE,
        "memory_limit": args.memory_limit,
    }
    project = sl.Project(args.project, {"Aggregation": section})
    files = project.filehandler
    reads = ChunkReads([files.array_path(name) for name in (IMAGE, LABELS)])
    load = time.perf_counter() - began
    if args.mark is not None:
        args.mark.touch()
    began, cpu, taken = time.perf_counter(), cpu_seconds(), bytes_read()
    project.aggregate()
    seconds = time.perf_counter() - began
    step = project.aggregation_f
    report = step.report if step is not None else None
    if report is None:
        raise SystemExit("nothing was aggregated: the output lay there complete")
    found = {
        "load_s": load,
        "seconds": seconds,
        "cpu": cpu_seconds() - cpu,
        "bytes_read": bytes_read() - taken,
        "chunk_reads": reads.n,
        "parts": report.parts,
        "executor": report.executor,
        "workers": report.workers,
        "run_s": report.seconds,
        "peak": report.peak,
        "computed": report.computed,
        "resumed": report.resumed,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
