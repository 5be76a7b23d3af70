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
from pathlib import Path

import zarr

from benchmarks.decoding import chosen, decode_part
from scportrait_like.filehandler import FileHandler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    store = FileHandler(args.project)
    parts = []
    for name in ("input_image", "seg_all_cytosol"):
        array = zarr.open_array(store.array_path(name), mode="r")
        parts += [(array, region) for region in chosen(array, 1.0)]
    decode_part(parts[0])  # starts zarr's own threads
    began = time.perf_counter()
    with ThreadPoolExecutor(args.threads) as pool:
        decoded = sum(pool.map(decode_part, parts))
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
