"""What the processes do that the tests kill; imported once by the fork server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import anndata  # noqa: F401 - imported before the fork, so that a killed process starts at once
import dask.dataframe  # noqa: F401
import geopandas  # noqa: F401
import numpy as np
import spatialdata  # noqa: F401
import zarr  # noqa: F401

from scportrait_like.filehandler import FileHandler
from scportrait_like.io import placement, store_update

from . import helpers

_CHANGES = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.unlink")


def place_labels(handler: FileHandler, version: int, overwrite: bool = True) -> None:
    pixels = helpers.labels_pixels(version)
    with handler.raster_writer(
        "cells", "labels", pixels.shape, pixels.dtype, chunks=(128, 128), overwrite=overwrite
    ) as writer:
        writer.write((slice(None), slice(None)), pixels)


def place(handler: FileHandler, name: str, version: int) -> None:
    if name == "cells":
        place_labels(handler, version)
    else:
        make = {"intensities": helpers.table, "centers": helpers.points, "rois": helpers.shapes}
        handler.write_element(name, make[name](version), overwrite=True)


NAMES = ("cells", "intensities", "centers")


def no_exchange() -> None:
    placement.exchange = lambda first, second: False


def first_loads(base: Path, seed: int) -> None:
    for number in count():
        handler = FileHandler(base / str(number))
        for name in NAMES:
            place(handler, name, 1)


def replacements(base: Path, seed: int) -> None:
    """Replace the elements in turn, noting each version before and after."""
    order = np.random.default_rng(seed).permutation(len(NAMES))
    handler = FileHandler(base)
    handler.repair()
    for version in count(1 + 1000 * seed):
        for name in (NAMES[i] for i in order):
            (base / f"{name}.begun").write_text(str(version))
            place(handler, name, version)
            (base / f"{name}.done").write_text(str(version))


def replacements_by_journal(base: Path, seed: int) -> None:
    no_exchange()
    replacements(base, seed)


def deletions(base: Path, seed: int) -> None:
    handler = FileHandler(base)
    handler.repair()
    for version in count(1 + 1000 * seed):
        for name in NAMES[1:]:
            if name in handler:
                handler.delete_element(name)
            place(handler, name, version)


def changes_disk(event: str, args: tuple[Any, ...]) -> bool:
    if event == "open":
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR))
    return event in _CHANGES


def killed_at_step(base: Path, action: str, step: int, by_journal: bool) -> None:
    """Kill this process just before its `step`-th change to the disk, counted from the placing."""
    if by_journal:
        no_exchange()
    seen = count()
    armed = False

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if armed and changes_disk(event, args) and next(seen) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(function: Callable[..., None]) -> Callable[..., None]:
        def armed_function(*args: Any) -> None:
            nonlocal armed
            armed = True
            function(*args)

        return armed_function

    store_update.place_element = arm(store_update.place_element)
    store_update.remove_element = arm(store_update.remove_element)
    sys.addaudithook(watch)
    handler = FileHandler(base)
    if action == "delete":
        handler.delete_element("centers")
    else:
        place(handler, action, 2)
