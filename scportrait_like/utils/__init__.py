"""The classes of the function interface: thin, the work is done in `scportrait_like.raster`."""

from scportrait_like.utils._aggregator import RasterAggregator
from scportrait_like.utils._featurizer import Featurizer

__all__ = ["Featurizer", "RasterAggregator"]
