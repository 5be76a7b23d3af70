"""Other packages that aggregate, against ours; a part of `aggregation`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import DATA, MB, Stopped, python_with, run_module, spread, table
from benchmarks.inputs import SIX, Input, say
from benchmarks.one_peer import METHODS

# Where everybody finishes; at 3 x 2048 x 2048 dask-image took more than five minutes.
INPUTS = (Input((3, 1024, 1024), 512),)
PATIENCE = 120.0  # seconds that another package is given
LONG = 30.0  # seconds; more often than once is only measured what takes less
_MOST_REPEATS = 3
SETS = ("mean", "mean,var")

EXPLANATION = """\
Timed from the opened zarr arrays to the values, reading included. All but regionprops_table, which
takes none, are given the ids of the cells; so the background is left out. *differs by*: the largest
relative difference from ours; above 1e-6 the benchmark fails. Who does not finish in 2 minutes is
stopped. The variance is that of the population; regionprops_table has the standard deviation, which
is squared. *peak* as above."""


def report(inputs: Sequence[Input], repeat: int) -> Iterator[str]:
    """Measure all inputs, and yield the parts of the section."""
    yield EXPLANATION
    for given in inputs:
        yield from _measure(given, min(repeat, _MOST_REPEATS))


def _measure(given: Input, repeat: int) -> Iterator[str]:
    """Measure an input, and check that all find the same."""
    given.ensure()
    folder = DATA / "peers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ours, peak = _ours_beside(given, folder, repeat)
    lines = [
        [
            f"ours, {title}",
            *(spread([one[call]["seconds"] for one in ours[of]], 2) for of in (*SETS, SIX)),
            *_rest(ours["mean"][0][call]["cpu"], peak, 0.0),
        ]
        for title, call in (("first call", "first"), ("once more", "again"))
    ]
    lines += [_peer_line(name, given, folder, repeat) for name in METHODS]
    c, height, width = given.shape
    cells = len(np.load(given.ids))
    yield f"### Other packages: {c} x {height} x {width} uint16, {cells:,} cells"
    header = ["", *(f"{of.replace(',', ' and ')}, s" for of in SETS), "all six, s"]
    yield table([*header, "CPU of the mean, s", "peak, MB", "differs by"], lines)


def _ours_beside(given: Input, folder: Path, repeat: int) -> tuple[dict[str, Any], int]:
    """What our repetitions found, by set, and the peak of the mean."""
    say(given, "ours, memory")
    mark = DATA / "mark"
    argv = [*given.args, "--ids", given.ids]
    peak = run_module("one_aggregation", *argv, "--once", "--mark", mark, mark=mark).peak
    found: dict[str, Any] = {}
    for of in (*SETS, SIX):
        save = ["--statistics", of, "--save", folder / f"ours-{of}.npz"]
        say(given, f"ours, {of}")
        found[of] = [run_module("one_aggregation", *argv, *save).found for _ in range(repeat)]
    return found, peak


def _rest(cpu: float, peak: int, differs: float) -> list[str]:
    return [f"{cpu:.1f}", f"{peak / MB:.0f}", f"{differs:.0e}" if differs else ""]


def _peer_line(name: str, given: Input, folder: Path, repeat: int) -> list[str]:
    """A row: seconds by set, or what went wrong."""
    package, _ = METHODS[name]
    python = python_with(package.split(".")[0])
    blank = [""] * (len(SETS) + 4)
    if python is None:
        return [name, "not installed", *blank[1:]]
    save, mark = folder / "peer.npz", DATA / "mark"
    cells: list[str] = []
    differs, weighed = 0.0, None
    for of in SETS:
        say(given, f"{name}, {of}")
        argv = ["--method", name, *given.args, "--statistics", of, "--save", save]
        argv += ["--ids", given.ids]
        how: dict[str, Any] = {"python": python, "timeout": PATIENCE}
        try:
            if weighed is None:
                weighed = run_module("one_peer", *argv, "--mark", mark, mark=mark, **how)
                # What takes long is measured once.
                repeat = repeat if weighed.found["seconds"] < LONG else 1
            runs = [run_module("one_peer", *argv, **how).found for _ in range(repeat)]
        except Stopped as stopped:
            cells.append(str(stopped))
            break
        except SystemExit as failed:
            cells.append(f"failed: {str(failed).strip().splitlines()[-1][:60]}")
            break
        cells.append(spread([one["seconds"] for one in runs], 2))
        differs = max(differs, deviation(save, folder / f"ours-{of}.npz"))
    cells += blank[: len(SETS) + 1 - len(cells)]
    if weighed is None:
        return [name, *cells, *blank[:3]]
    return [name, *cells, *_rest(weighed.found["cpu"], weighed.peak, differs)]


def deviation(theirs: Path, ours: Path) -> float:
    """The largest relative difference between two results.

    Raises
    ------
    SystemExit
        They are of other cells, or differ by more than rounding.
    """
    with np.load(theirs) as one, np.load(ours) as two:
        if not np.array_equal(one["ids"].astype(np.int64), two["ids"].astype(np.int64)):
            raise SystemExit(f"{theirs} and {ours} are of other cells")
        found = 0.0
        for name in set(one.files) - {"ids"}:
            apart = np.abs(one[name] - two[name]) / np.maximum(np.abs(two[name]), 1e-300)
            found = max(found, float(apart.max()))
    if not found < 1e-6:
        raise SystemExit(f"{theirs} and {ours} differ by {found:g}")
    return found
