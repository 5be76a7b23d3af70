"""Tissue to try things on: synthetic of any size, and a real section that ships with scikit-image.

>>> import scportrait_like as sl
>>> tissue = sl.datasets.tissue((5, 4096, 4096))
>>> tissue.write_store("tissue.zarr")

Importing this package is cheap: numba, dask, spatialdata and scikit-image are imported where used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scportrait_like.lazy import lazy_attributes

if TYPE_CHECKING:
    from scportrait_like.datasets.stained_section import demo_files as demo_files
    from scportrait_like.datasets.stained_section import (
        immunohistochemistry as immunohistochemistry,
    )
    from scportrait_like.datasets.synthetic import pixie_example as pixie_example
    from scportrait_like.datasets.synthetic import tissue as tissue
    from scportrait_like.datasets.synthetic_tissue import MARKERS as MARKERS
    from scportrait_like.datasets.synthetic_tissue import Tissue as Tissue

__all__ = ["MARKERS", "Tissue", "demo_files", "immunohistochemistry", "pixie_example", "tissue"]

_SYNTHETIC = "scportrait_like.datasets.synthetic"
_TISSUE = "scportrait_like.datasets.synthetic_tissue"
_SECTION = "scportrait_like.datasets.stained_section"

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "MARKERS": f"{_TISSUE}:MARKERS",
        "Tissue": f"{_TISSUE}:Tissue",
        "demo_files": f"{_SECTION}:demo_files",
        "immunohistochemistry": f"{_SECTION}:immunohistochemistry",
        "pixie_example": f"{_SYNTHETIC}:pixie_example",
        "tissue": f"{_SYNTHETIC}:tissue",
    },
)
