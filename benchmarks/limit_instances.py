"""What no extraction of instances can go below: decoding, and compressing and writing the output.

    python -m benchmarks.limit_instances --image ARRAY --labels ARRAY --output ARRAY

Every chunk of image and mask is decoded by zarr-python in two threads. The instances that were
written (``--output``, a zarr array with shards) are held in memory; they are compressed anew, inner
chunk by inner chunk, with the codec that the array has, and written, a shard at a time, in two
threads. Nothing is cut. Prints the seconds of both as JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs.zstd import Zstd

from benchmarks.common import cpu_seconds
from benchmarks.decoding import decode


def compress_and_write(array: Any, folder: Path, threads: int) -> dict[str, float]:
    """Compress and write all of an array again."""
    codec = Zstd(level=array.compressors[0].level)
    inner, per_shard = array.chunks, array.shards[0]
    shards = [np.asarray(array[at : at + per_shard]) for at in range(0, array.shape[0], per_shard)]

    def write(number: int) -> int:
        rows = shards[number]
        pieces = []
        for row in rows:
            if row.any():
                pieces += [
                    codec.encode(np.ascontiguousarray(row[at : at + inner[1]]))
                    for at in range(0, len(row), inner[1])
                ]
        with (folder / str(number)).open("wb") as file:
            return sum(file.write(piece) for piece in pieces)

    began, cpu = time.perf_counter(), cpu_seconds()
    with ThreadPoolExecutor(threads) as pool:
        written = sum(pool.map(write, range(len(shards))))
    return {
        "write_s": time.perf_counter() - began,
        "write_cpu": cpu_seconds() - cpu,
        "written": written,
        "raw": prod(array.shape) * array.dtype.itemsize,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--labels", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--output", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    decoded = decode([args.image.resolve(), args.labels.resolve()], threads=args.threads)
    folder = Path(tempfile.mkdtemp(dir=args.output.parent))
    try:
        found = compress_and_write(zarr.open_array(args.output, mode="r"), folder, args.threads)
    finally:
        shutil.rmtree(folder)
    found |= {"decode_s": decoded["seconds"], "decode_cpu": decoded["cpu"]}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
