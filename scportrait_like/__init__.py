"""Single-cell portraits at terapixel scale.

>>> import scportrait_like as sl
>>> project = sl.Project("my_project")
>>> project.load_input_from_tif_files("image.ome.tif")
>>> project.load_labels("mask.tif")
>>> project.extract()

Everything is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scportrait_like.lazy import lazy_attributes

if TYPE_CHECKING:
    from scportrait_like import datasets as datasets
    from scportrait_like import im as im
    from scportrait_like import io as io
    from scportrait_like import plot as pl
    from scportrait_like import settings as settings
    from scportrait_like import tb as tb
    from scportrait_like import training as training
    from scportrait_like import utils as utils
    from scportrait_like.project import Project as Project

__all__ = ["Project", "datasets", "im", "io", "pl", "settings", "steps", "tb", "training", "utils"]

_find, __dir__ = lazy_attributes(
    __name__,
    {
        "Project": "scportrait_like.project:Project",
        "datasets": "scportrait_like.datasets",
        "im": "scportrait_like.im",
        "io": "scportrait_like.io",
        "pl": "scportrait_like.plot",
        "plot": "scportrait_like.plot",
        "settings": "scportrait_like.settings",
        "steps": "scportrait_like.steps",
        "tb": "scportrait_like.tb",
        "training": "scportrait_like.training",
        "utils": "scportrait_like.utils",
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("scportrait-like")
    return _find(name)
