"""Let spatialdata write: elements as they are, and a tiny twin for rasters written by chunks.

A twin has the axes, channels and transformations of the element to come but four pixels a channel.
spatialdata writes it, so the metadata are its own; then the true arrays take the place of the
twin's.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from scportrait_like.io.pyramids import RasterPlan, RasterWriter
from scportrait_like.io.zarr_metadata import Json

_NOISY: Final = ("ome_zarr", "ome_zarr.reader", "ome_zarr.writer", "spatialdata")


@contextmanager
def quiet_spatialdata() -> Iterator[None]:
    """Silence the warnings and log lines that a user of this package can do nothing about."""
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for name in _NOISY:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def write_store(store: Path, name: str, element: Any) -> str:
    """Write a new SpatialData store that holds one element, and return the element's kind."""
    import spatialdata

    with quiet_spatialdata():
        sdata = spatialdata.SpatialData.init_from_elements({name: element})
        sdata.write(store, consolidate_metadata=False, update_sdata_path=False)
        kind, _, _ = next(sdata.gen_elements())
    return str(kind)


def write_twin(
    store: Path, name: str, plan: RasterPlan, transforms: Mapping[str, Any] | None
) -> RasterWriter:
    """Write a new store that holds an empty raster element, and return its writer."""
    import dask

    # A cluster has nothing to gain from four pixels.
    with dask.config.set(scheduler="synchronous"):
        write_store(store, name, _twin(plan, transforms))
    folder = store / plan.kind / name
    shapes = plan.level_shapes()
    metadata = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    datasets: list[Json] = metadata["attributes"]["ome"]["multiscales"][0]["datasets"]
    first = datasets[0]["path"]
    for dataset in datasets:
        shutil.rmtree(folder / dataset["path"])
    # "s0", "s1", ...: as spatialdata numbers them
    paths = [f"{first.rstrip('0')}{level}" for level in range(len(shapes))]
    datasets[:] = [
        {"path": path, "coordinateTransformations": [_level_scale(plan.shape, shape)]}
        for path, shape in zip(paths, shapes, strict=True)
    ]
    (folder / "zarr.json").write_text(json.dumps(metadata, indent=2), encoding="utf-8")
    levels = [folder / path for path in paths]
    for level, shape in zip(levels, shapes, strict=True):
        _create_array(level, plan, shape)
    return RasterWriter(plan, levels)


def _level_scale(full: tuple[int, ...], level: tuple[int, ...]) -> Json:
    """The ratio of the shapes: what spatialdata writes, and derives again when it reads."""
    scale = [edge / coarse for edge, coarse in zip(full, level, strict=True)]
    return {"type": "scale", "scale": scale}


def _twin(plan: RasterPlan, transforms: Mapping[str, Any] | None) -> Any:
    import numpy as np
    from spatialdata import models

    model = {
        ("images", 3): models.Image2DModel,
        ("images", 4): models.Image3DModel,
        ("labels", 2): models.Labels2DModel,
        ("labels", 3): models.Labels3DModel,
    }[plan.kind, len(plan.shape)]
    # No metadata depend on the dtype, and not every one can be halved by spatialdata.
    pixels = np.zeros([plan.shape[0] if axis == "c" else 2 for axis in plan.axes], np.uint8)
    options: dict[str, Any] = {"dims": plan.axes}
    if plan.kind == "images":
        options["c_coords"] = list(plan.channel_names)
    if len(plan.level_shapes()) > 1:
        options["scale_factors"] = [2]
    if transforms:
        options["transformations"] = dict(transforms)
    with quiet_spatialdata():
        return model.parse(pixels, **options)


def _create_array(folder: Path, plan: RasterPlan, shape: tuple[int, ...]) -> None:
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import LocalStore

    zarr.create_array(
        LocalStore(folder),
        shape=shape,
        dtype=plan.dtype,
        shards=None,
        chunks=tuple(min(pair) for pair in zip(plan.chunks, shape, strict=True)),
        dimension_names=plan.axes,
        # Of all levels the fastest to write and to read, for files that are 1 to 10 % larger.
        compressors=ZstdCodec(level=1),
        fill_value=plan.dtype.type(0),
    )
