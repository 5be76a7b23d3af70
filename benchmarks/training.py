"""Training: instances handed to PyTorch, of images and of an `.h5sc` file, against plain h5py.

python -m benchmarks.training [--quick] [--repeat 3]
"""

from __future__ import annotations

import argparse
import functools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import scportrait_like as sl
from benchmarks.common import DATA, MB, ROOT, run_module, spread, table
from benchmarks.inputs import Input, say
from scportrait_like import names

MAIN, MAIN_WINDOW = Input((20, 4096, 4096)), 64
SMALL, SMALL_WINDOW = Input((3, 2048, 2048), 1024), 48
WORKERS = (0, 2)
WAYS = {
    "h5sc": "`.h5sc`, `InstanceDataset`",
    "h5py": "`.h5sc`, plain h5py at random",
    "images": "images, `InstanceDataset`",
}

EXPLANATION = """\
Input: synthetic tissue (`scportrait_like.datasets.tissue`) in a project, and its extraction with
the same edge. PyTorch's `DataLoader` hands out batches of 64 as float32, and nothing is done with
them. Every measurement is a process of its own with two epochs; workers are forked in the first one
and stay. The rows are run in turn, in several rounds; a figure is the median, with the smallest and
the largest. The page cache is warm. Reader and workers share two cores.

- *plain h5py*: a data set of ten lines that reads the picture of a number, shuffled by the loader.
- *images*: windows cut from image and mask, each epoch anew.
- *files read*: chunk files of the image opened in an epoch, by chunk; those of workers are not
  seen."""


@functools.cache
def python_with_torch() -> Path:
    """An interpreter with PyTorch: this one, or that of `.venv-torch`."""
    for python in (Path(sys.executable), ROOT / ".venv-torch" / "bin" / "python"):
        if not python.exists():
            continue
        found = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
        if found.returncode == 0:
            return python
    raise SystemExit("PyTorch is not installed: make .venv-torch/.installed")


@dataclass
class Measured:
    """All rounds, by way and workers."""

    given: Input
    window: int
    rounds: list[dict[tuple[str, int], dict[str, Any]]] = field(default_factory=list)

    def epochs(self, row: tuple[str, int], number: int) -> list[dict[str, Any]]:
        return [one[row]["epochs"][number] for one in self.rounds]


def measure(given: Input, window: int, repeat: int) -> Measured:
    """Run all rows in turn, so that a slow minute of the machine falls on all alike."""
    python = python_with_torch()
    given.ensure()
    folder = DATA / "training"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / names.STORE).symlink_to(given.path)
    say(given, "extraction")
    sl.Project(folder, {"HDF5CellExtraction": {"image_size": window, "border": "pad"}}).extract()
    measured = Measured(given, window)
    for number in range(repeat):
        found = {}
        for workers in WORKERS:
            for way in WAYS:
                say(given, f"{way}, {workers} workers, round {number + 1}")
                argv = ["--way", way, "--project", folder, "--diameter", window]
                argv += ["--workers", workers]
                found[way, workers] = run_module("one_training", *argv, python=python).found
        measured.rounds.append(found)
    shutil.rmtree(folder)
    return measured


def report(measured: Measured) -> Iterator[str]:
    """Write the section."""
    c, height, width = measured.given.shape
    first = measured.epochs(("images", 0), 0)[0]
    yield (
        f"### {c} x {height} x {width} uint16, {first['instances']:,} instances, "
        f"{c} x {measured.window} x {measured.window}, chunks of {measured.given.chunk}"
    )
    header = ["", "workers", "instances per second", "MB per second", "first epoch, s"]
    header += ["second epoch, s", "times plain h5py", "files read per chunk"]
    lines = []
    for workers in WORKERS:
        plain = [one["seconds"] for one in measured.epochs(("h5py", workers), 1)]
        for way, title in WAYS.items():
            begin, later = (measured.epochs((way, workers), number) for number in (0, 1))
            seconds = [one["seconds"] for one in later]
            rates = [one["instances"] / one["seconds"] for one in later]
            bytes_ = [4 * one["pixels"] / MB / one["seconds"] for one in later]
            ratio = [a / b for a, b in zip(plain, seconds, strict=True)]
            seen = way == "images" and not workers
            lines.append(
                [
                    title,
                    str(workers),
                    spread(rates, 0),
                    spread(bytes_, 0),
                    spread([one["seconds"] for one in begin], 2),
                    spread(seconds, 2),
                    spread(ratio, 1) if way != "h5py" else "",
                    f"{later[0]['chunk_reads']:.2f}" if seen else "",
                ]
            )
    yield table(header, lines)


def main(argv: list[str] | None = None) -> list[str]:
    """Measure, print, and return the section for the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small input, once")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    args = parser.parse_args(argv)
    given, window = (SMALL, SMALL_WINDOW) if args.quick else (MAIN, MAIN_WINDOW)
    parts = [EXPLANATION, *report(measure(given, window, 1 if args.quick else args.repeat))]
    print("\n\n".join(parts), flush=True)
    return parts


if __name__ == "__main__":
    main()
