"""Run scPortrait's own extraction, timed and weighed (inside the peer's environment).

    python run_scportrait.py --store sample.zarr --config config.yml --project out/

The last line of the standard output is one JSON object; scPortrait's own output goes to the
standard error.

The store must be a SpatialData zarr whose image is *multi-scale* and has channel *names*
(`Image2DModel.parse(..., c_coords=["dapi", ...], scale_factors=[2])`), in a coordinate system
`global` without transformation: scPortrait 1.8 fails on a single-scale image and on numbered
channels, and takes transformed centres for pixels. `compression` must be `lzf` or `gzip`: it cannot
write uncompressed files.

`load_s` holds about six seconds of compiling with numba, whatever the size of the image, and
`extract_s` the copying of image and masks to temporary files in the config's `cache`. PSS counts
the pages of those files that are mapped; `peak_pss_anon` is without them. Time with `--interval 0`,
weigh in a run of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path


class MemorySampler(threading.Thread):
    """Watches the memory of this process and all below it; an interval of 0 watches nothing.

    Looking costs time (tens of milliseconds for a large process), so it never takes more than about
    a tenth of the time.
    """

    def __init__(self, interval: float) -> None:
        super().__init__(daemon=True)
        self.interval = interval
        self.peaks: dict[str, int] = {}
        self.samples = 0
        self.seconds = 0.0
        self._done = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        pause = self.interval
        while self.interval and not self._done.wait(pause):
            began = time.perf_counter()
            self._sample()
            took = time.perf_counter() - began
            pause = max(self.interval, 10 * took)
            with self._lock:
                self.seconds += took

    def stop(self) -> None:
        self._done.set()
        if self.interval:
            self.join()

    def take(self) -> dict[str, float]:
        """The peaks since the last call, in bytes, and how often and how long was looked."""
        with self._lock:
            peaks = {**self.peaks, "samples": self.samples, "sampling_s": round(self.seconds, 3)}
            self.peaks, self.samples, self.seconds = {}, 0, 0.0
        return peaks

    def _sample(self) -> None:
        parent = os.getpid()
        sums = dict.fromkeys(("pss", "pss_anon", "pss_file", "pss_shmem"), 0)
        sizes = {"max_parent_rss": 0, "max_worker_rss": 0}
        pids = [parent, *_below(parent)]
        for pid in pids:
            found = _memory(pid)
            rss = "max_parent_rss" if pid == parent else "max_worker_rss"
            sizes[rss] = max(sizes[rss], found.pop("rss"))
            for key, value in found.items():
                sums[key] += value
        with self._lock:
            self.samples += 1
            for key, value in {**sums, **sizes, "processes": len(pids)}.items():
                name = f"peak_{key}" if key in sums else key
                self.peaks[name] = max(self.peaks.get(name, 0), value)


def _below(pid: int) -> list[int]:
    """The ids of all processes below one, by what each of its threads started."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_below(int(child))]
    return found


def _memory(pid: int) -> dict[str, int]:
    names = {
        "Rss": "rss",
        "Pss": "pss",
        "Pss_Anon": "pss_anon",
        "Pss_File": "pss_file",
        "Pss_Shmem": "pss_shmem",
    }
    found = dict.fromkeys(names.values(), 0)
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            key, _, rest = line.partition(":")
            if key in names:
                found[names[key]] = int(rest.split()[0]) * 1024
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="SpatialData zarr, multi-scale")
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML with a section HDF5CellExtraction"
    )
    parser.add_argument(
        "--project", type=Path, required=True, help="project folder; replaced if it exists"
    )
    parser.add_argument("--image", default="input_image")
    parser.add_argument(
        "--nucleus", default=None, help="labels element; seg_all_nucleus if the store has it"
    )
    parser.add_argument(
        "--cytosol", default=None, help="labels element; seg_all_cytosol if the store has it"
    )
    parser.add_argument(
        "--partial", type=int, default=None, metavar="N", help="extract N cells picked at random"
    )
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--interval",
        type=float,
        default=0.1,
        help="seconds between two looks at memory; 0: none, for timing",
    )
    parser.add_argument(
        "--mark",
        type=Path,
        default=None,
        help="file to make when the extraction begins, for one who looks from outside",
    )
    return parser.parse_args()


def _labels(args: argparse.Namespace) -> tuple[str | None, str | None]:
    if args.nucleus or args.cytosol:
        return args.nucleus, args.cytosol
    present = {path.name for path in (args.store / "labels").iterdir()}
    nucleus, cytosol = (
        name if name in present else None for name in ("seg_all_nucleus", "seg_all_cytosol")
    )
    if nucleus is None and cytosol is None:
        raise SystemExit(
            f"{args.store} has neither seg_all_nucleus nor seg_all_cytosol, but {sorted(present)}"
        )
    return nucleus, cytosol


def _run(args: argparse.Namespace) -> dict[str, object]:
    started = time.perf_counter()
    import scportrait
    from scportrait.pipeline.extraction import HDF5CellExtraction
    from scportrait.pipeline.project import Project

    imported = time.perf_counter()
    nucleus, cytosol = _labels(args)
    shutil.rmtree(args.project, ignore_errors=True)
    sampler = MemorySampler(args.interval)
    sampler.start()

    project = Project(
        str(args.project),
        config_path=str(args.config),
        extraction_f=HDF5CellExtraction,
        overwrite=False,
        debug=False,
    )
    load_started = time.perf_counter()
    project.load_input_from_sdata(
        str(args.store),
        input_image_name=args.image,
        nucleus_segmentation_name=nucleus,
        cytosol_segmentation_name=cytosol,
        # scPortrait 1.8 knows an empty store by the file names of zarr 2, so even a new project has
        # to be "overwritten".
        overwrite=True,
        keep_all=False,
    )
    load_ended = time.perf_counter()
    load_memory = sampler.take()
    # What loading wrote goes to the disk now, not while the extraction is timed.
    os.sync()
    if args.mark is not None:
        args.mark.touch()
    cpu_before, extract_started = sum(os.times()[:4]), time.perf_counter()

    if args.partial is None:
        project.extract()
    else:
        project.extract(partial=True, n_cells=args.partial, seed=args.seed)
    extract_ended = time.perf_counter()
    sampler.stop()

    step = project.extraction_f
    h5sc = None if step.output_path is None else Path(step.output_path).resolve()
    return {
        "scportrait": scportrait.__version__,
        "import_s": round(imported - started, 3),
        "load_s": round(load_ended - load_started, 3),
        "extract_s": round(extract_ended - extract_started, 3),
        "extract_cpu_s": round(sum(os.times()[:4]) - cpu_before, 3),
        "load_memory": load_memory,
        "extract_memory": sampler.take(),
        "cells": int(step.num_classes),
        "threads": int(step.threads),
        "h5sc": None if h5sc is None else str(h5sc),
        "h5sc_bytes": None if h5sc is None else h5sc.stat().st_size,
    }


def main() -> None:
    args = _arguments()
    with contextlib.redirect_stdout(sys.stderr):
        result = _run(args)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
