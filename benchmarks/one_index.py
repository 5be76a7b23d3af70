"""One pass over a mask, in a process of its own; prints what it took as JSON.

    python -m benchmarks.one_index --edge 4096 --ids dense --method ours

The mask is computed region by region: squares of 10 x 10 pixels, one pixel apart. Dense ids count
from 1; sparse ones are scattered over 2^62 to 2^63.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like.raster.index import build_index
from scportrait_like.run.bounded import bounded_map
from scportrait_like.run.memory import process_memory

PITCH = 11
_CHUNK = 2048
_ODD = 0x14D049BB133111EB


@dataclass(frozen=True)
class Squares:
    """A mask that is computed; a `Source`."""

    edge: int
    sparse: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.edge, self.edge

    @property
    def chunks(self) -> tuple[int, int]:
        return _CHUNK, _CHUNK

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint64 if self.sparse else np.uint32)

    @property
    def n_labels(self) -> int:
        return (-(-self.edge // PITCH)) ** 2

    def read(self, region: tuple[slice, ...]) -> NDArray[Any]:
        y, x = (np.arange(axis.start, axis.stop, dtype=np.uint64) for axis in region)
        # One row of squares at a time has the same ids; so each is computed once.
        along = -(-self.edge // PITCH)
        rows, at = np.unique(y // PITCH, return_inverse=True)
        ids = rows[:, None] * np.uint64(along) + (x // PITCH)[None] + np.uint64(1)
        if self.sparse:
            # An odd factor permutes the residues of 2^62.
            ids = (ids * np.uint64(_ODD)) & np.uint64(2**62 - 1) | np.uint64(2**62)
        ids[:, x % PITCH == PITCH - 1] = 0
        found: NDArray[Any] = ids.astype(self.dtype)[at]
        found[y % PITCH == PITCH - 1] = 0
        return found


def _ours(mask: Squares, threads: int) -> int:
    if threads == 1:
        return len(build_index(mask))
    with ThreadPoolExecutor(threads) as pool:
        return len(build_index(mask, mapped=partial(_mapped, pool, threads)))


def _mapped(pool: ThreadPoolExecutor, threads: int, work: Any, items: Any) -> Any:
    return bounded_map(pool, work, items, threads)


def _skimage(mask: Squares) -> int:
    import skimage.measure

    measure: Any = skimage.measure  # untyped
    labels = _whole(mask).view(np.int64 if mask.sparse else np.int32)
    found = measure.regionprops_table(labels, properties=("label", "area", "centroid", "bbox"))
    return len(found["label"])


def _scipy(mask: Squares) -> int:
    import scipy.ndimage as ndi

    labels = _whole(mask).view(np.int64 if mask.sparse else np.int32)
    ids = np.unique(labels)[1:]
    ndi.sum_labels(np.ones_like(labels, np.uint8), labels, ids)
    ndi.center_of_mass(np.ones_like(labels, np.uint8), labels, ids)
    ndi.find_objects(labels)
    return len(ids)


def _whole(mask: Squares) -> NDArray[Any]:
    return mask.read((slice(0, mask.edge), slice(0, mask.edge)))


METHODS: dict[str, Callable[[Squares], int]] = {
    "ours": partial(_ours, threads=1),
    "ours, two threads": partial(_ours, threads=2),
    "skimage.measure.regionprops_table": _skimage,
    "scipy.ndimage": _scipy,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, required=True)
    parser.add_argument("--ids", choices=["dense", "sparse"], required=True)
    parser.add_argument("--method", choices=list(METHODS), required=True)
    parser.add_argument("--mark", type=Path, default=None)
    args = parser.parse_args()
    method = METHODS[args.method]
    sparse = args.ids == "sparse"
    mask = Squares(args.edge, sparse)
    if not (sparse and not args.method.startswith("ours")):
        method(Squares(64, sparse))  # imports and kernels
    before = process_memory(os.getpid())
    if args.mark is not None:
        args.mark.touch()
    began, cpu = time.perf_counter(), time.process_time()
    error = ""
    n = 0
    try:
        n = method(mask)
    except (MemoryError, ValueError, RuntimeError, OverflowError) as raised:
        error = type(raised).__name__
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    began = time.perf_counter()
    for y in range(0, args.edge, _CHUNK):
        for x in range(0, args.edge, _CHUNK):
            mask.read((slice(y, min(y + _CHUNK, args.edge)), slice(x, min(x + _CHUNK, args.edge))))
    computing = time.perf_counter() - began
    found = {
        "n": n,
        "expected": mask.n_labels,
        "error": error,
        "seconds": seconds,
        "cpu": cpu,
        "computing": computing,
        "before": before,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
