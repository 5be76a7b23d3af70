"""Pictures: arrays in, :class:`matplotlib.figure.Figure` out.

Nothing here touches pyplot's state or opens a window, so it works in scripts, in notebooks and on
machines without a screen. matplotlib is imported when the first picture is drawn.

Of pixels that `scportrait_like.im.flowsom` clustered into ``sdata, fsom, mapping``, with the table
of `scportrait_like.tb.cluster_intensity`, which has a row for each cluster and image; in its `uns`
is what holds of all images together:

>>> import scportrait_like as sl
>>> sl.pl.plot_cluster_map(sdata["metaclusters_fov0"])
>>> sl.pl.plot_cluster_map(sdata["clusters_fov0"], mapping, crop=(0, 200, 0, 200))
>>> table = sdata["cluster_intensities"]
>>> kinds, nodes, names = table.uns["metaclusters"], table.uns["clusters"], table.var_names
>>> sl.pl.plot_cluster_heatmap(kinds["mean"], names, counts=kinds["pixels"])
>>> pixels = nodes["pixels"]
>>> sl.pl.plot_cluster_heatmap(nodes["mean"], names, metaclusters=mapping, counts=pixels)
>>> codes = fsom.get_cluster_data().obsm["codes"]
>>> sl.pl.plot_som(codes, mapping, (8, 8), counts=pixels)
"""

from scportrait_like.plot._cells import CellTable, CellValues, ClusterValues
from scportrait_like.plot._clusters import plot_cluster_cells, plot_cluster_map
from scportrait_like.plot._common import pick_level
from scportrait_like.plot._distributions import plot_distributions
from scportrait_like.plot._embeddings import Components, plot_embedding, principal_components
from scportrait_like.plot._heatmaps import (
    HeatmapOrder,
    HeatmapValues,
    plot_cluster_heatmap,
    z_scores,
)
from scportrait_like.plot._image import plot_image
from scportrait_like.plot._legends import checked_names, percent
from scportrait_like.plot._masks import plot_masks
from scportrait_like.plot._palette import cluster_colours
from scportrait_like.plot._planes import PlanesOf, choose_planes
from scportrait_like.plot._portraits import plot_portraits
from scportrait_like.plot._som import plot_som
from scportrait_like.plot._values import plot_values
from scportrait_like.plot._views import View, fitting_view, view_like

__all__ = [
    "CellTable",
    "CellValues",
    "ClusterValues",
    "Components",
    "HeatmapOrder",
    "HeatmapValues",
    "PlanesOf",
    "View",
    "checked_names",
    "choose_planes",
    "cluster_colours",
    "fitting_view",
    "percent",
    "pick_level",
    "plot_cluster_cells",
    "plot_cluster_heatmap",
    "plot_cluster_map",
    "plot_distributions",
    "plot_embedding",
    "plot_image",
    "plot_masks",
    "plot_portraits",
    "plot_som",
    "plot_values",
    "principal_components",
    "view_like",
    "z_scores",
]
