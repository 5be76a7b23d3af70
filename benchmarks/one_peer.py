"""One aggregation by another package, in a process of its own; prints what it took as JSON.

    python -m benchmarks.one_peer --method flox --image ARRAY --labels ARRAY --ids FILE

Timed from the opened zarr arrays to the values, imports left out. Everyone reads by chunks what
they take by chunks, else whole arrays; the ids of the cells are known, for those who take them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import cpu_seconds

Values = dict[str, NDArray[np.float64]]
"""By statistic: (cells, channels), by ascending label without the background."""


def _whole(array: Any) -> Any:
    return array[...]


def _by_channel(image: Any, measure: Callable[[Any], dict[str, Any]]) -> Values:
    found = [measure(image[channel]) for channel in range(image.shape[0])]
    return {name: np.stack([one[name] for one in found], axis=1) for name in found[0]}


def scipy_ndimage(image: Any, labels: Any, ids: Any, statistics: list[str]) -> tuple[Any, Values]:
    import scipy.ndimage as ndi

    mask = _whole(labels)
    functions = {"mean": ndi.mean, "var": ndi.variance}
    return ids, _by_channel(
        image, lambda plane: {name: functions[name](plane, mask, ids) for name in statistics}
    )


def skimage_table(image: Any, labels: Any, ids: Any, statistics: list[str]) -> tuple[Any, Values]:
    from skimage.measure import regionprops_table

    names = {"mean": "intensity_mean", "var": "intensity_std"}
    wanted = tuple(names[name] for name in statistics)
    pixels = np.moveaxis(_whole(image), 0, -1)
    table = regionprops_table(_whole(labels), pixels, properties=("label", *wanted))
    values = {
        name: np.stack([table[f"{names[name]}-{c}"] for c in range(image.shape[0])], axis=1)
        for name in statistics
    }
    if "var" in values:
        values["var"] = values["var"] ** 2
    return table["label"], values


def dask_image(image: Any, labels: Any, ids: Any, statistics: list[str]) -> tuple[Any, Values]:
    import dask
    import dask.array as da
    from dask_image import ndmeasure

    mask = da.from_array(labels, chunks=labels.chunks)
    pixels = da.from_array(image, chunks=image.chunks)
    functions = {"mean": ndmeasure.mean, "var": ndmeasure.variance}
    lazy = {name: [functions[name](plane, mask, ids) for plane in pixels] for name in statistics}
    (found,) = dask.compute(lazy)
    return ids, {name: np.stack(planes, axis=1) for name, planes in found.items()}


def xrspatial(image: Any, labels: Any, ids: Any, statistics: list[str]) -> tuple[Any, Values]:
    import xarray as xr
    from xrspatial import zonal_stats

    zones = xr.DataArray(_whole(labels).astype(np.int32), dims=("y", "x"))

    def measure(plane: Any) -> dict[str, Any]:
        pixels = xr.DataArray(plane.astype(np.float64), dims=("y", "x"))
        table = zonal_stats(zones, pixels, zone_ids=ids.tolist(), stats_funcs=list(statistics))
        return {name: table[name].to_numpy() for name in statistics}

    return ids, _by_channel(image, measure)


def flox(image: Any, labels: Any, ids: Any, statistics: list[str]) -> tuple[Any, Values]:
    import dask.array as da
    import flox as package

    mask = da.from_array(labels, chunks=labels.chunks)
    pixels = da.from_array(image, chunks=image.chunks)
    values = {}
    for name in statistics:
        result, _ = package.groupby_reduce(
            pixels, mask, func=name, expected_groups=ids, fill_value=np.nan
        )
        values[name] = np.asarray(result).T
    return ids, values


def flox_whole(image: Any, labels: Any, ids: Any, statistics: list[str]) -> tuple[Any, Values]:
    import flox as package

    mask, pixels = _whole(labels), _whole(image)
    values = {}
    for name in statistics:
        result, _ = package.groupby_reduce(pixels, mask, func=name, expected_groups=ids)
        values[name] = np.asarray(result).T
    return ids, values


METHODS: dict[str, tuple[str, Callable[..., tuple[Any, Values]]]] = {
    "skimage.measure.regionprops_table": ("skimage.measure", skimage_table),
    "scipy.ndimage": ("scipy.ndimage", scipy_ndimage),
    "dask_image.ndmeasure": ("dask_image.ndmeasure", dask_image),
    "xrspatial.zonal_stats": ("xrspatial", xrspatial),
    "flox, on dask arrays": ("flox", flox),
    "flox, on numpy arrays": ("flox", flox_whole),
}
"""By name: the package to import before the clock starts, and the work."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=list(METHODS), required=True)
    parser.add_argument("--image", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--labels", type=Path, required=True, help="folder of a zarr array")
    parser.add_argument("--ids", type=Path, required=True, help="a .npy file: the cells' labels")
    parser.add_argument("--statistics", default="mean", help="separated by commas")
    parser.add_argument("--mark", type=Path, default=None, help="made when the work begins")
    parser.add_argument("--save", type=Path, default=None, help="a .npz file for the result")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    import dask.array  # noqa: F401
    import zarr

    package, method = METHODS[args.method]
    importlib.import_module(package)
    image = zarr.open_array(args.image, mode="r")
    labels = zarr.open_array(args.labels, mode="r")
    known = np.load(args.ids)
    if args.mark is not None:
        args.mark.touch()
    began, cpu = time.perf_counter(), cpu_seconds()
    ids, values = method(image, labels, known, args.statistics.split(","))
    found = {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - cpu, "rows": len(ids)}
    if args.save is not None:
        np.savez(args.save, ids=np.asarray(ids), **values)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
