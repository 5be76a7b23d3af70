"""The model ``pca``: principal components of the pixels of windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.kernels.projection import project

Floats = NDArray[np.float64]

# Pixels of the sample's windows that are float64 at a time.
_BLOCK: Final = 1 << 22


def fit_pca(
    images: NDArray[Any], masks: NDArray[Any] | None, embedding_dimension: int
) -> Mapping[str, Floats]:
    """Find the principal components of a sample of windows.

    They are the eigenvectors of the windows' inner products (Sirovich 1987, "snapshots"): a sample
    has far fewer windows than a window has pixels. The largest weight of each component is
    positive. On one machine, equal samples give equal bits.

    Parameters
    ----------
    images : (n, c, z, y, x), any real dtype
        Finite.
    masks
        Not looked at.
    embedding_dimension
        Components, below n.

    Returns
    -------
    ``mean`` (p,), ``components`` (p, embedding_dimension), orthonormal columns, and
    ``explained_variance`` (embedding_dimension,), descending; p = c * z * y * x. All are float64,
    and each process holds them.

    Raises
    ------
    InputError
        The sample holds too few different windows, or pixels that are not finite.
    """
    rows = images.reshape(len(images), -1)
    n, p = rows.shape
    if embedding_dimension > min(n - 1, p):
        raise InputError(
            f"pca: embedding_dimension={embedding_dimension} needs a sample of more windows than "
            f"that, and as many pixels a window; there are {n} windows of {p} pixels"
        )
    mean = rows.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise InputError("pca: windows of the sample hold NaN or infinity")
    products = np.zeros((n, n))
    for here in _blocks(n, p):
        part = rows[:, here] - mean[here]
        products += part @ part.T
    variances, vectors = np.linalg.eigh(products)
    variances = variances[::-1][:embedding_dimension]
    if variances[-1] <= variances[0] * n * np.finfo(np.float64).eps:
        raise InputError(
            f"pca: the {n} windows of the sample have fewer than "
            f"embedding_dimension={embedding_dimension} components; take fewer, or a larger sample"
        )
    scaled = vectors[:, ::-1][:, :embedding_dimension] / np.sqrt(variances)
    components = np.empty((p, embedding_dimension))
    for here in _blocks(n, p):
        components[here] = (rows[:, here] - mean[here]).T @ scaled
    largest = np.abs(components).argmax(axis=0)
    components *= np.sign(components[largest, np.arange(embedding_dimension)])
    return {
        "mean": mean,
        "components": components,
        "explained_variance": variances / (n - 1),
    }


def _blocks(n: int, p: int) -> list[slice]:
    step = max(1, _BLOCK // n)
    return [slice(begin, begin + step) for begin in range(0, p, step)]


def pca(
    batch: NDArray[Any], *, embedding_dimension: int, fitted: Mapping[str, NDArray[Any]]
) -> Floats:
    """Project windows onto the components.

    Parameters
    ----------
    batch : (b, c, z, y, x), any real dtype
        Windows of the shape that was fitted on.
    embedding_dimension
        As fitted.
    fitted
        Of `fit_pca`.

    Returns
    -------
    (b, embedding_dimension) float64. A window gets the same bits in any batch.
    """
    mean, components = fitted["mean"], fitted["components"]
    rows = batch.reshape(len(batch), -1)
    if rows.shape[1] != len(mean):
        raise ValueError(
            f"windows of {batch.shape[1:]} = {rows.shape[1]} pixels; fitted on {len(mean)} pixels"
        )
    return project(rows, components) - project(mean[None], components)
