"""Products of many rows with a few columns, the same to the last bit however rows are batched."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import frozen
from ._jit import jit

Float64 = npt.NDArray[np.float64]

# Inputs taken at a time: of 64 columns, so many rows of the matrix stay in a core's cache.
_BLOCK = 512


@jit
def _project(rows: Float64, matrix: Float64, out: Float64) -> None:
    n_inputs = rows.shape[1]
    for begin in range(0, n_inputs, _BLOCK):
        end = min(begin + _BLOCK, n_inputs)
        for i in range(rows.shape[0]):
            row, to = rows[i], out[i]
            for j in range(begin, end):
                value = row[j]
                if value == 0:
                    continue
                weights = matrix[j]
                for k in range(to.size):
                    to[k] += value * weights[k]


def project(rows: npt.ArrayLike, matrix: npt.ArrayLike) -> Float64:
    """Matrix product in which each row is summed in one order, whatever other rows there are.

    A BLAS chooses its order by the number of rows. Zeros among the inputs cost next to nothing: in
    windows without background most pixels are.

    Parameters
    ----------
    rows : (n, p), any real dtype
    matrix : (p, k)
        Finite.

    Returns
    -------
    (n, k) float64.
    """
    left, right = frozen(rows, np.float64), frozen(matrix, np.float64)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ValueError(f"{left.shape} and {right.shape} are no shapes of a product")
    out = np.zeros((left.shape[0], right.shape[1]), np.float64)
    _project(left, right, out)
    return out
