"""The terapixel job: the mean of 280,000 cells in 100 channels, in 8 GB: ``make bench-terapixel``.

    python -m benchmarks.terapixel [--fraction 0.05] [--skip-zarrs] [--no-kill]
                                   [--channels 4 --edge 9000]

Through the project's step, which is killed (SIGKILL) once a third of its units is finished, and
called again. With --fraction only so much of the image is taken, from the top. With any of the
options but --skip-zarrs the tables are printed and the document is left as it is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import psutil

from benchmarks.big_store import add_options, ensure
from benchmarks.big_tissue import IMAGE, LABELS, TERAPIXEL
from benchmarks.common import (
    DATA,
    MB,
    MODULE_ENV,
    module_argv,
    python_with,
    run_module,
    start,
    table,
    tree_memory,
)
from benchmarks.decoding import DEFAULT, ZARRS, pipeline_env
from benchmarks.document import Section
from benchmarks.gigapixel import (
    LOOK,
    Job,
    assert_installed,
    check_means,
    decode,
    pipelines,
    profile,
    title,
)
from benchmarks.one_step import TABLE
from scportrait_like import names
from scportrait_like.run.rundir import RunDirectory

MEMORY_LIMIT = "8GB"
_POLL = 0.1  # seconds
# A twentieth of the chunks tells how long all take.
SAMPLE = 0.05
KILL_AT = 1 / 3

EXPLANATION = """\
Input: (100, 100000, 100000) uint16 in chunks (1, 2048, 2048), zstd, and a mask; every image chunk
is one of 32, by hard links, and the labels are real (`benchmarks/big_store.py`). **The page cache
is warm**, and 360 MB of it are enough, where the published runs read 1.5 TB from a disk: this
measures decoding and computing, not a disk. *ours*: `project.aggregate()` with
`memory_limit: 8GB`, from call to return; it is killed (SIGKILL) when a third of its units is
finished, then called again in a new process, where it goes on. All means are compared with those
that follow from the 32 chunks. *decoding alone*: two threads, nothing done; measured on a twentieth
of the chunks, evenly spread, before, between and after our runs, and extrapolated. Ratios are to
that of zarr-python's default pipeline. *CPU*, *read* and *values per second* as under
Aggregation. *peak*: the largest sum of PSS of the process tree, looked at from outside twice a
second."""

PUBLISHED = """\
Published for this job (Harpy's documentation, 278,482 instances of a liver; not run here): 1,150 s
with 16 workers and 110 GB, 6,700 s and 128 GB with one worker, both reading from a disk."""


@dataclass
class Part:
    """One call of the step, to its end or until it was killed.

    Attributes
    ----------
    seconds, cpu, bytes_read, peak
        What it took, in seconds and bytes.
    before, after, units
        Units finished when it began and when it ended, and all.
    started
        Units that were begun, those of earlier calls included.
    found
        What the process told; None where it was killed.
    """

    seconds: float
    cpu: float
    bytes_read: float
    peak: int
    before: int
    after: int
    units: int
    started: int
    found: dict[str, Any] | None = None


def make_project(job: Job) -> Path:
    """A new project whose store holds links to the arrays of the big store.

    The step writes a table, and the big store is to stay as it is. With a fraction, the arrays are
    told to be shorter.
    """
    project = DATA / f"{job.store.name}-project"
    shutil.rmtree(project, ignore_errors=True)
    store = project / names.STORE
    for element in (IMAGE, LABELS):
        array = job.store.array_path(element).relative_to(job.store.path)
        copied = [*array.parents]
        if job.rows == job.store.edge:
            linked = array.parent
            copied.remove(linked)
        else:
            linked = array / "c"
            copied.append(array)
        (store / linked).parent.mkdir(parents=True, exist_ok=True)
        (store / linked).symlink_to(job.store.path / linked)
        for folder in copied:
            node = json.loads((job.store.path / folder / "zarr.json").read_text())
            (store / folder / "zarr.json").write_text(json.dumps(_shortened(node, job.rows)))
    return project


def _shortened(node: dict[str, Any], rows: int) -> dict[str, Any]:
    """The metadata of an array, or of all arrays of a store, with so many rows of pixels."""
    if "shape" in node:
        *outer, _, width = node["shape"]
        return {**node, "shape": [*outer, rows, width]}
    listed = node.get("consolidated_metadata")
    if listed is None:
        return node
    short = {path: _shortened(one, rows) for path, one in listed["metadata"].items()}
    return {**node, "consolidated_metadata": {**listed, "metadata": short}}


def run_of(project: Path) -> RunDirectory | None:
    """The step's run directory, while there is one."""
    found = next(iter(project.glob("*/.*.run")), None)
    return RunDirectory(found) if found is not None else None


def progress(project: Path) -> tuple[int, int, int]:
    """Units finished, units in all, and how many were begun; zeros before the plan is there."""
    run = run_of(project)
    return (*run.progress(), len(run.started())) if run is not None else (0, 0, 0)


def step_argv(project: Path, mark: Path) -> list[object]:
    return ["--project", project, "--memory-limit", MEMORY_LIMIT, "--mark", mark]


def run_until(project: Path, pipeline: str, share: float) -> Part:
    """Call the step, and kill its process when a share of the units is finished."""
    python = python_with("zarrs" if pipeline == ZARRS else "zarr")
    assert_installed(python)
    mark = DATA / "mark"
    mark.unlink(missing_ok=True)
    argv = module_argv("one_step", *step_argv(project, mark), python=python or "")
    # Nobody reads a pipe meanwhile, and a full one would stop the process.
    with (project / "killed.log").open("w+") as log:
        process = start(argv, {**MODULE_ENV, **pipeline_env(pipeline)}, log)
        while process.poll() is None and not mark.exists():
            time.sleep(_POLL)
        began = time.perf_counter()
        peak, cpu, taken = _watch(process, project, share)
        process.kill()
        process.wait()
        ended = time.perf_counter()
        log.seek(0)
        said = log.read()
    mark.unlink(missing_ok=True)
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"the step ended before it could be killed:\n{said[-4000:]}")
    done, units, started = progress(project)
    return Part(ended - began, cpu, taken, peak, 0, done, units, started)


