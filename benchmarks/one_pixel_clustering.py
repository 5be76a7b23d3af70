"""One pixel clustering, in a process of its own; prints JSON.

    python -m benchmarks.one_pixel_clustering --image ARRAY --fraction 0.02

`scportrait_like.im.flowsom` is called once, from call to return; the import of flowsom before it
and its training within it are timed apart. With --mark, memory is watched from outside until it
returns, and chunk files that this process opens are counted. With --store the SpatialData object
has a store there, and the labels are written into it. With --predict the labels of so many pixels
are held against flowsom's own ``predict``, which is timed, and so is ours on the same rows.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ChunkReads, cpu_seconds

THREADS = 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--labels", type=Path, help="accepted, not needed")
    parser.add_argument("--fraction", type=float, default=0.02)
    parser.add_argument("--max-samples", type=int, default=2_000_000)
    parser.add_argument("--edge", type=int, default=10, help="of the grid of nodes")
    parser.add_argument("--n-clusters", type=int, default=10)
    parser.add_argument("--channels", type=int, help="only so many, from the first")
    parser.add_argument("--rows", type=int, help="only so many rows of pixels, from the top")
    parser.add_argument("--columns", type=int, help="only so many of pixels, from the left")
    parser.add_argument("--store", type=Path, help="made, for the labels; default: in memory")
    parser.add_argument("--memory-limit", default=None)
    parser.add_argument("--predict", type=int, default=0, help="so many pixels, in five places")
    parser.add_argument("--mark", type=Path, default=None, help="made when the work begins")
    return parser.parse_args()


def main() -> None:
    args = _arguments()
    logging.disable(logging.WARNING)
    began = time.perf_counter()
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel

    import scportrait_like as sl
    from scportrait_like.im import _flowsom

    folder = args.image.resolve()
    image: Any = da.from_zarr(str(folder))  # type: ignore[no-untyped-call]
    image = image[: args.channels, : args.rows, : args.columns]
    sdata = SpatialData()
    if args.store is not None:
        sdata.write(args.store)
    sdata["image"] = Image2DModel.parse(image, dims=("c", "y", "x"))
    found: dict[str, Any] = {"load_s": time.perf_counter() - began}
    reads = ChunkReads([folder])
    reports: list[Any] = []
    clock = _Clock()
    module: Any = _flowsom
    run = module.run_in_scratch

    def watched(plan: Any, make_task: Any, *others: Any) -> Any:
        reports.append(run(plan, lambda given: clock.watched(make_task(given)), *others))
        return reports[-1]

    module.run_in_scratch = watched
    if args.mark is not None:
        args.mark.touch()
    began = time.perf_counter()
    import flowsom

    found["import_s"] = time.perf_counter() - began
    training = _timed(flowsom.FlowSOM)
    began, cpu = time.perf_counter(), cpu_seconds()
    _, fsom, mapping = sl.im.flowsom(
        sdata,
        "image",
        "clusters",
        "metaclusters",
        fraction=args.fraction,
        n_clusters=args.n_clusters,
        xdim=args.edge,
        ydim=args.edge,
        max_samples=args.max_samples,
        memory_limit=args.memory_limit,
    )
    ended = time.perf_counter()
    if args.mark is not None:
        args.mark.unlink(missing_ok=True)
    found |= {
        "seconds": ended - began,
        "stages": {stage: last - first for stage, (first, last) in clock.seen.items()},
        "after_s": ended - clock.seen["assign"][1],
        "cpu": cpu_seconds() - cpu,
        "training_s": sum(training),
        "chunk_reads": reads.n,
        "chunks": image.npartitions,
        "sampled": len(fsom.get_cell_data()),
        "pixels": int(np.prod(image.shape[1:])),
        "parts": reports[0].parts,
        "units": reports[0].computed,
        "workers": reports[0].workers,
    }
    if args.predict:
        found["predict"] = _against_predict(image, sdata, fsom, mapping, args.predict)
    print(json.dumps(found), flush=True)


class _Clock:
    """Tells when the first unit of each stage of a run began, and when the last one ended."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[float, float]] = {}

    def watched(self, task: Any) -> Any:
        """The same task; its units are looked at from now on."""
        works = {name: self._timed(name, work) for name, work in task.works.items()}
        return replace(task, works=works)

    def _timed(self, stage: str, work: Callable[..., None]) -> Callable[..., None]:
        def timed(*given: Any) -> None:
            began = time.perf_counter()
            work(*given)
            first, _ = self.seen.get(stage, (began, 0.0))
            self.seen[stage] = min(first, began), time.perf_counter()

        return timed


def _timed(cls: Any) -> list[float]:
    """Seconds of each making of a class, from now on."""
    taken: list[float] = []
    init = cls.__init__

    def timed(self: Any, *args: Any, **kwargs: Any) -> None:
        began = time.perf_counter()
        init(self, *args, **kwargs)
        taken.append(time.perf_counter() - began)

    cls.__init__ = timed
    return taken


def _against_predict(image: Any, sdata: Any, fsom: Any, mapping: Any, n: int) -> dict[str, Any]:
    """Labels of pixels in five places of the image, against flowsom's own."""
    from scportrait_like.kernels import Nodes, nearest_nodes
    from scportrait_like.run.blas import one_thread

    together = max(1, n // image.shape[2])
    first = [int(row) for row in np.linspace(0, image.shape[1] - together, 5)]
    predict, ours, equal = [], [], 0
    nodes = Nodes.of(fsom.model.codes)
    for row in first:
        planes = np.asarray(image[:, row : row + together].compute())
        pixels = np.ascontiguousarray(planes.reshape(len(planes), -1))
        rows = np.ascontiguousarray(pixels.T, np.float64)
        fsom.model.cluster_model.predict(rows[:1000])
        began = time.perf_counter()
        wanted = fsom.model.cluster_model.predict(rows) + 1
        predict.append(time.perf_counter() - began)
        parts = [np.ascontiguousarray(part) for part in np.array_split(pixels, THREADS, axis=1)]
        began = time.perf_counter()
        with one_thread(), ThreadPoolExecutor(THREADS) as pool:
            list(
                pool.map(lambda p: nearest_nodes(p, nodes, np.empty(p.shape[1], np.uint16)), parts)
            )
        ours.append(time.perf_counter() - began)
        here = slice(row, row + together)
        clusters = np.asarray(sdata["clusters"].data[here].compute()).reshape(-1)
        groups = np.asarray(sdata["metaclusters"].data[here].compute()).reshape(-1)
        equal += int((clusters == wanted).sum())
        if not np.array_equal(mapping.loc[wanted].to_numpy(), groups):
            raise SystemExit("metaclusters differ from the mapping of predict's clusters")
    pixels_seen = 5 * together * image.shape[2]
    if equal != pixels_seen:
        raise SystemExit(f"{pixels_seen - equal} of {pixels_seen} labels differ from predict")
    return {"predict_s": predict, "ours_s": ours, "pixels": pixels_seen // 5}


if __name__ == "__main__":
    main()
