"""Models for the tests of featurizations, and what the step made."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import anndata
import numpy as np

from scportrait_like import names
from scportrait_like.models._functions import FunctionModel
from scportrait_like.project import Project

from .helpers import Array, table_digests

HERE = "runs.featurizing"
STEP, EXTRACTION = "Featurization", "HDF5CellExtraction"
# A file of this name in the folder that the variable names: the model fails on the cell in it.
FAILS = "SCPL_TEST_FAILS"


def pixels(batch: Array, embedding_dimension: int) -> Array:
    """All pixels of a window."""
    return batch.reshape(len(batch), -1).astype(np.float32)


def masks(batch: Array, embedding_dimension: int, mask: Array) -> Array:
    """All pixels of the masks."""
    return mask.reshape(len(mask), -1)


def brightness(batch: Array, embedding_dimension: int = 1, scale: float = 1.0) -> Array:
    """The brightest pixel; it fails while it is told to, on a window of odd brightness."""
    if FAILS in os.environ and Path(os.environ[FAILS]).exists() and (batch.max() % 7) == 3:
        raise ArithmeticError("no luck")
    return scale * batch.reshape(len(batch), -1).max(axis=1, keepdims=True).astype(np.float32)


def batch_size(batch: Array, embedding_dimension: int = 1) -> Array:
    """How many windows it got at once."""
    return np.full((len(batch), 1), len(batch))


def channel_maxima(batch: Array, embedding_dimension: int) -> Array:
    """The brightest pixel of each channel."""
    return batch.max(axis=(2, 3, 4))


def features_of(project: Project, name: str = names.FEATURES) -> anndata.AnnData:
    return anndata.read_zarr(project.filehandler.path / "tables" / name)


def feature_digests(folder: Path, name: str = names.FEATURES) -> dict[str, str]:
    """SHA-256 of all that a featurization makes."""
    output = folder / names.FEATURIZATION_DIR / name
    files = [output / names.LEDGER_FILE, output / names.MODEL_FILE]
    found = table_digests(folder, name)
    for path in files:
        if path.exists():
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def windows(image: Array, mask: Array, size: int, background: bool = False) -> Array:
    """(n, c, size, size) by plain numpy, by ascending id."""
    ids = np.unique(mask[mask > 0])
    out = np.zeros((len(ids), len(image), size, size), image.dtype)
    for number, label in enumerate(ids):
        own = mask == label
        top, left = (int(c) - size // 2 for c in np.rint(np.mean(np.nonzero(own), axis=1)))
        for y in range(max(top, 0), min(top + size, mask.shape[0])):
            for x in range(max(left, 0), min(left + size, mask.shape[1])):
                if background or own[y, x]:
                    out[number, :, y - top, x - left] = image[:, y, x]
    return out


def section(**keys: Any) -> dict[str, Any]:
    """A section that reads images."""
    return {"source": "images", "diameter": 17, **keys}


def make_fetched(rest: str, kwargs: Any) -> FunctionModel:
    """An adapter with weights on a server; `fetches` tells whether they were permitted to come."""
    fetches.append(kwargs["download"])
    return FunctionModel.of(brightness, {})


fetches: list[bool] = []
