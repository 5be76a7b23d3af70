"""Pictures: arrays in, :class:`matplotlib.figure.Figure` out.

Nothing here touches pyplot's state or opens a window, so it works in scripts, in notebooks and on
machines without a screen. matplotlib is imported when the first picture is drawn.
"""

from scportrait_like.plot._cells import CellTable, CellValues
from scportrait_like.plot._common import pick_level
from scportrait_like.plot._distributions import plot_distributions
from scportrait_like.plot._image import plot_image
from scportrait_like.plot._masks import plot_masks
from scportrait_like.plot._planes import PlanesOf, choose_planes
from scportrait_like.plot._portraits import plot_portraits
from scportrait_like.plot._values import plot_values
from scportrait_like.plot._views import View, fitting_view, view_like

__all__ = [
    "CellTable",
    "CellValues",
    "PlanesOf",
    "View",
    "choose_planes",
    "fitting_view",
    "pick_level",
    "plot_distributions",
    "plot_image",
    "plot_masks",
    "plot_portraits",
    "plot_values",
    "view_like",
]
