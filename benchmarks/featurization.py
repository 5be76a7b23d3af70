"""Featurization: ours against decoding alone, and against compressing and writing the output.

python -m benchmarks.featurization [--quick] [--repeat 5]
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.common import DATA, MB, Outcome, run_module, spread, table
from benchmarks.inputs import Input, say

MAIN, MAIN_WINDOW = Input((20, 4096, 4096)), 64
SMALL, SMALL_WINDOW = Input((3, 2048, 2048), 1024), 48
FEATURIZE, EXTRACT = "featurize", "extract"

EXPLANATION = """\
Input: synthetic tissue (`scportrait_like.datasets.tissue`), a SpatialData object of one scale over
zarr arrays. Every measurement is a process of its own, imports left out, timed from call to return,
with the mask's first look, and threads (the default). The rows are run in turn, in several rounds;
a figure is the median, with the smallest and the largest, and ratios are taken within one round.
The page cache is warm.

- *featurize*: `tb.featurize` with a model of one line in numpy, the mean of each channel of a
  window.
- *extract_instances*: `tb.extract_instances(zarr_output_path=...)`: all windows, compressed (zstd)
  and written.
- *decoding alone*: as under Aggregation. *the limit* of extract_instances: decoding alone, and then
  the same output compressed with the same codec and written in two threads, without cutting it.
- *first call* loads the compiled kernels from numba's cache; *once more* is a second call of the
  same process.
- *CPU*, *peak*, *no files*, *files read* as under Aggregation. The mask is read twice: to find the
  cells, and to cut them; all other chunks once."""

PUBLISHED = """\
Harpy 0.4.2 is not run here. On another machine with two cores, on an input of the same size (20 x
4096 x 4096, 9,719 cells, window 64), `extract_instances` to zarr took 13.1 s (742 cells a second),
and `featurize` with a mean-intensity model 9.35 s and 2.6 GB, where decoding all chunks took about
0.5 s."""


@dataclass
class Measured:
    """All rounds, by job, and the limits measured beside."""

    given: Input
    window: int
    rounds: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    weighed: dict[str, Outcome] = field(default_factory=dict)

    def run(self, job: str, *more: object, **options: Any) -> Outcome:
        argv = [*self.given.args, "--job", job, "--diameter", self.window, *more]
        return run_module("one_featurization", *argv, **options)

    def limit(self, number: int) -> list[float]:
        """Seconds of decoding alone (0), and of compressing and writing too (1)."""
        both = [(one["limit"]["decode_s"], one["limit"]["write_s"]) for one in self.rounds]
        return [decode + write * number for decode, write in both]

    def seconds(self, job: str, call: str) -> list[float]:
        return [one[job][call]["seconds"] for one in self.rounds]


def measure(given: Input, window: int, repeat: int) -> Measured:
    """Run all rows in turn, so that a slow minute of the machine falls on all alike."""
    given.ensure()
    measured = Measured(given, window)
    output = DATA / "instances"
    for job in (FEATURIZE, EXTRACT):
        say(given, f"{job}, memory; kernels are compiled here")
        mark = DATA / "mark"
        save = output if job == EXTRACT else DATA / "embedding.npy"
        argv = ["--once", "--mark", mark, "--save", save]
        measured.weighed[job] = measured.run(job, *argv, mark=mark)
    agree(output, DATA / "embedding.npy")
    for number in range(repeat):
        found = {}
        for job in (FEATURIZE, EXTRACT):
            say(given, f"{job}, round {number + 1}")
            found[job] = measured.run(job).found
        say(given, f"the limit, round {number + 1}")
        argv = [*given.args, "--output", output / "image.zarr"]
        found["limit"] = run_module("limit_instances", *argv).found
        measured.rounds.append(found)
    shutil.rmtree(output)
    return measured


def agree(instances: Any, embedding: Any) -> None:
    """Both jobs saw the same windows: the mean of what was written is the embedding."""
    import zarr

    windows = zarr.open_array(instances / "image.zarr", mode="r")
    found = np.load(embedding)
    for at in range(0, windows.shape[0], 1000):
        part = np.asarray(windows[at : at + 1000])
        np.testing.assert_allclose(found[at : at + 1000], part.mean(axis=(2, 3, 4)), rtol=1e-6)
    embedding.unlink()


def report(measured: Measured) -> Iterator[str]:
    """Write the section."""
    cells = measured.weighed[FEATURIZE].found["cells"]
    c, height, width = measured.given.shape
    chunks = (1, measured.given.chunk, measured.given.chunk)
    yield (
        f"### {c} x {height} x {width} uint16, {cells:,} cells, window {measured.window}, "
        f"chunks {chunks}, zstd"
    )
    yield _table(measured, cells)
    first = measured.rounds[0]["limit"]
    yield (
        f"Decoding alone takes {spread(measured.limit(0), 2)} s. The instances are "
        f"{first['raw'] / MB:.0f} MB, compressed {first['written'] / MB:.0f} MB; compressing and "
        f"writing them takes {spread([one['limit']['write_s'] for one in measured.rounds], 2)} s."
    )


def _table(measured: Measured, cells: int) -> str:
    header = ["", "once more, s", "times decoding alone", "times the limit", "first call, s"]
    header += ["CPU, s", "cells per second", "image files read per chunk", "peak, MB"]
    header += ["of it no files, MB"]
    lines = []
    for job, title in ((FEATURIZE, "featurize"), (EXTRACT, "extract_instances to zarr")):
        again, weighed = measured.seconds(job, "again"), measured.weighed[job]
        by = [[a / b for a, b in zip(again, measured.limit(n), strict=True)] for n in (0, 1)]
        found = weighed.found
        image_reads = found["first"]["chunk_reads"] - 2 * found["label_chunks"]
        lines.append(
            [
                title,
                spread(again, 2),
                spread(by[0], 2),
                spread(by[1], 2) if job == EXTRACT else "",
                spread(measured.seconds(job, "first"), 2),
                spread([one[job]["again"]["cpu"] for one in measured.rounds], 1),
                spread([cells / s for s in again], 0),
                f"{image_reads / found['image_chunks']:.2f}",
                f"{weighed.peak / MB:.0f}",
                f"{weighed.peak_own / MB:.0f}",
            ]
        )
    return table(header, lines)


def main(argv: list[str] | None = None) -> list[str]:
    """Measure, print, and return the section for the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small input, once")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    args = parser.parse_args(argv)
    given, window = (SMALL, SMALL_WINDOW) if args.quick else (MAIN, MAIN_WINDOW)
    found = measure(given, window, 1 if args.quick else args.repeat)
    parts = [EXPLANATION, *report(found), PUBLISHED]
    print("\n\n".join(parts), flush=True)
    return parts


if __name__ == "__main__":
    main()
