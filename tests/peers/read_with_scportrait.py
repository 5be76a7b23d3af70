"""Read an .h5sc with scPortrait's own reader, data set and featurizer (in the peer's environment).

    python read_with_scportrait.py single_cells.h5sc
    python read_with_scportrait.py single_cells.h5sc --project FOLDER
    python read_with_scportrait.py single_cells.h5sc --project FOLDER --only project

The last line of the standard output is one JSON object: `read_h5sc`, `dataset`, `loader`,
`featurizer` and, with --project, `project`: what `Project.featurize()` makes on a copy of the
folder, beside the tables that were there. scPortrait's own output goes to the standard error. The
project folder itself is not touched: opening it with scPortrait rewrites its config and log, and
featurizing adds tables.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FEATURIZER = {
    "batch_size": 64,
    "dataloader_worker_number": 0,
    "inference_device": "cpu",
    "label": "peer",
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("h5sc", type=Path)
    parser.add_argument(
        "--project", type=Path, default=None, help="a project folder that holds the file"
    )
    parser.add_argument("--rows", type=int, default=5, help="rows of the feature tables to print")
    parser.add_argument("--only", default=None, metavar="PART", help="one part of the result")
    return parser.parse_args()


def _plain(value: Any) -> Any:
    """What JSON can hold of a value found in an AnnData."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


def _sums(images: Any) -> list[float]:
    """One float64 sum a channel, image by image."""
    total = np.zeros(images.shape[1])
    for row in range(images.shape[0]):
        total += np.asarray(images[row], dtype=np.float64).sum(axis=(1, 2))
    return [float(value) for value in total]


def _read_h5sc(path: Path) -> dict[str, Any]:
    from scportrait.io import read_h5sc

    adata = read_h5sc(path)
    images = adata.obsm["single_cell_images"]
    ids = adata.obs["scportrait_cell_id"]
    return {
        "shape": list(images.shape),
        "dtype": str(images.dtype),
        "chunks": _plain(images.chunks),
        "compression": images.compression,
        "attrs": {key: _plain(value) for key, value in images.attrs.items()},
        "ids": _plain(ids.to_numpy()),
        "ids_dtype": str(ids.dtype),
        "obs_names": list(adata.obs_names[:3]),
        "var": {column: [str(value) for value in adata.var[column]] for column in adata.var},
        "uns": _plain(dict(adata.uns)),
        "channel_sums": _sums(images),
    }


def _dataset(path: Path) -> dict[str, Any]:
    from scportrait.tools.ml.datasets import H5ScSingleCellDataset

    with H5ScSingleCellDataset(dir_list=[path], dir_labels=[0], return_id=True) as dataset:
        image, label, _ = dataset[0]
        total = np.zeros(image.shape[0])
        ids = []
        for row in range(len(dataset)):
            image, label, cell_id = dataset[row]
            total += image.numpy().astype(np.float64).sum(axis=(1, 2))
            ids.append(int(cell_id))
        return {
            "length": len(dataset),
            "image_shape": list(image.shape),
            "image_dtype": str(image.dtype),
            "label": float(label),
            "ids": ids,
            "channel_sums": [float(value) for value in total],
        }


def _loader(path: Path) -> dict[str, Any]:
    """Batches from PyTorch's loader with two worker processes, one channel selected."""
    import torch
    from scportrait.tools.ml.datasets import H5ScSingleCellDataset

    dataset = H5ScSingleCellDataset(
        dir_list=[path], dir_labels=[0], return_id=True, select_channel=[0]
    )
    batches = torch.utils.data.DataLoader(dataset, batch_size=16, num_workers=2, shuffle=False)
    ids, total = [], 0.0
    for image, _, cell_id in batches:
        ids += cell_id.tolist()
        total += float(image.double().sum())
    return {"ids": ids, "sum_of_channel_0": total}


