"""Portraits: which labels get a picture, and where it is centred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.raster.index import CellIndex

# A picture is zero beyond so many pixels of its mask: a blur of sigma 1, cut at 4 sigma.
REACH: Final = 4


@dataclass(frozen=True)
class Pick:
    """Which labels become rows, and what becomes of the others.

    Attributes
    ----------
    index
        Of the mask that gives the centroids, all its labels.
    rows
        Positions in `index` of the output's rows, in their order.
    centres
        Rounded centroids (n, 2) = (y, x) of all labels of `index`, int64.
    dropped
        Of all labels of `index`: too near to the border for their window.
    selected
        Of all labels of `index`: picked (all of them in a full run).
    """

    index: CellIndex
    rows: NDArray[np.int64]
    centres: NDArray[np.int64]
    dropped: NDArray[np.bool_]
    selected: NDArray[np.bool_]


def pick_cells(
    index: CellIndex, size: int, border: str, n_cells: int | None = None, seed: int = 42
) -> Pick:
    """Decide which labels get a picture.

    Parameters
    ----------
    index
        Of the mask that gives the centroids.
    size
        Edge of the window in pixels, even.
    border
        ``"discard"``: a label whose window is not strictly inside the image is dropped;
        ``"pad"``: none is, and pixels outside the image are zero.
    n_cells
        Pick so many at random, before border removal, in the order of the pick; None picks all, by
        ascending id.
    seed
        Of the pick: ``numpy.random.default_rng(seed).choice(N, n_cells, replace=False)``.
    """
    centres = np.rint(index.centroid).astype(np.int64)
    half = size // 2
    dropped = np.zeros(len(index), bool)
    if border == "discard":
        limit = np.asarray(index.shape) - half
        dropped |= ((centres <= half) | (centres >= limit)).any(axis=1)
    if n_cells is None:
        order = np.arange(len(index))
    else:
        order = np.random.default_rng(seed).choice(len(index), n_cells, replace=False)
    selected = np.zeros(len(index), bool)
    selected[order] = True
    return Pick(index, order[~dropped[order]], centres, dropped, selected)
