"""Bring arrays into the few forms that the kernels are compiled for.

numba compiles anew for each dtype, layout and writability. So inputs become read-only, contiguous
views; pixels that are only moved or compared become unsigned integers of their size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._jit import jit

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def frozen(array: npt.ArrayLike, dtype: npt.DTypeLike) -> Array:
    """Return a contiguous read-only view of ``array``, a copy where its dtype or layout differs."""
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view


def as_unsigned(array: Array) -> Array:
    """View ``array`` as unsigned integers of the same size, in the machine's byte order."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    try:
        return array.view(_UNSIGNED[array.dtype.itemsize])
    except KeyError:
        raise TypeError(f"dtype {array.dtype} is not one of 1, 2, 4 or 8 bytes") from None


def flattened(array: Array, *, writeable: bool = False) -> tuple[Array, tuple[int, ...]]:
    """View an array whose last axis is contiguous as one flat array.

    Returns
    -------
    The flat view, and the steps (in elements) of all axes but the last. An input of another
    layout is copied; with ``writeable`` that is an error.
    """
    size = array.itemsize
    if array.flags.c_contiguous and array.flags.aligned and not writeable:
        flat = array.reshape(-1).view()
        flat.flags.writeable = False
        return flat, tuple(step // size for step in array.strides[:-1])
    fits = (
        array.flags.aligned
        and (array.shape[-1] <= 1 or array.strides[-1] == size)
        and all(step >= 0 and step % size == 0 for step in array.strides[:-1])
    )
    if not fits:
        if writeable:
            raise ValueError("the last axis must be contiguous and the other steps positive")
        array = np.ascontiguousarray(array)
    if writeable and not array.flags.writeable:
        raise ValueError("the array to write to is read-only")
    steps = tuple(step // size for step in array.strides[:-1])
    reach = 0
    if array.size:
        reach = sum((n - 1) * s for n, s in zip(array.shape, (*steps, 1), strict=True)) + 1
    flat = np.lib.stride_tricks.as_strided(array, (reach,), (size,), writeable=writeable)
    return flat, steps


@jit
def _offsets_fit(boxes: Int64, offsets: Int64) -> bool:
    fit = offsets[0] == 0
    for i in range(boxes.shape[0]):
        h = boxes[i, 2] - boxes[i, 0]
        w = boxes[i, 3] - boxes[i, 1]
        fit &= h >= 0 and w >= 0 and offsets[i + 1] - offsets[i] == h * w
    return fit  # type: ignore[no-any-return]


def checked_boxes(
    boxes: npt.ArrayLike, offsets: npt.ArrayLike, *buffers: Array
) -> tuple[Int64, Int64]:
    """Check that boxes, offsets and ragged buffers fit each other: kernels check no bounds."""
    box = frozen(boxes, np.int64)
    offset = frozen(offsets, np.int64)
    if box.ndim != 2 or box.shape[1] != 4:
        raise ValueError(f"boxes must have the shape (n, 4), not {box.shape}")
    if offset.shape != (len(box) + 1,):
        raise ValueError(f"{len(box)} boxes need {len(box) + 1} offsets, not {offset.shape}")
    if not _offsets_fit(box, offset):
        raise ValueError("offsets do not fit the areas of the boxes")
    size = int(offset[-1])
    for buffer in buffers:
        if buffer.shape != (size,):
            raise ValueError(f"a ragged buffer must have the shape ({size},), not {buffer.shape}")
    return box, offset


def checked_output(out: Array, dtype: npt.DTypeLike) -> Array:
    """Check that ``out`` is a contiguous, writable array of ``dtype``."""
    if out.dtype != np.dtype(dtype):
        raise TypeError(f"the output must be {np.dtype(dtype)}, not {out.dtype}")
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise ValueError("the output must be contiguous and writable")
    return out