def _table(names: list[str], values: np.ndarray, ids: np.ndarray, rows: int) -> dict[str, Any]:
    return {
        "columns": names,
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "ids": _plain(ids),
        "column_sums": _plain(np.nansum(np.asarray(values, dtype=np.float64), axis=0)),
        "not_a_number": int(np.isnan(values).sum()),
        "first_rows": _plain(np.asarray(values[:rows], dtype=np.float64)),
    }


def _featurizer(path: Path, scratch: Path, rows: int) -> dict[str, Any]:
    from alphabase.io import tempmmap
    from scportrait.pipeline.featurization import CellFeaturizer

    config = {"CellFeaturizer": {**FEATURIZER, "cache": str(scratch)}}
    featurizer = CellFeaturizer(config, directory=str(scratch / "featurization"), overwrite=True)
    # Though it says otherwise, scPortrait 1.8 returns paths of temporary files here, and no frame.
    result = featurizer.process(str(path), return_results=True)
    features = np.array(tempmmap.mmap_array_from_path(result.features_path))
    ids = np.array(tempmmap.mmap_array_from_path(result.cell_ids_path)).ravel()
    return _table(list(result.var_names), features, ids, rows)


def _project(path: Path, folder: Path, scratch: Path, rows: int) -> dict[str, Any]:
    import yaml
    from scportrait.pipeline.extraction import HDF5CellExtraction
    from scportrait.pipeline.featurization import CellFeaturizer
    from scportrait.pipeline.project import Project

    copy = scratch / "project"
    shutil.copytree(folder, copy)
    config = yaml.safe_load((copy / "config.yml").read_text())
    config["CellFeaturizer"] = {**FEATURIZER, "cache": str(scratch)}
    # The keys without which scPortrait opens no extraction.
    config["HDF5CellExtraction"] = {
        "threads": 1,
        "image_size": 128,
        **(config.get("HDF5CellExtraction") or {}),
    }
    config["HDF5CellExtraction"]["cache"] = str(scratch)
    project = Project(
        str(copy),
        config_path=config,
        extraction_f=HDF5CellExtraction,
        featurization_f=CellFeaturizer,
        overwrite=False,
    )
    run = path.resolve().parent.name
    if run.startswith("partial_"):
        # Project.featurize(data_type="partial") of scPortrait 1.8 wants a complete run beside
        # the partial one, and fails where cells at the border left fewer rows than were asked for:
        # so the step itself is called.
        project.get_project_status()
        project.featurization_f.data_type = "partial"
        project.featurization_f(str(copy / "extraction" / run / path.name), size=0)
    else:
        project.featurize(overwrite=True)
    tables = {}
    for name, table in project.sdata.tables.items():
        ids = table.obs["scportrait_cell_id"].to_numpy()
        tables[name] = _table(list(table.var_names), np.asarray(table.X), ids, rows)
        tables[name]["obs"] = list(table.obs.columns)
        tables[name]["spatial"] = _plain(np.asarray(table.obsm["spatial"])[:rows])
        tables[name]["attrs"] = _plain(dict(table.uns["spatialdata_attrs"]))
    return {
        "elements": sorted(project.sdata.elements_paths_in_memory()),
        "h5sc_cells": None if run.startswith("partial_") else int(project.h5sc.n_obs),
        "tables": tables,
    }


def main() -> None:
    args = _arguments()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        parts: dict[str, Callable[[], Any]] = {
            "read_h5sc": lambda: _read_h5sc(args.h5sc),
            "dataset": lambda: _dataset(args.h5sc),
            "loader": lambda: _loader(args.h5sc),
            "featurizer": lambda: _featurizer(args.h5sc, scratch, args.rows),
        }
        if args.project is not None:
            parts["project"] = lambda: _project(args.h5sc, args.project, scratch, args.rows)
        if args.only is not None:
            parts = {args.only: parts[args.only]}
        result = {name: part() for name, part in parts.items()}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