def _watch(process: subprocess.Popen[str], project: Path, share: float) -> tuple[int, float, float]:
    """Look at a process until a share of the units is finished: its peak, CPU and bytes read."""
    peak, units, cpu, taken = 0, 0, 0.0, 0.0
    for number in itertools.count():
        time.sleep(_POLL)
        if process.poll() is not None:
            break
        with suppress(psutil.Error):
            cpu, taken = _taken(process)
        if number % round(LOOK / _POLL) == 0:
            peak = max(peak, tree_memory(process.pid)[0])
        run = run_of(project)
        if run is None:
            continue
        # The plan does not change, and reading it takes time from who works.
        units = units or run.progress()[1]
        if units and len(run.finished()) >= share * units:
            break
    return peak, cpu, taken


def _taken(process: subprocess.Popen[str]) -> tuple[float, float]:
    """CPU seconds and bytes read of a process that runs, its imports included."""
    there = psutil.Process(process.pid)
    times = there.cpu_times()
    return sum(times[:4]), float(there.io_counters().read_chars)


def run_on(project: Path, pipeline: str) -> Part:
    """Call the step and let it end."""
    python = python_with("zarrs" if pipeline == ZARRS else "zarr")
    assert_installed(python)
    before, _, started = progress(project)
    mark = DATA / "mark"
    outcome = run_module(
        "one_step",
        *step_argv(project, mark),
        mark=mark,
        python=python or "",
        env=pipeline_env(pipeline),
        interval=LOOK,
    )
    found = outcome.found
    if found["resumed"] != before:
        raise SystemExit(f"{before} units lay finished, but {found['resumed']} were taken over")
    units = found["resumed"] + found["computed"]
    return Part(
        found["seconds"],
        found["cpu"],
        found["bytes_read"],
        outcome.peak,
        before,
        units,
        units,
        started + found["computed"],
        found,
    )


def check_table(job: Job, project: Path) -> tuple[int, str]:
    """Hold the table's means against the store's pattern; return the number of cells too."""
    import anndata

    read: Any = anndata.read_zarr(project / names.STORE / "tables" / TABLE)
    ids = read.obs[names.INSTANCE_KEY].to_numpy()
    return len(ids), check_means(job.expected, ids, np.asarray(read.X))


def measure(job: Job, kill: bool, wanted: list[str]) -> Iterator[str]:
    """Measure, and yield the parts of the section."""
    sampled: dict[str, list[dict[str, Any]]] = {pipeline: [] for pipeline in wanted}
    ours: dict[str, list[Part]] = {}
    agreed = ""
    cells = 0

    def sample() -> None:
        for pipeline in wanted:
            _say(job, f"decoding a share of the chunks, {pipeline}")
            sampled[pipeline].append(decode(job, pipeline, SAMPLE))

    sample()
    for pipeline in wanted:
        project = make_project(job)
        parts = []
        if kill and pipeline == DEFAULT:
            _say(job, f"ours, {pipeline}, to be killed")
            parts.append(run_until(project, pipeline, KILL_AT))
            _say(job, f"killed with {parts[0].after} of {parts[0].units} units finished")
        _say(job, f"ours, {pipeline}, to the end")
        parts.append(run_on(project, pipeline))
        ours[pipeline] = parts
        cells, agreed = check_table(job, project)
        shutil.rmtree(project)
        sample()
    yield f"{job.describe(cells)}, budget {MEMORY_LIMIT}. {agreed}"
    yield _table(job, sampled, ours)
    if len(ours[DEFAULT]) == 2:
        yield _resumed(ours[DEFAULT])
    yield (
        "Share of the workers' time in each part, of the calls that ran to their end (*units*: "
        "from the first unit of work to the last; what lies outside is looking through the store, "
        "planning, merging and writing the table):"
    )
    yield profile({p: parts[-1].found for p, parts in ours.items() if parts[-1].found})
    yield _outside(ours)


