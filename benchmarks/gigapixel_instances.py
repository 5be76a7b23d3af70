"""Instances of the gigapixel store: embeddings of 100 channels, windows of 10 channels to zarr.

    python -m benchmarks.gigapixel_instances [--fraction 0.1] [--channels 6 --edge 6500]

With --fraction only so much of the image is taken, from the top; then, or with another store, the
tables are printed and the document is left as it is.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.big_store import add_options, ensure
from benchmarks.big_tissue import GIGAPIXEL
from benchmarks.common import DATA, MB, run_module, table
from benchmarks.decoding import DEFAULT
from benchmarks.document import Section
from benchmarks.featurization import EXTRACT, FEATURIZE
from benchmarks.gigapixel import LOOK, MEMORY_LIMIT, Job, decode

WINDOW = 50
# Of the 100 channels: 10 GB of windows instead of 103.
CHANNELS = 10

EXPLANATION = f"""\
The store is that of Gigapixel; the page cache is warm. *featurize*: `tb.featurize` with the mean of
each channel of a window of {WINDOW} pixels, all channels. *extract_instances*: all windows of the
first {CHANNELS} channels, compressed and written to zarr; with all channels they would be 103 GB.
Each once, in a process of its own, with `settings.memory_limit = "{MEMORY_LIMIT}"`, from call to
return. *cell planes*: cells x channels. *decoding alone*: as under Aggregation, the same chunks.
*peak*: the largest sum of PSS of the process tree, looked at from outside twice a second. That of
the terapixel store (557 GB of windows) is not run."""

PUBLISHED = """\
Published for `extract_instances` to zarr of 206,030 cells in 100 channels, window 50 (Harpy's
documentation; not run here): 920 s with one worker of four threads, which is 22,400 cell planes per
second, and 150 s with sixteen (62 GB), 137,000 per second."""


def measure(job: Job) -> Iterator[str]:
    """Measure; yield the parts of the section."""
    found = {}
    saves = {FEATURIZE: DATA / "embedding.npy", EXTRACT: DATA / "instances"}
    for name, channels in ((FEATURIZE, job.store.channels), (EXTRACT, CHANNELS)):
        channels = min(channels, job.store.channels)
        print(f"{job.store.name}: decoding {channels} channels", flush=True)
        alone = decode(job, DEFAULT)
        print(f"{job.store.name}: {name}", flush=True)
        mark = DATA / "mark"
        argv = [*job.arrays, "--job", name, "--diameter", WINDOW, "--channels", channels]
        argv += ["--memory-limit", MEMORY_LIMIT, "--once", "--mark", mark, "--save", saves[name]]
        outcome = run_module("one_featurization", *argv, mark=mark, interval=LOOK)
        share = channels / job.store.channels
        found[name] = outcome, alone["seconds"] * share
    agreed = check(saves[FEATURIZE], saves[EXTRACT])
    cells = found[FEATURIZE][0].found["cells"]
    yield f"{job.describe(cells)}, budget {MEMORY_LIMIT}. {agreed}"
    yield _table(found)


def check(embedding: Any, instances: Any) -> str:
    """Hold the means of written windows against the embeddings."""
    import zarr

    means = np.load(embedding)
    windows = zarr.open_array(instances / "image.zarr", mode="r")
    rows = np.unique(np.linspace(0, windows.shape[0] - 1, 2000).astype(int))
    for row in rows:
        mean = np.asarray(windows[int(row)]).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(means[row, : len(mean)], mean, rtol=1e-6)
    embedding.unlink()
    shutil.rmtree(instances)
    return f"The means of {len(rows):,} written windows equal their embeddings."


def _table(found: dict[str, Any]) -> str:
    header = ["", "wall, s", "times decoding alone", "cell planes per second", "CPU, s"]
    header += ["written, GB", "image files read per chunk", "peak, MB"]
    lines = []
    for name, (outcome, alone) in found.items():
        one = outcome.found
        first = one["first"]
        planes = one["cells"] * one["channels"]
        reads = first["chunk_reads"] - 2 * one["label_chunks"]
        lines.append(
            [
                f"{name}, {one['channels']} channels",
                f"{first['seconds']:.1f}",
                f"{first['seconds'] / alone:.2f}",
                f"{planes / first['seconds']:,.0f}",
                f"{first['cpu']:.0f}",
                f"{one['written'] / 1e9:.1f}" if name == EXTRACT else "",
                f"{reads / one['image_chunks']:.2f}",
                f"{outcome.peak / MB:.0f}",
            ]
        )
    return table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fraction", type=float, default=1.0, help="of the image, for trying")
    add_options(parser)
    args = parser.parse_args()
    job = Job(ensure(GIGAPIXEL.sized(args.channels, args.edge)), args.fraction)
    section = Section("Gigapixel instances", "make bench-gigapixel")
    parts = [EXPLANATION, *measure(job), PUBLISHED]
    print("\n\n".join(parts), flush=True)
    if job.store == GIGAPIXEL and args.fraction == 1.0:
        section.write(parts)


if __name__ == "__main__":
    main()
