"""One preparation of an image for pixel clustering, in a process of its own; prints JSON.

    python -m benchmarks.one_preprocessing --image ARRAY --way ours --save STORE
    python -m benchmarks.one_preprocessing --image ARRAY --way plain --against STORE

``ours`` is `scportrait_like.im.pixel_clustering_preprocess` with its own parameters, from call to
return; the image that it makes lies in a SpatialData store. ``plain`` is the same in a few lines of
numpy and scipy, with the whole image in memory as float64; with --against its pixels are compared
with those of ours. With --mark, memory is watched from outside until either is done, and chunk
files that this process opens are counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ChunkReads, cpu_seconds

OUTPUT = "prepared"
# The parameters of ours, by default.
P, P_SUM, P_POST, SIGMA = 99, 5, 99.9, 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--labels", type=Path, help="accepted, not needed")
    parser.add_argument("--way", choices=["ours", "plain"], required=True)
    parser.add_argument("--save", type=Path, help="of ours: the store that is made")
    parser.add_argument("--against", type=Path, help="of plain: the store that ours has made")
    parser.add_argument("--memory-limit", default=None)
    parser.add_argument("--mark", type=Path, default=None, help="made when the work begins")
    return parser.parse_args()


def main() -> None:
    args = _arguments()
    logging.disable(logging.WARNING)
    found = _ours(args) if args.way == "ours" else _plain(args)
    print(json.dumps(found), flush=True)


def _ours(args: argparse.Namespace) -> dict[str, Any]:
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel

    import scportrait_like as sl
    from scportrait_like.im import _preprocess

    folder = args.image.resolve()
    image: Any = da.from_zarr(str(folder))  # type: ignore[no-untyped-call]
    sdata = SpatialData()
    sdata.write(args.save)
    sdata["image"] = Image2DModel.parse(image, dims=("c", "y", "x"))
    reads = ChunkReads([folder])
    reports: list[Any] = []
    module: Any = _preprocess
    run = module.run_in_scratch

    def watched(*given: Any) -> Any:
        reports.append(run(*given))
        return reports[-1]

    module.run_in_scratch = watched
    if args.mark is not None:
        args.mark.touch()
    began, cpu = time.perf_counter(), cpu_seconds()
    sl.im.pixel_clustering_preprocess(sdata, "image", OUTPUT, memory_limit=args.memory_limit)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    if args.mark is not None:
        args.mark.unlink(missing_ok=True)
    return {
        "seconds": seconds,
        "cpu": cpu,
        "run_s": reports[0].seconds,
        "chunk_reads": reads.n,
        "chunks": image.npartitions,
        "parts": reports[0].parts,
        "workers": reports[0].workers,
    }


def _plain(args: argparse.Namespace) -> dict[str, Any]:
    import zarr

    folder = args.image.resolve()
    if args.mark is not None:
        args.mark.touch()
    began, cpu = time.perf_counter(), cpu_seconds()
    values = plain(np.asarray(zarr.open_array(folder, mode="r")))
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    if args.mark is not None:
        args.mark.unlink(missing_ok=True)
    found = {"seconds": seconds, "cpu": cpu, "numbers": int(np.isfinite(values).sum())}
    if args.against is not None:
        made: Any = zarr.open_group(args.against / "images" / OUTPUT, mode="r")["s0"]
        found["apart"] = max(map(_apart, values, (made[n] for n in range(len(values)))))
    return found


def plain(image: NDArray[Any]) -> NDArray[np.float64]:
    """Prepare (c, y, x) as `im.pixel_clustering_preprocess` does it by default."""
    from scipy.ndimage import gaussian_filter

    values = image.astype(np.float64)
    for channel in values:
        channel /= _percentile(channel, P)
    threshold = _percentile(values.sum(axis=0), P_SUM)
    for channel in values:
        gaussian_filter(channel, SIGMA, output=channel)
    total = values.sum(axis=0)
    total[~(total > threshold)] = np.nan
    values /= total
    for channel in values:
        channel /= _percentile(channel, P_POST)
    return values


def _percentile(channel: NDArray[np.float64], p: float) -> float:
    """Percentile of what is neither zero nor NaN."""
    return float(np.percentile(channel[(channel != 0) & ~np.isnan(channel)], p))


def _apart(plain: NDArray[np.float64], ours: NDArray[np.float32]) -> float:
    """Largest relative difference; infinite where only one of them is NaN."""
    if not np.array_equal(np.isnan(plain), np.isnan(ours)):
        return float("inf")
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nanmax(np.abs(ours / plain - 1), initial=0))


if __name__ == "__main__":
    main()
