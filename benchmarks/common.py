"""What the benchmarks share: processes watched from outside, medians, tables."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "benchmarks" / "data"
KERNELS = DATA / "numba"
MB = 1e6
_INTERVAL = 0.05  # seconds between two looks at memory


@dataclass(frozen=True)
class Outcome:
    """What a process printed (its last line, JSON), and how much memory its tree took.

    ``peak`` is the largest sum of PSS in bytes, ``peak_own`` the same without mapped files; both 0
    where nobody looked.
    """

    found: dict[str, Any]
    peak: int = 0
    peak_own: int = 0


class Stopped(Exception):
    """A process did not end in the time it was given, and was killed."""


def run(
    argv: Sequence[object],
    mark: Path | None = None,
    env: Mapping[str, str] | None = None,
    interval: float = _INTERVAL,
    timeout: float | None = None,
) -> Outcome:
    """Run a process to its end.

    With ``mark``, its tree's memory is watched from the moment when the process makes that file.
    Looking stops a process for milliseconds: weigh in one repetition, and time in others, or look
    seldom (``interval``, in seconds).

    Raises
    ------
    Stopped
        It took more than ``timeout`` seconds.
    SystemExit
        It failed.
    """
    # What others wrote would go to the disk while this one waits for its own bytes.
    os.sync()
    process = start(argv, env)
    peak = peak_own = 0
    if mark is not None:
        mark.unlink(missing_ok=True)
    watching = threading.Event()

    def look() -> None:
        nonlocal peak, peak_own
        while mark is not None and not watching.wait(interval):
            if mark.exists():
                total, own = tree_memory(process.pid)
                peak, peak_own = max(peak, total), max(peak_own, own)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_tree(process)
        raise Stopped(f"stopped after {timeout:.0f} s") from None
    finally:
        watching.set()
        watcher.join()
        if mark is not None:
            mark.unlink(missing_ok=True)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, argv))} failed:\n{err[-4000:]}")
    return Outcome(json.loads(out.splitlines()[-1]), peak, peak_own)


def start(
    argv: Sequence[object], env: Mapping[str, str] | None = None, output: Any = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start a process in the checkout; what it prints goes into a pipe, or into a file."""
    return subprocess.Popen(
        [str(word) for word in argv],
        stdout=output,
        stderr=output,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
    )


def kill_tree(process: subprocess.Popen[str]) -> None:
    """Kill a process that we started, with all below it."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        below = []
    process.kill()
    for child in below:
        with suppress(psutil.Error):
            child.kill()
    process.wait()


def module_argv(module: str, *args: object, python: Path | str = sys.executable) -> list[object]:
    """How to run a module of this folder in a fresh interpreter."""
    return [python, "-m", f"benchmarks.{module}", *args]


# Compiled kernels are kept in a folder of the benchmarks' own.
MODULE_ENV = {"NUMBA_CACHE_DIR": str(KERNELS)}


def run_module(
    module: str,
    *args: object,
    mark: Path | None = None,
    python: Path | str = sys.executable,
    env: Mapping[str, str] | None = None,
    interval: float = _INTERVAL,
    timeout: float | None = None,
) -> Outcome:
    """Run a module of this folder in a fresh interpreter of our own environment, or of another."""
    argv = module_argv(module, *args, python=python)
    return run(argv, mark, {**MODULE_ENV, **(env or {})}, interval, timeout)


@functools.cache
def python_with(package: str) -> Path | None:
    """An interpreter that can import a package: this one, the one of `.venv-bench`, or None."""
    if importlib.util.find_spec(package) is not None:
        return Path(sys.executable)
    other = ROOT / ".venv-bench" / "bin" / "python"
    if not other.exists():
        return None
    found = subprocess.run([other, "-c", f"import {package}"], capture_output=True, check=False)
    return other if found.returncode == 0 else None


def tree_memory(pid: int) -> tuple[int, int]:
    """Sum of PSS of a process and all below it, with and without mapped files, in bytes."""
    try:
        tree = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return 0, 0
    total = own = 0
    for member in tree:
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
        total += sizes["Pss"]
        own += sizes["Pss_Anon"] + sizes["Pss_Shmem"]
    return total, own


def cpu_seconds() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def bytes_read() -> int:
    """Bytes that this process and its children that have ended took in by reading files."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    return 0


class ChunkReads:
    """Counts how often chunk files of some zarr arrays are opened by this process.

    Whoever opens them is seen, save code that is not Python's.
    """

    def __init__(self, arrays: Iterable[Path]) -> None:
        self.n = 0
        self._folders = tuple(f"{path}/c/" for path in arrays)
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[object, ...]) -> None:
        if event == "open" and str(args[0]).startswith(self._folders):
            self.n += 1


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Write the median, with the smallest and the largest where there are several."""
    numbers = sorted(values)
    if not numbers:
        return ""
    middle = f"{statistics.median(numbers):.{digits}f}"
    if len(numbers) == 1:
        return middle
    return f"{middle} ({numbers[0]:.{digits}f} to {numbers[-1]:.{digits}f})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; numbers to the right, the first column to the left."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def machine() -> str:
    """Say where and with what this was measured."""
    memory = psutil.virtual_memory().total / 1e9
    packages = ("numpy", "numba", "zarr", "h5py", "spatialdata", "scportrait-like")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    busy = os.getloadavg()[0]
    return (
        f"{_processor()}, {cores} cores, {memory:.0f} GB, {platform.system()} "
        f"{platform.release()}; Python {platform.python_version()}, {versions}. "
        f"{time.strftime('%Y-%m-%d')}; load of the machine before the first measurement: "
        f"{busy:.1f}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
