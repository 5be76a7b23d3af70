"""Aggregation: ours against decoding alone, and against other packages, on synthetic tissue.

python -m benchmarks.aggregation [--quick] [--skip-peers] [--repeat 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.common import DATA, MB, Outcome, python_with, run_module, spread, table
from benchmarks.decoding import DEFAULT, ZARRS, pipeline_env
from benchmarks.inputs import SIX, Input, say

RANKS = "median,q0.05,q0.25,q0.75"

MAIN = Input((10, 8192, 8192))
SMALL = Input((3, 2048, 2048), 1024)


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    title: str
    statistics: str | None  # None: decoding alone
    cells_only: bool = False
    pipeline: str = DEFAULT

    def measure(self, given: Input, *more: object, mark: Path | None = None) -> Outcome:
        """Run it in a process of its own."""
        python = python_with("zarrs") if self.pipeline == ZARRS else python_with("zarr")
        if python is None:
            raise SystemExit(f"{self.title}: not installed")
        if self.statistics is None:
            argv = [*given.args, "--pipeline", self.pipeline]
            return run_module("decoding", *argv, python=python)
        argv = [*given.args, "--statistics", self.statistics, *more]
        argv += ["--ids", given.ids] if self.cells_only else []
        environment = pipeline_env(self.pipeline)
        return run_module("one_aggregation", *argv, python=python, env=environment, mark=mark)


DECODING = Row("decoding alone", None)
DECODING_ZARRS = Row("decoding alone, zarrs", None, pipeline=ZARRS)
MEAN = Row("mean", "mean")
OURS = (
    MEAN,
    Row("mean, cells only", "mean", cells_only=True),
    Row("all six", SIX),
    Row("all six, cells only", SIX, cells_only=True),
    Row("median, three quantiles", RANKS),
    Row("median, three quantiles, cells only", RANKS, cells_only=True),
)
OURS_ZARRS = (
    Row("mean, zarrs", "mean", pipeline=ZARRS),
    Row("all six, zarrs", SIX, pipeline=ZARRS),
)


@dataclass
class Measured:
    """All rounds, by row."""

    given: Input
    rows: list[Row]
    rounds: list[dict[Row, dict[str, Any]]] = field(default_factory=list)
    weighed: dict[Row, Outcome] = field(default_factory=dict)

    def calls(self, row: Row, which: str) -> list[dict[str, Any]]:
        """What each round found of a row; decoding is there once a round."""
        found = [one[row] for one in self.rounds]
        return found if row.statistics is None else [one[which] for one in found]

    def seconds(self, row: Row, which: str = "again") -> list[float]:
        return [one["seconds"] for one in self.calls(row, which)]

    def ratios(self, row: Row, which: str, below: Row = DECODING) -> list[float]:
        """Seconds as multiples of decoding alone in the same round."""
        both = zip(self.seconds(row, which), self.seconds(below), strict=True)
        return [a / b for a, b in both]


def measure(given: Input, repeat: int) -> Measured:
    """Run all rows in turn, so that a slow minute of the machine falls on all alike."""
    given.ensure()
    rows = [DECODING, *OURS]
    if python_with("zarrs") is not None:
        rows += [DECODING_ZARRS, *OURS_ZARRS]
    measured = Measured(given, rows)
    for row in rows:
        if row.statistics is not None:
            say(given, f"{row.title}, memory; kernels are compiled here")
            mark = DATA / "mark"
            measured.weighed[row] = row.measure(given, "--once", "--mark", mark, mark=mark)
    for number in range(repeat):
        found = {}
        for row in rows:
            say(given, f"{row.title}, round {number + 1}")
            found[row] = row.measure(given).found
        measured.rounds.append(found)
    return measured


# The document


def report(measured: Measured) -> Iterator[str]:
    """Write the section of our own rows."""
    c, height, width = measured.given.shape
    cells = len(np.load(measured.given.ids))
    chunks = (1, measured.given.chunk, measured.given.chunk)
    yield f"### {c} x {height} x {width} uint16, {cells:,} cells, chunks {chunks}, zstd"
    yield _main_table(measured)
    decoded = measured.rounds[0][DECODING]
    yield (
        f"Decoding alone makes {decoded['decoded'] / MB:.0f} MB of {decoded['stored'] / MB:.0f} MB "
        f"in {decoded['chunks']} chunks, in {spread(measured.seconds(DECODING), 2)} s."
    )
    yield "Share of the workers' time in each part, of one second call:"
    yield _parts_table(measured)


def _main_table(measured: Measured) -> str:
    header = ["", "once more, s", "times decoding alone", "first call, s", "times decoding alone"]
    header += ["CPU, s", "values per second, million", "read, MB", "decodes per chunk"]
    header += ["files read per chunk", "peak, MB", "of it no files, MB"]
    lines = []
    for row in measured.rows:
        again = measured.calls(row, "again")
        line = [row.title, spread(measured.seconds(row), 2)]
        if row.statistics is None:
            others = [spread(measured.ratios(row, "again"), 2) if row != DECODING else "", "", ""]
            line += [*others, spread([one["cpu"] for one in again], 1)]
            line += ["", f"{again[0]['stored'] / MB:.0f}", "1.00", "", "", ""]
            lines.append(line)
            continue
        weighed = measured.weighed[row]
        found = weighed.found
        values = [found["pixels"] / s / 1e6 for s in measured.seconds(row)]
        line += [
            spread(measured.ratios(row, "again"), 2),
            spread(measured.seconds(row, "first"), 2),
            spread(measured.ratios(row, "first"), 2),
            spread([one["cpu"] for one in again], 1),
            spread(values, 0),
            f"{again[0]['bytes_read'] / MB:.0f}",
            f"{found['parts']['chunks'] / found['n_chunks']:.2f}",
            files_read(row.pipeline, found),
            f"{weighed.peak / MB:.0f}",
            f"{weighed.peak_own / MB:.0f}",
        ]
        lines.append(line)
    return table(header, lines)


def files_read(pipeline: str, found: dict[str, Any]) -> str:
    """Chunk files opened, by chunk; those that zarrs opens are not seen."""
    if pipeline == ZARRS or found["executor"] != "threads":
        return ""
    return f"{found['first']['chunk_reads'] / found['n_chunks']:.2f}"


def parts_of(found: dict[str, Any]) -> dict[str, float]:
    """Seconds that workers spent in each part."""
    return {
        name.removeprefix("seconds."): seconds
        for name, seconds in found["parts"].items()
        if name.startswith("seconds.") and name != "seconds.work"
    }


def _parts_table(measured: Measured) -> str:
    ours = [row for row in measured.rows if row.statistics is not None]
    found = {row: measured.rounds[0][row] for row in ours}
    names = list(dict.fromkeys(name for one in found.values() for name in parts_of(one)))
    lines = []
    for row, one in found.items():
        parts = parts_of(one)
        total = sum(parts.values())
        shares = [f"{100 * parts.get(name, 0) / total:.0f} %" for name in names]
        lines.append([row.title, *shares, f"{total:.2f}", f"{one['run_s']:.2f}"])
    return table(["", *names, "sum, s", "units, s"], lines)


EXPLANATION = """\
Input: synthetic tissue (`scportrait_like.datasets.tissue`), a SpatialData store of one scale.
`RasterAggregator` gets the zarr arrays as dask arrays, and `aggregate_stats()` is timed from call
to return, with the aggregator's own making. Every measurement is a process of its own, imports left
out. The rows are run in turn, in several rounds; a figure is the median, with the smallest and the
largest, and ratios are taken within one round. The page cache is warm.

