"""How much memory was granted, and how much is taken.

Taken is the sum of PSS (proportional set size) over the process tree: RSS counts a page that
several processes share once for each of them and overstates a pool of workers by 20 to 30 %.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import psutil

from scportrait_like import settings
from scportrait_like.config import DEFAULT_SHARE, parse_size
from scportrait_like.errors import ConfigError

logger = logging.getLogger(__name__)

MB: Final = 1_000_000
# A worker process with numpy, numba, zarr and loaded kernels takes 124 MB, loky's helpers 24 MB.
WORKER_BYTES: Final = 160 * MB
# No closed formula foresaw the peak better than to 15 %, so this much is left free.
MARGIN: Final = 0.12
# glibc keeps freed blocks, as it is tuned here up to 256 MB of them: of a budget below this, too
# large a share.
SCARCE: Final = 1500 * MB

_CGROUP: Final = Path("/sys/fs/cgroup")


def container_limit(
    membership: Path = Path("/proc/self/cgroup"), root: Path = _CGROUP
) -> int | None:
    """Smallest memory limit of a cgroup (v1 or v2) on this process's path, in bytes, or None."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, file = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, file = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        here = base / path.lstrip("/")
        # In a container the path may be the host's; then the root of the mount is ours.
        for folder in [here, *here.parents]:
            limit = _read_limit(folder / file)
            if limit is not None:
                limits.append(limit)
            if folder == base:
                break
    return min(limits, default=None)


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    # v1 writes "no limit" as a number near 2^63.
    return int(text) if text.isdigit() and int(text) < 1 << 60 else None


def granted_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_budget(limit: int | str | None = None, share: float = DEFAULT_SHARE) -> int:
    """Bytes that the process tree may take.

    Parameters
    ----------
    limit
        What the user grants (``"4GB"``, bytes); None: `scportrait_like.settings.memory_limit`.
    share
        Share of min(physical memory, container limit) where neither is given.

    Raises
    ------
    ConfigError
        The limit is not a size.
    """
    try:
        budget = parse_size(settings.memory_limit if limit is None else limit)
    except ValueError as error:
        raise ConfigError(f"memory_limit {limit!r} is not allowed: {error}") from None
    physical = psutil.virtual_memory()
    if budget is None:
        granted = min(physical.total, container_limit() or physical.total)
        budget = int(share * granted)
    if physical.available < budget - tree_memory():
        logger.warning(
            "the memory budget is %d MB, but only %d MB are free now",
            budget // MB,
            physical.available // MB,
        )
    return budget


def process_memory(pid: int) -> int:
    """PSS of one process in bytes (RSS where the system does not tell PSS); 0 if it is gone."""
    try:
        if Path("/proc/self/smaps_rollup").exists():
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123 - hot
                for line in file:
                    if line.startswith(b"Pss:"):
                        return int(line.split()[1]) * 1024
            return 0
        return int(psutil.Process(pid).memory_info().rss)
    except (OSError, psutil.Error):
        return 0


def tree_memory() -> int:
    """Sum of PSS of this process and all its descendants, in bytes."""
    return sum(process_memory(pid) for pid in process_tree(os.getpid()))


def process_tree(pid: int) -> list[int]:
    """Pids of a process and of all its descendants."""
    if Path(f"/proc/{pid}/task/{pid}/children").exists():
        found = [pid]
        for parent in found:  # grows while it is walked
            found += _children(parent)
        return found
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return [pid]


def _children(pid: int) -> list[int]:
    """Children of a process, which each of its threads may have started."""
    found: list[int] = []
    with suppress(OSError):  # the process is gone
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - hot
            with suppress(OSError):  # the thread is gone
                text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
                found += map(int, text.split())
    return found


@dataclass
class MemoryWatch:
    """Samples the process tree's memory in a thread while its ``with`` block runs.

    Attributes
    ----------
    interval
        Seconds between two samples at least.
    cost
        Share of the time that sampling may take: the system walks all pages of a process for its
        PSS, 10 ms a gigabyte, so with much memory samples are rarer.
    now, peak, recent
        Bytes at the last sample, the most seen, and the most seen since `recent` was last set.
    """

    interval: float = 0.1
    cost: float = 0.02
    now: int = 0
    peak: int = 0
    recent: int = 0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-watch", daemon=True)

    def _sample(self) -> None:
        pause = self.interval
        while not self._stop.wait(pause):
            began = time.perf_counter()
            self.measure()
            pause = max(self.interval, (time.perf_counter() - began) / self.cost)

    def measure(self) -> int:
        """Take a sample now."""
        self.now = tree_memory()
        self.peak = max(self.peak, self.now)
        self.recent = max(self.recent, self.now)
        return self.now

    def __enter__(self) -> MemoryWatch:
        self.measure()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.measure()


_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def tune_allocator(tight: bool = True) -> None:
    """Tell glibc what to do with large blocks that are freed, such as decoded chunks.

    Parameters
    ----------
    tight
        True: give them back to the system at once, which cuts the peak of a run by 21 to 43 %. The
        system clears each page anew then, which takes a third of the time again. False: keep up to
        256 MB for the next chunk; decoding takes 15 % less of the processor's time.
    """
    with suppress(OSError, AttributeError):  # a C library without it
        if (libc := _libc()) is not None:
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20 if tight else 1 << 25)
            libc.mallopt(_M_TRIM_THRESHOLD, 1 << 17 if tight else 1 << 28)


def allow_open_files(count: int) -> None:
    """Raise this process's limit of open files, where it may, so that so many more can be open."""
    with suppress(ImportError, OSError, ValueError):  # not on every system, and not above its own
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count + 512
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def release_freed() -> None:
    """Give back what glibc and arrow keep of freed memory, so that a baseline holds none of it."""
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):
        if (libc := _libc()) is not None:
            libc.malloc_trim(0)
