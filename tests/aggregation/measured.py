"""As a script: aggregate within a memory limit that counts from what the imports take."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import dask.array as da
import numpy as np
import pandas  # noqa: F401

from scportrait_like import settings
from scportrait_like.raster import tiles
from scportrait_like.run.memory import tree_memory
from scportrait_like.utils import RasterAggregator


def warm_up(statistics: list[str]) -> None:
    """Import and compile what the aggregation needs."""
    image = da.from_array(np.ones((1, 1, 8, 8), "uint16"))
    mask = da.from_array(np.eye(8, dtype="uint32")[None])
    RasterAggregator(mask, image, run_on_gpu=False, executor="inline").aggregate_stats(statistics)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    warm_up(given["statistics"])
    folder = Path(given["folder"])
    tiles.TILE_EDGE = given["tile"]
    aggregator = RasterAggregator(
        da.from_zarr(folder / "mask.zarr"),
        da.from_zarr(folder / "image.zarr"),
        run_on_gpu=False,
        executor=given["executor"],
    )
    limit = tree_memory() + given["above"]
    settings.memory_limit = limit
    began = time.perf_counter()
    frames = aggregator.aggregate_stats(given["statistics"])
    taken = time.perf_counter() - began
    result = sum(int(frame.memory_usage().sum()) for frame in frames)
    checks = [float(np.nansum(frame.to_numpy())) for frame in frames]
    found = {"limit": limit, "result": result, "rows": len(frames[0]), "seconds": taken}
    print("FOUND", json.dumps({**found, "checks": checks}), flush=True)