def _say(job: Job, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {job.store.name}: {what}", flush=True)


def _table(job: Job, sampled: dict[str, list[dict[str, Any]]], ours: dict[str, list[Part]]) -> str:
    header = ["", "wall, s", "times decoding alone", "CPU, s", "peak, MB", "read, GB"]
    header += ["units computed", "decodes per chunk", "values per second, million"]
    below = mean(one["whole_s"] for one in sampled[DEFAULT])
    lines = []
    for pipeline, found in sampled.items():
        whole = [one["whole_s"] for one in found]
        lines.append(
            [
                title("decoding alone, extrapolated", pipeline),
                f"{mean(whole):.0f} ({min(whole):.0f} to {max(whole):.0f})",
                f"{mean(whole) / below:.2f}",
                f"{mean(one['whole_cpu'] for one in found):.0f}",
                "",
                f"{mean(one['whole_stored'] for one in found) / 1e9:.0f}",
                "",
                "1.00",
                "",
            ]
        )
    for pipeline, parts in ours.items():
        wall = sum(part.seconds for part in parts)
        total = [
            title("ours", pipeline),
            f"{wall:.0f}",
            f"{wall / below:.2f}",
            f"{sum(part.cpu for part in parts):.0f}",
            f"{max(part.peak for part in parts) / MB:.0f}",
            f"{sum(part.bytes_read for part in parts) / 1e9:.0f}",
            str(parts[-1].started),
            _decodes(parts[-1], sampled[DEFAULT][0]["n_chunks"]),
            f"{job.pixels / wall / 1e6:.0f}",
        ]
        lines.append(total)
        if len(parts) > 1:
            for what, part in zip(("until it was killed", "called again"), parts, strict=True):
                lines.append(
                    [
                        f"- {what}",
                        f"{part.seconds:.0f}",
                        "",
                        f"{part.cpu:.0f}",
                        f"{part.peak / MB:.0f}",
                        f"{part.bytes_read / 1e9:.0f}",
                        str(part.after - part.before),
                        "",
                        "",
                    ]
                )
    return table(header, lines)


def _decodes(part: Part, n_chunks: int) -> str:
    """Chunks that a call decoded, by chunk of the units that it computed."""
    if part.found is None:
        return ""
    share = part.found["computed"] / part.units
    return f"{part.found['parts']['chunks'] / (n_chunks * share):.2f}"


def _resumed(parts: list[Part]) -> str:
    first, second = parts
    return (
        f"When it was killed, {first.after} of {first.units} units lay finished and "
        f"{first.started - first.after} were under way. The second call took over "
        f"{second.before} units and computed {second.after - second.before}."
    )


def _outside(ours: dict[str, list[Part]]) -> str:
    lines = []
    for pipeline, parts in ours.items():
        found = parts[-1].found
        if found is not None:
            lines.append(
                f"{title('ours', pipeline)}: {found['seconds']:.1f} s of the call, "
                f"{found['run_s']:.1f} s of them units, {found['seconds'] - found['run_s']:.1f} s "
                "outside."
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fraction", type=float, default=1.0, help="of the image, for trying")
    parser.add_argument("--skip-zarrs", action="store_true", help="the default pipeline only")
    parser.add_argument("--no-kill", action="store_true", help="let the first call end")
    add_options(parser)
    args = parser.parse_args()
    job = Job(ensure(TERAPIXEL.sized(args.channels, args.edge)), args.fraction)
    section = Section("Terapixel", "make bench-terapixel")
    wanted = [DEFAULT] if args.skip_zarrs else pipelines()
    parts = [EXPLANATION, *measure(job, not args.no_kill, wanted), PUBLISHED]
    print("\n\n".join(parts), flush=True)
    if job.store == TERAPIXEL and args.fraction == 1.0 and not args.no_kill:
        section.write(parts)


if __name__ == "__main__":
    main()
