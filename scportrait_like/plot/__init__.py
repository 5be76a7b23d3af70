"""Pictures: arrays in, :class:`matplotlib.figure.Figure` out.

Nothing here touches pyplot's state or opens a window, so it works in scripts, in notebooks and on
machines without a screen. matplotlib is imported when the first picture is drawn.

Of pixels that `scportrait_like.im.flowsom` clustered into ``sdata, fsom, mapping``, with the table
of `scportrait_like.tb.cluster_intensity`:

>>> import scportrait_like as sl
>>> sl.pl.plot_cluster_map(sdata["metaclusters"])
>>> sl.pl.plot_cluster_map(sdata["clusters"], mapping, crop=(0, 500, 0, 500))
>>> table = sdata["cluster_intensities"]
>>> pixels = table.obs["pixels"]
>>> sl.pl.plot_cluster_heatmap(table.X, table.var_names, metaclusters=mapping, counts=pixels)
>>> codes = fsom.get_cluster_data().obsm["codes"]
>>> sl.pl.plot_som(codes, mapping, (10, 10), counts=pixels)
"""

from scportrait_like.plot._cells import CellTable, CellValues, ClusterValues
from scportrait_like.plot._clusters import plot_cluster_map
from scportrait_like.plot._common import pick_level
from scportrait_like.plot._distributions import plot_distributions
from scportrait_like.plot._embeddings import Components, plot_embedding, principal_components
from scportrait_like.plot._heatmaps import plot_cluster_heatmap, z_scores
from scportrait_like.plot._image import plot_image
from scportrait_like.plot._legends import percent
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
    "PlanesOf",
    "View",
    "choose_planes",
    "cluster_colours",
    "fitting_view",
    "percent",
    "pick_level",
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
