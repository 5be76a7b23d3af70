"""What no extraction can go below: the input decoded, and the output's bytes written.

    python -m benchmarks.limit --project DIR

Every chunk of the image and of the mask is decoded by zarr-python, in two threads; then a file of
the size of the project's `.h5sc` is written and flushed. Prints the seconds of both as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import zarr

from scportrait_like.filehandler import FileHandler


def _regions(array: Any) -> list[tuple[Any, tuple[slice, ...]]]:
    steps = [
        [slice(start, min(start + step, n)) for start in range(0, n, step)]
        for n, step in zip(array.shape, array.chunks, strict=True)
    ]
    return [(array, region) for region in product(*steps)]


def _decode(part: tuple[Any, tuple[slice, ...]]) -> int:
    array, region = part
    return int(array[region].nbytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    store = FileHandler(args.project)
    parts = []
    for name in ("input_image", "seg_all_cytosol"):
        parts += _regions(zarr.open_array(store.array_path(name), mode="r"))
    _decode(parts[0])  # starts zarr's own threads
    began = time.perf_counter()
    with ThreadPoolExecutor(args.threads) as pool:
        decoded = sum(pool.map(_decode, parts))
    decode = time.perf_counter() - began

    content = (args.project / "extraction" / "data" / "single_cells.h5sc").read_bytes()
    target = args.project / "limit.bin"
    began = time.perf_counter()
    with target.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    write = time.perf_counter() - began
    target.unlink()
    found = {"decode_s": decode, "write_s": write, "decoded": decoded, "written": len(content)}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
