"""Arrays in, arrays out: compiled kernels on the CPU. No files, no dask, no config.

What they need of a cell is held *ragged*: the boxes (its bounding box and a few pixels around) of
many cells in one flat buffer, ``boxes`` (n, 4) int64 = y0, x0, y1, x1, half open, and ``offsets``
(n + 1,) int64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .boxes import cut_masks, cut_pixels, paste, ragged_offsets
from .clusters import cell_clusters, cluster_sums
from .index import (
    LabelPartials,
    label_partials,
    merge_in_passing,
    merge_partials,
    run_partials,
)
from .lzf import lzf_encode
from .masks import blur, fill_holes
from .nearest import Nodes, nearest_nodes
from .normalisation import Normalisation, Plain, Quantiles, Scale
from .portraits import mask_planes, portraits
from .ragged import (
    ragged_extremes,
    ragged_moments,
    ragged_rows,
    ragged_sums,
    value_counts,
)
from .runs import LabelRuns, gather_runs, label_runs
from .windows import fill_windows

__all__ = [
    "LabelPartials",
    "LabelRuns",
    "Nodes",
    "Normalisation",
    "Plain",
    "Quantiles",
    "Scale",
    "blur",
    "cell_clusters",
    "cluster_sums",
    "cut_masks",
    "cut_pixels",
    "fill_holes",
    "fill_windows",
    "gather_runs",
    "label_partials",
    "label_runs",
    "lzf_encode",
    "mask_planes",
    "merge_in_passing",
    "merge_partials",
    "nearest_nodes",
    "paste",
    "portraits",
    "ragged_extremes",
    "ragged_moments",
    "ragged_offsets",
    "ragged_rows",
    "ragged_sums",
    "run_partials",
    "value_counts",
    "warm_up",
    "warm_up_runs",
    "warm_up_windows",
]


def warm_up(dtype: npt.DTypeLike, labels_dtype: npt.DTypeLike = np.uint32) -> None:
    """Compile (or load from numba's cache) what makes pictures, for these dtypes.

    Call it once before workers start: then they only load. (`label_partials` and `merge_partials`
    run where a mask is indexed, in the parent.)
    """
    size = 4
    labels = np.ones((size, size), np.dtype(labels_dtype))
    plane = np.ones((size, size), np.dtype(dtype))
    boxes = np.array([[0, 0, size, size]], np.int64)
    offsets = ragged_offsets(boxes)
    pixels = size * size
    bits = np.empty(pixels, np.uint8)
    cut_masks(labels, np.ones(1, np.int64), boxes, offsets, bits)
    fill_holes(bits, boxes, offsets)
    blurred = np.empty(pixels, np.float64)
    blur(bits, boxes, offsets, blurred)
    values = np.empty(pixels, plane.dtype)
    cut_pixels(plane, boxes, offsets, values)
    target = np.zeros(1, np.int64)
    paste(values, boxes, offsets, target, boxes, offsets, values.copy())
    paste(bits, boxes, offsets, target, boxes, offsets, bits.copy())
    out = np.empty((1, size, size), np.uint16)
    corners = np.zeros((1, 2), np.int64)
    for pixel_values in (values, values.astype(np.float64)):
        how = Quantiles(0.0, 1.0)
        portraits(pixel_values, blurred, boxes, offsets, corners, size, how, out)
    mask_planes(blurred, boxes, offsets, corners, size, out)
    packed = np.empty((1, out.nbytes), np.uint8)
    lzf_encode(out.reshape(1, -1).view(np.uint8), packed, np.zeros(1, np.int64))


def warm_up_runs(labels_dtype: npt.DTypeLike, dtype: npt.DTypeLike | None = None) -> None:
    """Compile (or load) what walks over the runs of labels of a dtype, in an image of a dtype."""
    labels = np.ones((1, 2, 2), np.dtype(labels_dtype))
    runs = label_runs(labels)
    run_partials(runs, labels.shape)
    if dtype is not None:
        pixels = np.ones((2, 2), np.dtype(dtype).newbyteorder("="))
        values = np.empty(4, pixels.dtype)
        gather_runs(pixels, runs.starts, runs.lengths, values)
        ragged_rows(values, np.array([0, 4]), 0)


def warm_up_windows(labels_dtype: npt.DTypeLike, dtype: npt.DTypeLike | None = None) -> None:
    """Compile (or load) what cuts windows out of labels of a dtype and an image of a dtype."""
    boxes, corners = np.array([[0, 0, 2, 2]]), np.zeros((1, 2), np.int64)
    offsets, target = ragged_offsets(boxes), np.zeros(1, np.int64)
    bits = np.empty(4, np.uint8)
    cut_masks(np.ones((2, 2), np.dtype(labels_dtype)), [1], boxes, offsets, bits)
    for each in {np.dtype(np.uint8), np.dtype(labels_dtype), np.dtype(dtype or np.uint8)}:
        plane = np.ones((2, 2), each.newbyteorder("="))
        values = np.empty(4, plane.dtype)
        cut_pixels(plane, boxes, offsets, values)
        paste(values, boxes, offsets, target, boxes, offsets, values.copy())
        fill_windows(values, bits, boxes, offsets, corners, 2, np.empty((1, 2, 2), plane.dtype))
