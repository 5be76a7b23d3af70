"""What of a project is looked at: its elements, level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scportrait_like import names
from scportrait_like.errors import MissingInputError
from scportrait_like.filehandler import FileHandler

if TYPE_CHECKING:
    import zarr

    from scportrait_like.step import ProcessingStep

Crop = tuple[int, int, int, int]
Names = str | Sequence[str]


class Elements:
    """Finds and opens images and labels of a project."""

    project_location: Path
    filehandler: FileHandler
    steps: Mapping[str, list[ProcessingStep]]

    def _image(self) -> str:
        if names.INPUT_IMAGE not in self.filehandler:
            raise MissingInputError(
                f"{self.project_location} has no image: load one with "
                "project.load_input_from_tif_files(...) or another loader"
            )
        return names.INPUT_IMAGE

    def _masks(self, wanted: Names | None = None) -> list[str]:
        """Names of labels elements; default: the project's masks, else all labels."""
        elements = self.filehandler.element_names()
        there = [name for name, kind in elements.items() if kind == "labels"]
        if wanted is None:
            loaded = masks_in(self.filehandler)
            own = [name for name in names.LABELS_OF_KIND.values() if name in loaded]
            if not loaded:
                raise MissingInputError(
                    f"{self.project_location} has no mask: load one with "
                    "project.load_labels(mask) or project.load_input_from_sdata(...)"
                )
            return own or loaded[:1]
        given = [wanted] if isinstance(wanted, str) else list(wanted)
        found = [names.LABELS_OF_KIND.get(name, name) for name in given]
        for name in found:
            if name not in there:
                known = ", ".join(there) or "none"
                raise MissingInputError(f"masks: {name} is not in the project; it has: {known}")
        return found

    def _outlined(self, masks: bool | Names) -> list[str]:
        if isinstance(masks, bool):
            return self._masks() if masks else []
        return self._masks(masks)

    def _levels(self, name: str) -> list[zarr.Array[Any]]:
        """Open the levels of a raster element, finest first."""
        store = self.filehandler
        return [store.open_array(name, level) for level in range(len(store.level_paths(name)))]


def masks_in(store: FileHandler) -> list[str]:
    """Names of the labels that were loaded: of those that a step made none is a mask of cells."""
    kinds = store.element_names()
    return [
        name
        for name, kind in kinds.items()
        if kind == "labels" and names.MADE_BY not in store.attributes(name)
    ]
