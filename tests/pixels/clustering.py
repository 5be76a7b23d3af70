"""Projects whose pixels are clustered, and what that made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from scipy.sparse import issparse

from scportrait_like import names
from scportrait_like.filehandler import FileHandler
from scportrait_like.identity import array_identity
from scportrait_like.project import Project

Array = np.ndarray[Any, Any]

STEP = "PixelClustering"
LABELS = (names.PIXEL_CLUSTERS, names.PIXEL_METACLUSTERS)
TABLES = (
    names.PIXEL_CLUSTER_INTENSITIES,
    names.PIXEL_METACLUSTER_INTENSITIES,
    names.PIXEL_CLUSTER_COUNTS,
)
FILES = (names.SOM_FILE, names.MAPPING_FILE)
# A small map, trained at once.
SMALL = {"xdim": 4, "ydim": 3, "n_clusters": 4, "fraction": 0.05}
TILE = 100
CHANNELS = ["channel 0", "channel 1", "channel 2"]


def write(
    folder: Path,
    name: str,
    pixels: Array,
    chunks: tuple[int, ...],
    channels: list[str] | None = None,
    transforms: Any = None,
) -> None:
    """Put an image or labels into a project's store, with an identity as a loader gives it."""
    is_image = pixels.ndim == 3
    with FileHandler(folder).raster_writer(
        name,
        "images" if is_image else "labels",
        pixels.shape,
        pixels.dtype,
        chunks=chunks,
        channel_names=(channels or CHANNELS[: len(pixels)]) if is_image else None,
        transforms=transforms,
        attributes={names.REVISION: array_identity(pixels)},
        overwrite=True,
    ) as writer:
        writer.write((slice(None),) * pixels.ndim, pixels)


def make(
    folder: Path, image: Array, mask: Array | None, section: Any = None, **options: Any
) -> Project:
    """A project whose store has chunks of one tile."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, names.INPUT_IMAGE, image, (1, TILE, TILE))
    if mask is not None:
        write(folder, names.SEG_CYTOSOL, mask, (TILE, TILE))
    return Project(folder, {STEP: SMALL if section is None else section}, **options)


def again(project: Project, section: Any) -> Project:
    """Open a project with another section, as a corrected script does."""
    opened = Project(project.project_location, {STEP: section}, overwrite=True)
    opened.overwrite = False
    for step in opened.steps[STEP]:
        step.overwrite = False
    return opened


def labels_of(project: Project, name: str = names.PIXEL_CLUSTERS) -> Array:
    return project.filehandler.open_array(name)[:]


def table_of(project: Project, name: str) -> anndata.AnnData:
    return anndata.read_zarr(project.filehandler.path / "tables" / name)


def table_parts(store: FileHandler, name: str) -> dict[str, str]:
    """SHA-256 of each part of a table, as anndata alone reads it."""
    table = anndata.read_zarr(store.path / "tables" / name)
    parts = {"X": table.X.toarray() if issparse(table.X) else table.X, **table.obsm}
    uns = json.dumps(dict(table.uns), sort_keys=True, default=str)
    texts = {
        "obs": table.obs.to_csv(),
        "var": table.var.to_csv(),
        "uns": uns,
    }
    content = {key: np.ascontiguousarray(part).tobytes() for key, part in parts.items()}
    content |= {key: text.encode() for key, text in texts.items()}
    return {key: hashlib.sha256(part).hexdigest() for key, part in content.items()}


def clustering_digests(folder: Path, output: str = "data", suffix: str = "") -> dict[str, str]:
    """SHA-256 of all that a pixel clustering with the usual names makes, but for its revision."""
    found: dict[str, str] = {}
    store = FileHandler(folder)
    for name in LABELS:
        for level in range(len(store.level_paths(name + suffix))):
            pixels = store.open_array(name + suffix, level)[:]
            content = str(pixels.dtype).encode() + pixels.tobytes()
            found[f"{name}/{level}"] = hashlib.sha256(content).hexdigest()
    for name in TABLES:
        if name + suffix in store:
            parts = table_parts(store, name + suffix)
            found |= {f"{name}/{part}": digest for part, digest in parts.items()}
    for name in FILES:
        path = folder / names.PIXEL_CLUSTERING_DIR / output / name
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
