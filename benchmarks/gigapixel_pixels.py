"""Pixel clustering from 17 megapixels to 1 gigapixel, in 2 GB: ``make bench-gigapixel``.

    python -m benchmarks.gigapixel_pixels [--quick] [--only 4096 10240]

With --quick the images are small ones; with --only those of such edges are taken (that of 100
channels has 20000). With any of them the tables are printed and the document is left as it is.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.big_store import ensure
from benchmarks.big_tissue import CHUNK, DISTINCT, GIGAPIXEL, IMAGE, BigStore
from benchmarks.common import DATA, MB, Outcome, run_module, table
from benchmarks.document import Section
from benchmarks.gigapixel import LOOK, MEMORY_LIMIT

CHANNELS, EDGE = 20, 32_768
EDGES = (4096, 10_240, EDGE)
QUICK_CHANNELS, QUICK_EDGE = 4, 6144
QUICK_EDGES = (2048, 4096, QUICK_EDGE)
SAMPLES = 335_544  # of 4096 x 4096 pixels the 0.02 that Pixel clustering has
PREDICTED = 100_000  # pixels in each of five places
# A chunk of 100 channels is 839 MB, and each of two threads holds one.
MEMORY_LIMIT_ALL = "4GB"

EXPLANATION = f"""\
Input: ({CHANNELS}, {EDGE}, {EDGE}) uint16 as under Gigapixel, every chunk one of {DISTINCT}, from
the top left as much as is said; and all of the gigapixel store. The page cache is warm.
`im.flowsom` on a grid of 10 x 10 nodes, trained on {SAMPLES:,} pixels whatever the size, with
`memory_limit="{MEMORY_LIMIT}"` ("{MEMORY_LIMIT_ALL}" with all channels: those of a chunk are 839
MB); the labels are written into a SpatialData store. Each once, in a process of its own, in two
threads.

- *ours*: from call to return, without the import and the training of `flowsom`, which take the same
  at all sizes; of it *drawing*, the pass that draws the sample, *assignment*, the pass that
  assigns, with its decoding, and *labels*, from the end of it until the labels are in the store.
  *The rest* does not grow with the image: the sample put in order and made a table, the trained map
  kept.
- *assignment without reading*: time of both threads for it, halved.
- *decoding alone*: every chunk of the image decoded once by zarr-python in two threads, nothing
  done with it; ours decodes each twice.
- *peak*: the largest sum of PSS of the process tree, looked at from outside twice a second, with
  import and training.

