"""The gigapixel job: the mean of 206,000 cells in 100 channels, in 2 GB: ``make bench-gigapixel``.

    python -m benchmarks.gigapixel [--fraction 0.1] [--repeat 3] [--channels 6 --edge 6500]

With --fraction only so much of the image is taken, from the top. With any of the options but
--repeat the tables are printed and the document is left as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.aggregation import files_read, parts_of
from benchmarks.big_store import add_options, ensure
from benchmarks.big_tissue import CHUNK, GIGAPIXEL, IMAGE, LABELS, BigStore, Expected
from benchmarks.common import DATA, MB, Outcome, python_with, run_module, spread, table
from benchmarks.decoding import DEFAULT, ZARRS, pipeline_env
from benchmarks.document import Section

MEMORY_LIMIT = "2GB"
# A look stops the process for milliseconds.
LOOK = 0.5

EXPLANATION = """\
Input: (100, 20000, 20000) uint16 in chunks (1, 2048, 2048), zstd, and a mask; every image chunk is
one of 32, by hard links, and the labels are real (`benchmarks/big_store.py`). **The page cache is
warm**, and 220 MB of it are enough, where the published runs read 80 GB (uncompressed) from a disk.
*ours*: `RasterAggregator(...).aggregate_stats(("mean",))` with `settings.memory_limit = "2GB"`,
from call to return, in a process of its own, loading compiled kernels included. All means are
compared with those that follow from the 32 chunks. The rows are run in turn, and ratios are taken
within one round, to decoding with zarr-python's default pipeline. *decoding alone*, *zarrs*, *CPU*,
*read*, *values per second*, *decodes per chunk* and *files read* as under Aggregation. *peak*: the
largest sum of PSS of the process tree, looked at from outside twice a second."""

PUBLISHED = """\
Published for this job (Harpy's documentation, 206,030 instances of a tonsil; not run here): 103 s
with 16 workers of 4 threads and 39 GB, 405 s and 6.7 GB with one worker of 4 threads."""


@dataclass(frozen=True)
class Job:
    """A store, and how much of it is taken."""

    store: BigStore
    fraction: float

    @property
    def rows(self) -> int:
        """Rows of pixels: whole chunks, save where all are taken."""
        return min(self.store.edge, CHUNK * max(1, round(self.store.along * self.fraction)))

    @property
    def arrays(self) -> list[object]:
        found: list[object] = ["--image", self.store.array_path(IMAGE)]
        return [*found, "--labels", self.store.array_path(LABELS), "--rows", self.rows]

    @property
    def pixels(self) -> int:
        """Of the image, all channels."""
        return self.store.channels * self.rows * self.store.edge

    @property
    def expected(self) -> Expected:
        return Expected(self.store, rows=self.rows)

    def describe(self, cells: int) -> str:
        return (
            f"{self.store.channels} x {self.rows} x {self.store.edge} uint16, {cells:,} cells, "
            f"{self.pixels / 1e9:,.0f} billion values"
        )


def decode(job: Job, pipeline: str, fraction: float = 1.0) -> dict[str, Any]:
    """Decode all chunks, or some of them, and do nothing."""
    python = python_with("zarrs" if pipeline == ZARRS else "zarr")
    argv = [*job.arrays, "--pipeline", pipeline, "--fraction", fraction]
    assert_installed(python)
    return run_module("decoding", *argv, python=python or "").found


def assert_installed(python: Path | None) -> None:
    if python is None:
        raise SystemExit("zarrs is not installed; make .venv-bench/.installed does it")


def pipelines() -> list[str]:
    """The codec pipelines that are there."""
    return [DEFAULT, *([ZARRS] if python_with("zarrs") else [])]


def aggregate(job: Job, pipeline: str, save: Path) -> Outcome:
    """Aggregate through the function interface."""
    python = python_with("zarrs" if pipeline == ZARRS else "zarr")
    assert_installed(python)
    mark = DATA / "mark"
    argv = [*job.arrays, "--memory-limit", MEMORY_LIMIT, "--once", "--mark", mark, "--save", save]
    return run_module(
        "one_aggregation",
        *argv,
        mark=mark,
        python=python or "",
        env=pipeline_env(pipeline),
        interval=LOOK,
    )


def check_means(expected: Expected, ids: Any, means: Any) -> str:
    """Hold all means against those that the store's pattern tells; return how far they are apart.

    Raises
    ------
    SystemExit
        Other ids, or a mean that differs by more than rounding.
    """
    wanted, _ = expected.ids_and_counts()
    order = np.argsort(ids)
    order = order[np.asarray(ids)[order] > 0]
    if not np.array_equal(np.asarray(ids)[order].astype(np.int64), wanted):
        raise SystemExit("the aggregation found other ids than the store has")
    apart = 0.0
    for channel, mean in enumerate(expected.means()):
        apart = max(apart, float(np.abs(means[order, channel] / mean - 1).max()))
    if not apart < 1e-13:
        raise SystemExit(f"a mean differs from what the store's pattern tells by {apart:g}")
    how = f"to {apart:.0e}" if apart else "to the last bit"
    return f"All {means[order].size:,} means agree with the store's pattern {how}."


def measure(job: Job, repeat: int) -> Iterator[str]:
    """Measure in turn; yield the parts of the section."""
    rounds: list[dict[str, Any]] = []
    save = DATA / "found.npz"
    agreed = ""
    for number in range(repeat):
        found: dict[str, Any] = {}
        for pipeline in pipelines():
            print(f"{job.store.name}: decoding, {pipeline}, round {number + 1}", flush=True)
            found[f"decoding {pipeline}"] = decode(job, pipeline)
            print(f"{job.store.name}: ours, {pipeline}, round {number + 1}", flush=True)
            found[f"ours {pipeline}"] = aggregate(job, pipeline, save)
            with np.load(save) as result:
                agreed = check_means(job.expected, result["ids"], result["mean"])
        rounds.append(found)
    save.unlink()
    cells = rounds[0][f"ours {DEFAULT}"].found["rows"] - 1
    yield f"{job.describe(cells)}, budget {MEMORY_LIMIT}. {agreed}"
    yield _table(job, rounds)
    yield "Share of the workers' time in each part:"
    yield profile({p: rounds[0][f"ours {p}"].found for p in pipelines()})


def _table(job: Job, rounds: list[dict[str, Any]]) -> str:
    header = ["", "wall, s", "times decoding alone", "CPU, s", "peak, MB", "read, GB"]
    header += ["decoded, GB", "values per second, million", "decodes per chunk"]
    header += ["files read per chunk"]
    below = [one[f"decoding {DEFAULT}"]["seconds"] for one in rounds]
    lines = []
    for pipeline in pipelines():
        alone = [one[f"decoding {pipeline}"] for one in rounds]
        first = alone[0]
        lines.append(
            [
                title("decoding alone", pipeline),
                spread([one["seconds"] for one in alone]),
                spread([one["seconds"] / a for one, a in zip(alone, below, strict=True)], 2),
                spread([one["cpu"] for one in alone]),
                "",
                f"{first['stored'] / 1e9:.1f}",
                f"{first['decoded'] / 1e9:.1f}",
                "",
                "1.00",
                "",
            ]
        )
        ours = [one[f"ours {pipeline}"] for one in rounds]
        calls = [one.found["first"] for one in ours]
        found = ours[0].found
        ratios = [call["seconds"] / a for call, a in zip(calls, below, strict=True)]
        lines.append(
            [
                title("ours", pipeline),
                spread([call["seconds"] for call in calls]),
                spread(ratios, 2),
                spread([call["cpu"] for call in calls]),
                spread([one.peak / MB for one in ours], 0),
                f"{calls[0]['bytes_read'] / 1e9:.1f}",
                f"{found['parts']['bytes'] / 1e9:.1f}",
                spread([job.pixels / call["seconds"] / 1e6 for call in calls], 0),
                f"{found['parts']['chunks'] / found['n_chunks']:.2f}",
                files_read(pipeline, found),
            ]
        )
    return table(header, lines)


def title(what: str, pipeline: str) -> str:
    return what if pipeline == DEFAULT else f"{what}, {pipeline}"


def profile(found: dict[str, dict[str, Any]]) -> str:
    """Where the workers' time went, by pipeline."""
    names = list(dict.fromkeys(name for one in found.values() for name in parts_of(one)))
    lines = []
    for pipeline, one in found.items():
        parts = parts_of(one)
        total = sum(parts.values())
        shares = [f"{100 * parts.get(name, 0) / total:.0f} %" for name in names]
        last = [f"{total:.1f}", str(one["workers"]), f"{one['run_s']:.1f}"]
        lines.append([title("ours", pipeline), *shares, *last])
    return table(["", *names, "sum, s", "workers", "units, s"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fraction", type=float, default=1.0, help="of the image, for trying")
    parser.add_argument("--repeat", type=int, default=1, help="rounds")
    add_options(parser)
    args = parser.parse_args()
    job = Job(ensure(GIGAPIXEL.sized(args.channels, args.edge)), args.fraction)
    section = Section("Gigapixel", "make bench-gigapixel")
    parts = [EXPLANATION, *measure(job, args.repeat), PUBLISHED]
    print("\n\n".join(parts), flush=True)
    if job.store == GIGAPIXEL and args.fraction == 1.0:
        section.write(parts)


if __name__ == "__main__":
    main()
