"""Extraction: ours, scPortrait's, and the limit, on the same synthetic tissue.

python -m benchmarks.extraction [--quick] [--only 8192] [--skip-peer] [--repeat 3]
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import scportrait_like as sl
from benchmarks.common import DATA, KERNELS, MB, ROOT, Outcome, run, run_module, spread, table

EXECUTORS = ("default", "threads", "processes")
PEER = "scPortrait 1.8.0"
LIMIT = "the limit"


@dataclass(frozen=True)
class Size:
    """One input: its edge in pixels, and the edge of the pictures."""

    edge: int
    image_size: int

    @property
    def store(self) -> Path:
        return DATA / f"tissue{self.edge}.zarr"

    @property
    def project(self) -> Path:
        return DATA / f"project{self.edge}"

    @property
    def peer_project(self) -> Path:
        return DATA / f"peer{self.edge}"

    def args(self, executor: str) -> list[object]:
        found: list[object] = ["--store", self.store, "--project", self.project]
        found += ["--size", self.image_size]
        return found if executor == "default" else [*found, "--executor", executor]


SIZES = (Size(8192, 64), Size(4096, 128))
QUICK = (Size(2048, 64),)


@dataclass
class Measured:
    """All repetitions of one input, by row of the table."""

    size: Size
    outcomes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    weighed: dict[str, Outcome] = field(default_factory=dict)
    fresh: dict[str, Any] = field(default_factory=dict)

    def add(self, row: str, found: dict[str, Any]) -> None:
        self.outcomes.setdefault(row, []).append(found)

    def seconds(self, row: str, which: str = "first") -> list[float]:
        """Seconds of each repetition."""
        found = self.outcomes.get(row, [])
        if row == LIMIT:
            return [one["decode_s"] + one["write_s"] for one in found]
        if row == PEER:
            return [one["extract_s"] for one in found] if which == "first" else []
        return [one[which]["seconds"] for one in found]

    def cpu(self, row: str) -> list[float]:
        if row == LIMIT:
            return []
        found = self.outcomes.get(row, [])
        return [one["extract_cpu_s"] if row == PEER else one["first"]["cpu"] for one in found]

    def ratios(self, above: str, below: str) -> list[float]:
        """Ratios of the seconds of two rows, each within one repetition."""
        both = zip(self.seconds(above), self.seconds(below), strict=False)
        return [a / b for a, b in both]

    def cpu_ratios(self, above: str, below: str) -> list[float]:
        """Ratios of the processor time of two rows, each within one repetition."""
        return [a / b for a, b in zip(self.cpu(above), self.cpu(below), strict=False)]


def peer_python() -> Path | None:
    """Interpreter of scPortrait's own environment, or None."""
    given = os.environ.get("SCPORTRAIT_PYTHON")
    python = Path(given) if given else ROOT / ".venv-peers" / "bin" / "python"
    return python if python.exists() else None


def measure(size: Size, repeat: int, python: Path | None) -> Measured:
    """Run everything in turn, so that a slow minute of the machine falls on all alike."""
    if not size.store.exists():
        print(f"writing {size.store}", flush=True)
        DATA.mkdir(parents=True, exist_ok=True)
        sl.datasets.tissue((5, size.edge, size.edge)).write_store(size.store)
    measured = Measured(size)
    measured.fresh = _fresh(size)
    for number in range(repeat):
        for executor in EXECUTORS:
            _say(size, f"{executor}, repetition {number + 1}")
            measured.add(executor, run_module("one_extraction", *size.args(executor)).found)
        _say(size, f"limit, repetition {number + 1}")
        measured.add(LIMIT, run_module("limit", "--project", size.project).found)
        if python is not None:
            _say(size, f"{PEER}, repetition {number + 1}")
            measured.add(PEER, run(_peer_argv(size, python)).found)
    mark = DATA / "mark"
    for executor in EXECUTORS:
        _say(size, f"{executor}, memory")
        argv = [*size.args(executor), "--once", "--mark", mark]
        measured.weighed[executor] = run_module("one_extraction", *argv, mark=mark)
    if python is not None:
        _say(size, f"{PEER}, memory")
        measured.weighed[PEER] = run([*_peer_argv(size, python), "--mark", mark], mark=mark)
        shutil.rmtree(size.peer_project)
    return measured