Chunks that are alike in all channels must have the same labels, everywhere, and in five places
about {PREDICTED:,} clusters are compared with those of the trained model's `predict`; else the
benchmark fails."""


@dataclass(frozen=True)
class Job:
    """A store, and how much of it is taken along y and x."""

    store: BigStore
    edge: int
    memory_limit: str = MEMORY_LIMIT

    @property
    def args(self) -> list[object]:
        edge = ["--rows", self.edge, "--columns", self.edge]
        return ["--image", self.store.array_path(IMAGE), *edge]

    @property
    def megapixels(self) -> float:
        return self.edge**2 / 1e6

    @property
    def title(self) -> str:
        return f"{self.store.channels} x {self.edge} x {self.edge}"


@dataclass(frozen=True)
class Measured:
    """What one job took, and how many of its labels stand again where pixels are the same."""

    job: Job
    outcome: Outcome
    alone: float
    repeated: int

    @property
    def ours(self) -> float:
        """Seconds without import and training."""
        return float(self.outcome.found["seconds"] - self.outcome.found["training_s"])

    def per_megapixel(self, seconds: float) -> float:
        return seconds / self.job.megapixels


def measure(job: Job) -> Measured:
    """Run one job and check its labels."""
    store = DATA / "clustered.zarr"
    mark = DATA / "mark-pixels"
    shutil.rmtree(store, ignore_errors=True)
    print(f"{job.title}: decoding", flush=True)
    alone = run_module("decoding", *job.args).found["seconds"]
    print(f"{job.title}: ours", flush=True)
    argv = [*job.args, "--fraction", 1, "--max-samples", SAMPLES, "--store", store]
    argv += ["--memory-limit", job.memory_limit, "--predict", PREDICTED, "--mark", mark]
    outcome = run_module("one_pixel_clustering", *argv, mark=mark, interval=LOOK)
    labels = [store / "labels" / name for name in ("clusters", "metaclusters")]
    repeated = sum(check_repeats(job, each) for each in labels)
    shutil.rmtree(store)
    return Measured(job, outcome, alone, repeated)


def check_repeats(job: Job, labels: Path) -> int:
    """Hold the labels of all chunks against those of the first one with the same pixels.

    Returns
    -------
    int
        How many were held against others.

    Raises
    ------
    SystemExit
        They differ.
    """
    import zarr

    array: Any = zarr.open_group(labels, mode="r")["s0"]
    if array.shape != (job.edge, job.edge):
        raise SystemExit(f"{labels} has the shape {array.shape}")
    first: dict[int, Any] = {}
    compared = 0
    places = range(0, job.edge, CHUNK)
    for y, x in product(places, places):
        # Which chunk lies in a channel is told by this one number: see `distinct_of`.
        which = int(job.store.distinct_of(0, y // CHUNK, x // CHUNK))
        found = np.asarray(array[y : y + CHUNK, x : x + CHUNK])
        wanted = first.setdefault(which, found)
        height, width = map(min, found.shape, wanted.shape)
        if not found.all() or not np.array_equal(found[:height, :width], wanted[:height, :width]):
            raise SystemExit(f"{labels.name}: other labels of the same pixels at y={y}, x={x}")
        compared += 0 if found is wanted else height * width
    return compared


def report(rows: list[Measured]) -> Iterator[str]:
    """Write the section."""
    header = ["", "megapixels", "ours, s", "s per megapixel", "times decoding alone"]
    header += ["decoding alone, s per megapixel", "peak, MB", "peak, bytes per pixel", "workers"]
    yield table(header, [_line(row) for row in rows])
    yield "Seconds per megapixel, and seconds:"
    header = ["", "drawing", "assignment", "labels", "assignment without reading"]
    header += ["the rest, s", "training, s"]
    yield table(header, [_parts(row) for row in rows])
    repeated = sum(row.repeated for row in rows)
    compared = sum(5 * row.outcome.found["predict"]["pixels"] for row in rows)
    yield (
        f"{repeated:,} labels of chunks that are alike are the same, and {compared:,} clusters are "
        "those of `predict`."
    )


def _line(row: Measured) -> list[str]:
    return [
        row.job.title,
        f"{row.job.megapixels:.0f}",
        f"{row.ours:.1f}",
        f"{row.per_megapixel(row.ours):.3f}",
        f"{row.ours / row.alone:.2f}",
        f"{row.per_megapixel(row.alone):.3f}",
        f"{row.outcome.peak / MB:.0f}",
        f"{row.outcome.peak / row.job.edge**2:.1f}",
        str(row.outcome.found["workers"]),
    ]


def _parts(row: Measured) -> list[str]:
    found = row.outcome.found
    parts = [found["stages"]["draw"], found["stages"]["assign"], found["after_s"]]
    parts.append(found["parts"]["seconds.assign"] / found["workers"])
    return [
        row.job.title,
        *(f"{row.per_megapixel(seconds):.3f}" for seconds in parts),
        f"{row.ours - sum(parts[:3]):.1f}",
        f"{found['training_s']:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small images, for trying")
    parser.add_argument("--only", type=int, nargs="+", help="edges of the images, for trying")
    args = parser.parse_args()
    jobs = [job for job in _jobs(args.quick) if args.only is None or job.edge in args.only]
    for store in {job.store.name: job.store for job in jobs}.values():
        ensure(store)
    section = Section("Gigapixel pixels", "make bench-gigapixel")
    parts = [EXPLANATION, *report([measure(job) for job in jobs])]
    print("\n\n".join(parts), flush=True)
    if not args.quick and args.only is None:
        section.write(parts)


def _jobs(quick: bool) -> list[Job]:
    if quick:
        store = GIGAPIXEL.sized(QUICK_CHANNELS, QUICK_EDGE)
        return [Job(store, edge) for edge in QUICK_EDGES]
    store = GIGAPIXEL.sized(CHANNELS, EDGE)
    return [*(Job(store, edge) for edge in EDGES), Job(GIGAPIXEL, GIGAPIXEL.edge, MEMORY_LIMIT_ALL)]


if __name__ == "__main__":
    main()
