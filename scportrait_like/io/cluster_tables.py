"""Tables of clusters of pixels: their intensities, and how many of their pixels each cell holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.io.tables import embedding_table, instance_dtype, intensity_table

if TYPE_CHECKING:
    from anndata import AnnData

# Columns of `obs` with the ids, entries of `obsm` and `uns`.
CLUSTER: Final = "cluster"
METACLUSTER: Final = "metacluster"
METACLUSTERS: Final = "metaclusters"
PIXELS: Final = "pixels"
SHARE: Final = "share"
AREA: Final = "area"
# All columns of `obs` but those with names of the user's.
COLUMNS: Final = (CLUSTER, METACLUSTER, PIXELS, SHARE, AREA)
_MEAN: Final = "mean"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def groups_table(
    means: Floats,
    pixels: Ints,
    channels: Sequence[str],
    region: str,
    dtype: np.dtype[Any],
    *,
    region_key: str,
    instance_key: str,
    ids: Ints | None = None,
    obs: Mapping[str, Any] | None = None,
) -> AnnData:
    """Make the table of mean intensities of groups of pixels.

    Parameters
    ----------
    means
        (n, c) float64; NaN in a group without pixels.
    pixels
        (n,): how many pixels each group has.
    channels
        c names.
    region
        The labels element, whose ids are the groups.
    dtype
        Of that element.
    region_key, instance_key
        Columns of `obs`.
    ids
        (n,): the groups; None: 1 to n.
    obs
        Further columns, (n,) each.

    Returns
    -------
    anndata.AnnData
        Groups x channels; ``obs["pixels"]`` is the size of each, ``obs["share"]`` that size by the
        pixels of all.
    """
    groups = np.arange(1, len(means) + 1) if ids is None else ids
    return intensity_table(
        {_MEAN: means},
        channels,
        groups.astype(instance_dtype(dtype)),
        region,
        obs={**(obs or {}), PIXELS: pixels, SHARE: pixels / max(1, int(pixels.sum()))},
        region_key=region_key,
        instance_key=instance_key,
        index_name="clusters",
    )


def counts_table(
    cells: tuple[Ints, Ints, Ints],
    ids: NDArray[Any],
    metaclusters: Ints,
    region: str,
    *,
    area: Ints,
    centroid: Floats,
    region_key: str,
    instance_key: str,
) -> AnnData:
    """Make the table that says how many pixels of each cluster lie in each cell.

    Parameters
    ----------
    cells
        Ids of cells, clusters from 1, and pixels, (m,) each: a row for each pair there is.
    ids
        (n,): all cells, ascending.
    metaclusters
        (k,): the metacluster of each cluster, from 1.
    region
        The mask.
    area, centroid
        (n,) pixels and (n, 2) as (x, y) of the cells.
    region_key, instance_key
        Columns of `obs`.

    Returns
    -------
    anndata.AnnData
        Cells x clusters, a sparse matrix of int64; ``var["metacluster"]``; the same counts by
        metacluster in ``obsm["metaclusters"]``; ``obs["pixels"]``: those that have a cluster;
        ``obs["metacluster"]``: the commonest of them, the first of several, 0 without any.

    Raises
    ------
    InputError
        Cells that are not among `ids`.
    """
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    found, clusters, counts = cells
    known = ids.astype(np.int64)
    if not np.isin(found, known).all():
        raise InputError(f"{region} is not the mask any more that was indexed; load it again")
    rows = np.searchsorted(known, found)
    n_clusters, n_groups = len(metaclusters), int(metaclusters.max())
    matrix = csr_matrix((counts, (rows, clusters - 1)), (len(ids), n_clusters), np.int64)
    groups = csr_matrix(
        (np.ones(n_clusters, np.int64), (np.arange(n_clusters), metaclusters - 1)),
        (n_clusters, n_groups),
    )
    by_group = (matrix @ groups).toarray()
    pixels = by_group.sum(axis=1)
    commonest = np.where(pixels > 0, by_group.argmax(axis=1) + 1, 0)
    keys = embedding_table(
        by_group,
        {region: ids},
        embedding_key=METACLUSTERS,
        region_key=region_key,
        instance_key=instance_key,
    )
    index = pd.Index([str(cluster) for cluster in range(1, n_clusters + 1)], dtype=object)
    return AnnData(
        X=matrix,
        obs=keys.obs.assign(**{AREA: area, PIXELS: pixels, METACLUSTER: commonest}),
        var=pd.DataFrame({METACLUSTER: metaclusters}, index=index),
        obsm={METACLUSTERS: by_group, "spatial": centroid},
        uns=dict(keys.uns),
    )