def _say(size: Size, what: str) -> None:
    print(f"{size.edge} x {size.edge}: {what}", flush=True)


def _fresh(size: Size) -> dict[str, Any]:
    """Load and extract as on a new machine: no project, and no compiled kernels."""
    for old in (KERNELS, size.project):
        shutil.rmtree(old, ignore_errors=True)
    _say(size, "new project, no compiled kernels")
    argv = [*size.args("default"), "--once"]
    compiling = run_module("one_extraction", *argv)
    shutil.rmtree(size.project)
    _say(size, "new project, compiled kernels; the page cache is warm from here on")
    loading = run_module("one_extraction", *argv)
    return {"compiling": compiling.found, "loading": loading.found}


def _peer_argv(size: Size, python: Path) -> list[object]:
    config = DATA / f"peer{size.edge}.yml"
    config.write_text(
        "name: peer\n"
        "HDF5CellExtraction:\n"
        "  threads: 2\n"
        f"  image_size: {size.image_size}\n"
        f"  cache: {DATA}\n"
        "  normalize_output: true\n"
        "  normalization_range: [0.01, 0.99]\n"
        "  compression: lzf\n"
    )
    script = ROOT / "tests" / "peers" / "run_scportrait.py"
    return [
        python,
        script,
        *("--store", size.store, "--config", config, "--project", size.peer_project),
        *("--interval", 0),
    ]


# The document


def report(measured: Measured) -> Iterator[str]:
    """Write one input's section."""
    size = measured.size
    found = measured.outcomes["default"][0]
    peer = measured.outcomes.get(PEER, [])
    yield (
        f"### {size.edge} x {size.edge}, 5 channels uint16, {found['cells']:,} cells kept, "
        f"image_size {size.image_size}"
    )
    yield _main_table(measured)
    limit = measured.outcomes[LIMIT]
    yield (
        f"The limit decodes {limit[0]['decoded'] / MB:.0f} MB in "
        f"{spread([one['decode_s'] for one in limit], 2)} s and writes "
        f"{limit[0]['written'] / MB:.0f} MB in {spread([one['write_s'] for one in limit], 2)} s."
    )
    yield "Share of the workers' time in each part, and decodes per chunk:"
    yield _parts_table(measured)
    yield "Before the extraction, and the first time on a machine:"
    yield _load_table(measured)
    if peer:
        ours, theirs = found["h5sc_bytes"] / MB, peer[0]["h5sc_bytes"] / MB
        yield f"The files take {ours:.0f} MB (ours) and {theirs:.0f} MB (scPortrait's)."


def _main_table(measured: Measured) -> str:
    header = ["", "extract(), s", "once more, s", "CPU, s", "times faster than scPortrait"]
    header += [
        "times less CPU",
        "times the limit",
        "peak, MB",
        "of it no files, MB",
        "share of scPortrait's peak",
    ]
    rows = []
    theirs = measured.weighed.get(PEER)
    for row in (*EXECUTORS, PEER, LIMIT):
        if row not in measured.outcomes:
            continue
        weighed = measured.weighed.get(row)
        ours = row in EXECUTORS
        share = weighed.peak / theirs.peak if weighed and theirs else None
        rows.append(
            [
                _title(measured, row),
                spread(measured.seconds(row), 2),
                spread(measured.seconds(row, "again"), 2) if ours else "",
                spread(measured.cpu(row)),
                spread(measured.ratios(PEER, row)) if ours else "",
                spread(measured.cpu_ratios(PEER, row)) if ours else "",
                spread(measured.ratios(row, LIMIT)) if row != LIMIT else "",
                f"{weighed.peak / MB:.0f}" if weighed else "",
                f"{weighed.peak_own / MB:.0f}" if weighed else "",
                f"{share:.2f}" if share and ours else "",
            ]
        )
    return table(header, rows)


def _title(measured: Measured, row: str) -> str:
    if row != "default":
        return f"ours, {row}" if row in EXECUTORS else row
    return f"ours, default ({measured.outcomes[row][0]['executor']})"


