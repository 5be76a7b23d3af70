"""Windows of the cells of a SpatialData object."""

from __future__ import annotations

from concurrent.futures import Executor
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from scportrait_like.tb._rasters import volumes
from scportrait_like.utils import Featurizer

if TYPE_CHECKING:
    from spatialdata import SpatialData


def extract_instances(
    sdata: SpatialData,
    image_name: str,
    labels_name: str,
    diameter: int | None,
    depth: int | None = None,
    remove_background: bool = True,
    extract_mask: bool = False,
    zarr_output_path: str | PathLike[str] | None = None,
    name_instances_image: str = "image.zarr",
    name_instances_mask: str = "mask.zarr",
    batch_size: int | None = None,
    to_coordinate_system: str = "global",
    run_on_gpu: bool = False,
    overwrite: bool = False,
    *,
    executor: Executor | str | None = None,
    memory_limit: int | str | None = None,
) -> tuple[npt.NDArray[Any], Any]:
    """Cut a window of the image around every cell.

    The window of a cell is the square of `diameter` pixels in (y, x), with all of z, that begins
    ``diameter // 2`` before the cell's centroid, rounded half to even; 0 beyond the labels.

    Parameters
    ----------
    sdata
        Is not changed.
    image_name
        An image (c, y, x) or (c, z, y, x); of several scales the finest is used.
    labels_name
        Labels (y, x) or (z, y, x). Each pixel must lie on exactly one pixel of the image in
        `to_coordinate_system`; the labels may cover a part of the image.
    diameter
        Edge of the windows in pixels; None: twice `depth`.
    depth
        Not needed, where `diameter` is given.
    remove_background
        Whether pixels of other labels, and of none, are 0.
    extract_mask
        Whether windows of the labels are wanted too.
    zarr_output_path
        A folder, in which zarr arrays are written now, each chunk of image and labels being read
        once; None: lazy arrays.
    name_instances_image, name_instances_mask
        Of the zarr arrays in that folder.
    batch_size
        Length of the lazy arrays' chunks; None: they follow the tiles.
    to_coordinate_system
        The coordinate system in which image and labels lie upon each other.
    run_on_gpu
        Accepted; there are no kernels for the GPU yet, the CPU is used.
    overwrite
        Whether zarr arrays that are there may be replaced. Nothing else ever is.
    executor
        A `concurrent.futures.Executor`, the name of one ("inline", "threads", "processes",
        "dask"), or None: an active dask client, else threads. For what is written; a lazy array is
        computed by dask's scheduler.
    memory_limit
        Bytes (or "4GB") for the process tree; None: `scportrait_like.settings.memory_limit`. For
        what is written, too.

    Returns
    -------
    instance_ids : (i,)
        The labels, ascending, in their dtype; 0 is none.
    array : dask.array.Array, or two of them
        The image's windows (i, c, z, y, x) in its dtype (of planes z is 1); with `extract_mask` the
        pair (mask, image), the mask's windows (i, 1, z, y, x) in the labels' dtype.

    Raises
    ------
    MissingInputError
        There is no such image or no such labels; the message lists those that are there.
    InputError
        An image and labels that do not lie pixel upon pixel; something else than a zarr array lies
        at the output's path; both arrays would have one name.
    ElementExistsError
        A zarr array is there, and `overwrite` is False.
    DiskFullError
        No space left; what was there is unharmed.
    """
    mask, image = volumes(sdata, image_name, labels_name, to_coordinate_system)
    featurizer = Featurizer(
        mask, image, run_on_gpu=run_on_gpu, executor=executor, memory_limit=memory_limit
    )
    return featurizer.extract_instances(
        diameter,
        depth,
        remove_background=remove_background,
        extract_mask=extract_mask,
        zarr_output_path=zarr_output_path,
        name_instances_image=name_instances_image,
        name_instances_mask=name_instances_mask,
        batch_size=batch_size,
        overwrite=overwrite,
    )