- *decoding alone*: zarr-python's default pipeline decodes every chunk of image and mask in two
  threads, and nothing is done with it.
- *first call* loads the compiled kernels from numba's cache; *once more* is a second call of the
  same process.
- *all six*: count, sum, mean, var, skew, kurtosis. *median, three quantiles*: median, q0.05, q0.25,
  q0.75.
- *cells only*: the ids of the cells are given as `index`, which leaves the background out; else it
  is a label like others, as the interface has it, and here it holds most of the pixels.
- *zarrs*: image and mask decoded by the `zarrs` codec pipeline (the extra `fast`), in both.
- *values per second*: pixels of the image, all channels, by second of *once more*.
- *CPU*: user and system seconds. *read*: bytes that the process took in from files, all told.
- *decodes per chunk*: as the run's report tells; *files read*: chunk files that the process opened,
  seen by the interpreter's audit hook.
- *peak*: the largest sum of PSS over the process tree during the first call, imports included,
  looked at from outside in a repetition of its own; *no files*: without pages of mapped files."""

PUBLISHED = """\
Harpy 0.4.2 is not run here. On another machine with two cores, in one run on an input of the same
size (10 x 8192 x 8192, 39,000 cells), it took 20.6 s for the mean and 109.9 s for all six, where
reading all chunks and doing nothing took 1.0 s."""


def main(argv: list[str] | None = None) -> list[str]:
    """Measure, print, and return the section for the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small inputs, once")
    parser.add_argument("--skip-peers", action="store_true", help="leave other packages out")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    args = parser.parse_args(argv)
    repeat = 1 if args.quick else args.repeat
    parts = [EXPLANATION, *report(measure(SMALL if args.quick else MAIN, repeat)), PUBLISHED]
    print("\n\n".join(parts), flush=True)
    if not args.skip_peers:
        section = list(peers.report(peers.INPUTS, repeat))
        print("\n\n".join(section), flush=True)
        parts += section
    return parts


if __name__ == "__main__":
    main()
