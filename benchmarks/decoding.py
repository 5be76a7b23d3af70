"""Decoding alone: every chunk of image and mask decoded by zarr-python, nothing done with it.

    python -m benchmarks.decoding --image ARRAY [--labels ARRAY] [--pipeline zarrs]
                                  [--fraction 0.05]

In two threads, chunk by chunk, with the page cache warm: the chunk files are read once before the
clock starts. The default pipeline is zarr-python's own; ``zarrs`` is that of the package of this
name, in Rust. With --fraction only so many of the chunks are decoded, evenly spread, and
``whole_s`` says what all would take. Prints seconds, CPU seconds and bytes as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.common import cpu_seconds

DEFAULT, ZARRS = "zarr-python", "zarrs"
_PATHS = {ZARRS: "zarrs.ZarrsCodecPipeline"}

Part = tuple[Any, tuple[slice, ...]]


def pipeline_env(pipeline: str) -> dict[str, str]:
    """What the environment of a process must say so that zarr decodes with a pipeline."""
    return {"ZARR_CODEC_PIPELINE__PATH": _PATHS[pipeline]} if pipeline in _PATHS else {}


def grid_of(array: Any, rows: int | None = None, columns: int | None = None) -> list[int]:
    """How many chunks an array has along each axis, or its first rows and columns of pixels."""
    shape = list(array.shape)
    for axis, most in ((-2, rows), (-1, columns)):
        shape[axis] = shape[axis] if most is None else min(most, shape[axis])
    return [-(-n // step) for n, step in zip(shape, array.chunks, strict=True)]


def chunk_of(array: Any, place: Iterable[int]) -> tuple[slice, ...]:
    """Region of the chunk at a place of the grid."""
    return tuple(
        slice(int(at) * step, min((int(at) + 1) * step, n))
        for at, step, n in zip(place, array.chunks, array.shape, strict=True)
    )


def chosen(
    array: Any, fraction: float, rows: int | None = None, columns: int | None = None
) -> list[tuple[slice, ...]]:
    """The regions of a fraction of the chunks, evenly spread; at least one."""
    grid = grid_of(array, rows, columns)
    wanted = max(1, round(prod(grid) * fraction))
    # The middles of equal shares.
    numbers = ((2 * np.arange(wanted) + 1) * prod(grid)) // (2 * wanted)
    return [chunk_of(array, place) for place in zip(*np.unravel_index(numbers, grid), strict=True)]


def warm(paths: Iterable[Path]) -> int:
    """Read files into the page cache, one of several names of a file; return their bytes."""
    total = 0
    seen: dict[int, int] = {}
    for path in paths:
        inode = path.stat().st_ino
        if inode not in seen:
            seen[inode] = len(path.read_bytes())
        total += seen[inode]
    return total


def chunk_file(folder: Path, array: Any, region: tuple[slice, ...]) -> Path:
    """The file of a chunk, by the region's start."""
    place = [part.start // step for part, step in zip(region, array.chunks, strict=True)]
    return folder / "/".join(["c", *map(str, place)])


def decode_part(part: Part) -> int:
    """Decode a region of an array; return its bytes."""
    array, region = part
    return int(array[region].nbytes)


def decode(
    folders: list[Path],
    fraction: float = 1.0,
    threads: int = 2,
    rows: int | None = None,
    columns: int | None = None,
) -> dict[str, Any]:
    """Decode chunks of some arrays; see the module.

    Parameters
    ----------
    folders
        Of zarr arrays.
    fraction
        Of the chunks of each.
    threads
        Chunks decoded at once.
    rows, columns
        Only chunks that begin within so many of pixels, from the top and the left; default: all.
    """
    arrays = [zarr.open_array(folder, mode="r") for folder in folders]
    parts: list[Part] = []
    stored = 0
    for folder, array in zip(folders, arrays, strict=True):
        regions = chosen(array, fraction, rows, columns)
        stored += warm(chunk_file(folder, array, region) for region in regions)
        parts += [(array, region) for region in regions]
    decode_part(parts[0])  # starts zarr's own threads
    began, cpu = time.perf_counter(), cpu_seconds()
    with ThreadPoolExecutor(threads) as pool:
        decoded = sum(pool.map(decode_part, parts))
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    n_chunks = sum(prod(grid_of(array, rows, columns)) for array in arrays)
    share = len(parts) / n_chunks
    return {
        "seconds": seconds,
        "cpu": cpu,
        "whole_s": seconds / share,
        "whole_cpu": cpu / share,
        "chunks": len(parts),
        "n_chunks": n_chunks,
        "stored": stored,
        "decoded": decoded,
        "whole_stored": stored / share,
        "whole_decoded": decoded / share,
        "pipeline": zarr.config.get("codec_pipeline.path"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--labels", type=Path, help="folder of a zarr array; none: image alone")
    parser.add_argument("--pipeline", choices=[DEFAULT, ZARRS], default=DEFAULT)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the chunks")
    parser.add_argument("--rows", type=int, help="only so many rows of pixels, from the top")
    parser.add_argument("--columns", type=int, help="only so many of pixels, from the left")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.pipeline in _PATHS:
        import zarrs  # noqa: F401  registers itself, and fails here where it is missing

        zarr.config.set({"codec_pipeline.path": _PATHS[args.pipeline]})
    folders = [path.resolve() for path in (args.image, args.labels) if path is not None]
    found = decode(folders, args.fraction, args.threads, args.rows, args.columns)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
