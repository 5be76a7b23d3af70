"""Projects to run, and what they made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from scportrait_like import names
from scportrait_like.filehandler import FileHandler
from scportrait_like.project import Project

OUTPUTS = (names.H5SC_FILE, names.LEDGER_FILE, names.REMOVED_FILE)
Array = np.ndarray[Any, Any]


def digests(output: Path) -> dict[str, str]:
    """SHA-256 of each file of an extraction."""
    return {name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in OUTPUTS}


def table_digests(project: Path, name: str = names.INTENSITIES) -> dict[str, str]:
    """SHA-256 of each part of a table of a project, as anndata alone reads it."""
    import anndata

    table = anndata.read_zarr(project / names.STORE / "tables" / name)
    parts = {"X": table.X, **table.layers, **table.obsm}
    found = {key: np.ascontiguousarray(part).tobytes() for key, part in parts.items()}
    uns = json.dumps(dict(table.uns), sort_keys=True, default=str)
    texts = {"obs": table.obs.to_csv(), "var": table.var.to_csv(), "uns": uns}
    found |= {key: text.encode() for key, text in texts.items()}
    return {key: hashlib.sha256(part).hexdigest() for key, part in found.items()}


def aggregation_digests(project: Path, output: str = names.EXTRACTION_DATA) -> dict[str, str]:
    """SHA-256 of all that an aggregation with the table's usual name makes."""
    ledger = project / names.AGGREGATION_DIR / output / names.LEDGER_FILE
    return {
        **table_digests(project),
        names.LEDGER_FILE: hashlib.sha256(ledger.read_bytes()).hexdigest(),
    }


def write_raster(
    folder: Path, name: str, pixels: Array, chunks: tuple[int, ...], overwrite: bool = False
) -> None:
    """Put an image or labels with any chunks into a project's store."""
    kind = "images" if pixels.ndim == 3 else "labels"
    channels = [f"channel {i}" for i in range(len(pixels))] if pixels.ndim == 3 else None
    with FileHandler(folder).raster_writer(
        name,
        kind,
        pixels.shape,
        pixels.dtype,
        chunks=chunks,
        channel_names=channels,
        overwrite=overwrite,
    ) as writer:
        writer.write((slice(None),) * pixels.ndim, pixels)


def project_of(
    folder: Path,
    config: dict[str, Any],
    image: Array,
    cytosol: Array | None = None,
    nucleus: Array | None = None,
    *,
    image_chunks: tuple[int, int] = (64, 64),
    mask_chunks: tuple[int, int] = (64, 64),
    **options: Any,
) -> Project:
    """Make a project whose store has small chunks."""
    folder.mkdir(parents=True, exist_ok=True)
    write_raster(folder, names.INPUT_IMAGE, image, (1, *image_chunks))
    for name, mask in ((names.SEG_NUCLEUS, nucleus), (names.SEG_CYTOSOL, cytosol)):
        if mask is not None:
            write_raster(folder, name, mask, mask_chunks)
    return Project(folder, {"HDF5CellExtraction": config}, **options)
