"""Elements to place, told apart by a number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import spatialdata

from scportrait_like import names
from scportrait_like.filehandler import FileHandler


def labels_pixels(version: int, edge: int = 300) -> np.ndarray[Any, Any]:
    return np.full((edge, edge + 1), version, np.uint32)


def points(version: int) -> Any:
    import pandas as pd
    from spatialdata.models import PointsModel

    return PointsModel.parse(pd.DataFrame({"x": np.full(50, float(version)), "y": np.arange(50.0)}))


def table(version: int, region: str = "cells", rows: int = 20) -> Any:
    import anndata as ad
    import pandas as pd
    from spatialdata.models import TableModel

    obs = pd.DataFrame(
        {
            names.REGION_KEY: pd.Categorical([region] * rows),
            names.INSTANCE_KEY: np.arange(1, rows + 1),
        },
        index=[str(i) for i in range(rows)],
    )
    return TableModel.parse(
        ad.AnnData(np.full((rows, 3), version, np.float32), obs=obs),
        region=region,
        region_key=names.REGION_KEY,
        instance_key=names.INSTANCE_KEY,
    )


def shapes(version: int) -> Any:
    from spatialdata.models import ShapesModel

    centers = np.arange(20.0).reshape(10, 2)
    return ShapesModel.parse(centers, geometry=0, radius=np.full(10, float(version)))


def image_pixels(version: int, shape: tuple[int, int, int] = (2, 70, 91)) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(version)
    return rng.integers(0, 65535, shape, dtype=np.uint16)


def version_of(sdata: Any, name: str) -> int:
    """The number an element was made with, from all of its values; they must agree."""
    element = sdata[name]
    kind = type(element).__name__
    if kind == "DataTree":
        values = np.concatenate([element[s]["image"].data.compute().ravel() for s in element])
    elif kind == "AnnData":
        values = np.asarray(element.X).ravel()
        assert element.shape == (20, 3)
    elif kind == "GeoDataFrame":
        values = element["radius"].to_numpy()
        assert len(values) == 10
    else:
        frame = element.compute()
        values = frame["x"].to_numpy()
        assert len(frame) == 50
    (version,) = set(values.tolist())
    return int(version)


def without_codecs(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in ("codecs", "chunk_grid")}


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


MAKERS = {"centers": points, "rois": shapes, "intensities": table}


def foreign(handler: FileHandler) -> Any:
    return spatialdata.read_zarr(handler.path)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")
    } | {str(folder): (folder.stat().st_ino, folder.stat().st_mtime_ns)}


def make_stale(handler: FileHandler, *forgotten: str) -> None:
    """Let the lists forget elements, as if a process had been killed before it wrote them."""
    root = read(handler.path / "zarr.json")
    nodes = root["consolidated_metadata"]["metadata"]
    for path in list(nodes):
        if path.split("/")[1:2] and path.split("/")[1] in forgotten:
            del nodes[path]
    (handler.path / "zarr.json").write_text(json.dumps(root))
    group = read(handler.path / "labels" / "zarr.json")
    group["attributes"]["ome"]["labels"] = []
    (handler.path / "labels" / "zarr.json").write_text(json.dumps(group))
