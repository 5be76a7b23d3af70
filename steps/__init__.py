"""The processing steps, one a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scportrait_like.lazy import lazy_attributes

if TYPE_CHECKING:
    from scportrait_like.steps.aggregation import Aggregation as Aggregation
    from scportrait_like.steps.extraction import HDF5CellExtraction as HDF5CellExtraction
    from scportrait_like.steps.featurization import Featurization as Featurization
    from scportrait_like.steps.pixel_clustering import PixelClustering as PixelClustering

__all__ = ["Aggregation", "Featurization", "HDF5CellExtraction", "PixelClustering"]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "Aggregation": "scportrait_like.steps.aggregation:Aggregation",
        "Featurization": "scportrait_like.steps.featurization:Featurization",
        "HDF5CellExtraction": "scportrait_like.steps.extraction:HDF5CellExtraction",
        "PixelClustering": "scportrait_like.steps.pixel_clustering:PixelClustering",
    },
)