def _parts_table(measured: Measured) -> str:
    names: list[str] = []
    for row in EXECUTORS:
        for name in measured.outcomes[row][0]["parts"]:
            if name.startswith("seconds.") and name != "seconds.work" and name not in names:
                names.append(name)
    header = ["", *(name.removeprefix("seconds.") for name in names)]
    header += ["sum, s", "units, s", "decodes per chunk", "files read per chunk"]
    rows = []
    for row in EXECUTORS:
        found = measured.outcomes[row]
        sums = [sum(one["parts"].get(name, 0) for name in names) for one in found]
        shares = [
            median(
                one["parts"].get(name, 0) / total for one, total in zip(found, sums, strict=True)
            )
            for name in names
        ]
        rows.append(
            [
                _title(measured, row),
                *(f"{100 * share:.0f} %" for share in shares),
                spread(sums, 2),
                spread([one["run_s"] for one in found], 2),
                f"{found[0]['parts']['chunks'] / found[0]['n_chunks']:.2f}",
                _reads(measured.weighed[row].found),
            ]
        )
    return table(header, rows)


def _reads(found: dict[str, Any]) -> str:
    """Chunk files opened, by chunk; workers that are processes of their own are not seen."""
    if found["executor"] == "processes":
        return ""
    return f"{found['chunk_reads'] / found['n_chunks']:.2f}"


def _load_table(measured: Measured) -> str:
    compiling, loading = measured.fresh["compiling"], measured.fresh["loading"]
    later = [one["load_s"] for one in measured.outcomes["default"]]
    rows = [
        ["ours", f"{loading['load_s']:.1f}", f"{loading['first']['seconds']:.1f}"],
        ["ours, loaded before", spread(later), spread(measured.seconds("default"))],
        [
            "ours, kernels not yet compiled",
            f"{compiling['load_s']:.1f}",
            f"{compiling['first']['seconds']:.1f}",
        ],
    ]
    if found := measured.outcomes.get(PEER):
        rows.append(
            [PEER, spread([one["load_s"] for one in found]), spread(measured.seconds(PEER))]
        )
    return table(["", "load, s", "extract(), s"], rows)


EXPLANATION = """\
Input: synthetic tissue (`scportrait_like.datasets.tissue`), a multi-scale SpatialData store;
`normalization_range` (0.01, 0.99), one mask (cytosol), lzf, two workers. Every measurement is a
process of its own that loads (ours: finds the store loaded already; scPortrait loads it each time)
and then calls `extract()`, timed from call to return. The rows are run in turn, several times; a
figure is the median, with the smallest and the largest. Ratios are taken within one repetition.
Files are in the page cache, and what others wrote was flushed before. Compiled kernels lie in
numba's cache, save where it says so.

- *ours, default / threads / processes*: the executor left open, or set in the config.
- *once more*: a second `extract()` of the same process, after the output was removed.
- *the limit*: every chunk of image and mask decoded by zarr-python in two threads, then as many
  bytes as our file has written and flushed.
- *CPU*: user and system seconds of the whole process tree during `extract()`; on a machine that
  others use as well, *times less CPU* is surer than *times faster*.
- *peak*: the largest sum of PSS over the process tree during `extract()`, imports included, looked
  at from outside in a repetition of its own; *no files*: without pages of mapped files.
- *units*: from the first unit of work to the last byte of the file; what lies before is planning.
- *sum*: over all workers; *read* is decoding, *stream* is handing over what was compressed, and
  *commit* waiting for the disk.
- *decodes per chunk*: as the run's report tells; *files read*: chunk files that the process opened,
  seen by the interpreter's audit hook."""


def main(argv: list[str] | None = None) -> list[str]:
    """Measure, print, and return the section for the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    args = parser.parse_args(argv)
    sizes = QUICK if args.quick else [s for s in SIZES if args.only in (None, s.edge)]
    python = None if args.skip_peer else peer_python()
    parts = [EXPLANATION]
    if python is None:
        parts.append(
            "The rows of scPortrait are left out: its environment was not there, or not wanted "
            "(`make .venv-peers/.installed` makes it)."
        )
    for size in sizes:
        section = list(report(measure(size, 1 if args.quick else args.repeat, python)))
        print("\n\n".join(section), flush=True)
        parts += section
    return parts


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose what is measured."""
    parser.add_argument("--quick", action="store_true", help="small inputs, once")
    parser.add_argument("--only", type=int, choices=[s.edge for s in SIZES], help="one input")
    parser.add_argument("--skip-peer", action="store_true", help="leave scPortrait out")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions")


if __name__ == "__main__":
    main()
