"""One aggregation of ours, in a process of its own; prints what it took as JSON.

    python -m benchmarks.one_aggregation --image ARRAY --labels ARRAY --statistics mean,var

``RasterAggregator`` gets dask arrays of the zarr arrays. ``aggregate_stats()`` is timed twice, from
call to return: the first of this process, which loads the compiled kernels, and one more. With
--mark, memory is watched from outside meanwhile, and chunk files that this process opens are
counted. With --save the result is kept: ids, and one array (cells, channels) a statistic.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ChunkReads, bytes_read, cpu_seconds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--labels", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--statistics", default="mean", help="separated by commas")
    parser.add_argument("--ids", type=Path, default=None, help="a .npy file: the labels wanted")
    parser.add_argument("--memory-limit", default=None)
    parser.add_argument("--rows", type=int, help="only so many rows of pixels, from the top")
    parser.add_argument("--once", action="store_true", help="aggregate only once")
    parser.add_argument("--mark", type=Path, default=None, help="made when the work begins")
    parser.add_argument("--save", type=Path, default=None, help="a .npz file for the result")
    return parser.parse_args()


def main() -> None:
    args = _arguments()
    logging.disable(logging.WARNING)
    began = time.perf_counter()
    import dask.array as da

    import scportrait_like as sl
    from scportrait_like.utils import RasterAggregator

    load = time.perf_counter() - began
    if args.memory_limit is not None:
        sl.settings.memory_limit = args.memory_limit
    folders = [args.image.resolve(), args.labels.resolve()]
    began = time.perf_counter()
    image: Any = da.from_zarr(str(folders[0]))  # type: ignore[no-untyped-call]
    labels: Any = da.from_zarr(str(folders[1]))  # type: ignore[no-untyped-call]
    if args.rows is not None:
        image, labels = image[:, : args.rows], labels[: args.rows]
    opened = time.perf_counter() - began
    index = None if args.ids is None else np.load(args.ids)
    statistics = tuple(args.statistics.split(","))
    reads = ChunkReads(folders)
    if args.mark is not None:
        args.mark.touch()
    found: dict[str, Any] = {"load_s": load, "open_s": opened, "again": None}
    for call in ("first",) if args.once else ("first", "again"):
        before = reads.n
        began, cpu, taken = time.perf_counter(), cpu_seconds(), bytes_read()
        aggregator = RasterAggregator(
            mask_dask_array=labels[None], image_dask_array=image[:, None], run_on_gpu=False
        )
        frames = aggregator.aggregate_stats(stats_funcs=statistics, index=index)
        found[call] = {
            "seconds": time.perf_counter() - began,
            "cpu": cpu_seconds() - cpu,
            "bytes_read": bytes_read() - taken,
            "chunk_reads": reads.n - before,
        }
    report = aggregator.report
    found |= {
        "parts": report.parts,
        "executor": report.executor,
        "workers": report.workers,
        "run_s": report.seconds,
        "peak": report.peak,
        "units": report.computed,
        "n_chunks": image.npartitions + labels.npartitions,
        "rows": len(frames[0]),
        "pixels": int(image.size),
    }
    if args.save is not None:
        key = frames[0].columns[-1]
        values = {
            name: frame.drop(columns=key).to_numpy(np.float64)
            for name, frame in zip(statistics, frames, strict=True)
        }
        np.savez(args.save, ids=frames[0][key].to_numpy(), **values)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
