"""Images and labels of a SpatialData object, and clusters of their pixels, as functions.

>>> import scportrait_like as sl
>>> pixels = sl.im.get_dataarray(sdata, "raw_image_fov0").data
>>> sl.im.add_image(sdata, pixels / 2, "half", overwrite=True)
>>> sl.im.pixel_clustering_preprocess(sdata, "raw_image_fov0", "prepared_fov0")
>>> sdata, fsom, mapping = sl.im.flowsom(sdata, "prepared_fov0", "clusters", "metaclusters")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scportrait_like.lazy import lazy_attributes

if TYPE_CHECKING:
    from scportrait_like.im._elements import add_image as add_image
    from scportrait_like.im._elements import get_dataarray as get_dataarray
    from scportrait_like.im._flowsom import flowsom as flowsom
    from scportrait_like.im._preprocess import (
        pixel_clustering_preprocess as pixel_clustering_preprocess,
    )

__all__ = ["add_image", "flowsom", "get_dataarray", "pixel_clustering_preprocess"]

_HERE = "scportrait_like.im"

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "add_image": f"{_HERE}._elements:add_image",
        "flowsom": f"{_HERE}._flowsom:flowsom",
        "get_dataarray": f"{_HERE}._elements:get_dataarray",
        "pixel_clustering_preprocess": f"{_HERE}._preprocess:pixel_clustering_preprocess",
    },
)
