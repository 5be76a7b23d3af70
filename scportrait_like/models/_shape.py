"""The model ``shape``: region properties of the masks, by scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# By the names of scikit-image.
_PROPERTIES: Final = (
    "area",
    "eccentricity",
    "solidity",
    "extent",
    "perimeter",
    "axis_major_length",
    "axis_minor_length",
    "orientation",
    "equivalent_diameter_area",
    "feret_diameter_max",
    "euler_number",
)
# What volumes have not.
_OF_PLANES: Final = ("eccentricity", "perimeter", "orientation")
# What needs a convex hull: volumes have one where their voxels do not lie in one plane.
_OF_HULLS: Final = ("solidity", "feret_diameter_max")


def columns(channels: Sequence[str], masks: Sequence[str]) -> list[str]:
    """Names of the columns: those of each mask."""
    return [f"{mask}_{name}" for mask in masks for name in _PROPERTIES]


def shape(batch: NDArray[Any], *, mask: NDArray[Any], embedding_dimension: int) -> Floats:
    """Take region properties of masks, as `skimage.measure.regionprops` defines them.

    Of each mask: area, eccentricity, solidity, extent, perimeter, lengths of the major and minor
    axis, orientation (radians), diameter of the circle (ball) of equal area, largest Feret
    diameter, Euler number; lengths in pixels.

    Parameters
    ----------
    batch
        Not looked at.
    mask : (b, m, z, y, x) bool
    embedding_dimension
        11 for each mask.

    Returns
    -------
    (b, embedding_dimension) float64. Of volumes (z > 1) eccentricity, perimeter and orientation
    are NaN, and solidity and Feret diameter too where all voxels lie in one plane; the area is a
    number of voxels. Of an empty mask the area is 0 and all else NaN.
    """
    found = [[value for one in of_cell for value in _properties(one)] for of_cell in mask]
    return np.array(found, np.float64).reshape(len(mask), -1)


def _properties(mask: NDArray[Any]) -> list[float]:
    """Properties of one mask (z, y, x)."""
    from skimage import measure

    regionprops: Any = measure.regionprops  # untyped
    plane = mask[0] if len(mask) == 1 else mask
    regions = regionprops(plane.astype(np.uint8))
    if not regions:
        return [0.0, *[np.nan] * (len(_PROPERTIES) - 1)]
    region = regions[0]
    absent: tuple[str, ...] = ()
    if plane.ndim == 3:
        absent = _OF_PLANES + (_OF_HULLS if _is_flat(region.coords) else ())
    return [np.nan if name in absent else float(region[name]) for name in _PROPERTIES]


def _is_flat(coordinates: NDArray[Any]) -> bool:
    """Whether voxels lie in one plane: (n, 3)."""
    spread = (coordinates - coordinates[0]).astype(np.float64)
    return bool(np.linalg.matrix_rank(spread) < 3)
