"""What the parts of the report share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scportrait_like import names
from scportrait_like.errors import ScportraitLikeError
from scportrait_like.filehandler import FileHandler
from scportrait_like.plot import CellTable
from scportrait_like.run.rundir import changes, read_fingerprint
from scportrait_like.status import StepStatus
from scportrait_like.step import ProcessingStep

Crop = tuple[int, int, int, int]


class Reported(Protocol):
    """What the report asks of a project."""

    project_location: Path
    filehandler: FileHandler
    steps: Mapping[str, list[ProcessingStep]]

    def status(self) -> list[StepStatus]:
        """How far each step is."""

    def plot_input_image(self, *arguments: Any, **options: Any) -> Any:
        """See `Project`."""

    def plot_segmentation_masks(self, *arguments: Any, **options: Any) -> Any:
        """See `Project`."""

    def plot_single_cell_images(self, *arguments: Any, **options: Any) -> Any:
        """See `Project`."""

    def plot_intensities(self, *arguments: Any, **options: Any) -> Any:
        """See `Project`."""

    def plot_pixel_clusters(self, *arguments: Any, **options: Any) -> Any:
        """See `Project`."""


@dataclass(frozen=True)
class Picture:
    """A file beside the page, and what it shows."""

    file: str
    caption: str


def open_table(store: FileHandler, name: str) -> CellTable:
    """Open a table of the project's store."""
    import zarr

    return CellTable(zarr.open_group(store.element_path(name), mode="r"), name)


def maker(project: Reported, name: str) -> StepStatus | None:
    """How far the call of a step is that made an element; None where no step of the config did."""
    made_by = project.filehandler.attributes(name).get(names.MADE_BY)
    for steps in project.steps.values():
        for step in steps:
            for status in step.status():
                if made_by == f"{step.directory.name}/{status.output}":
                    return status
    return None


def older_output(step: ProcessingStep, listed: bool = False) -> str:
    """Say that what a step shows is not what its settings and inputs of now would give.

    Empty where it is, or where there is no complete output. With `listed` also which settings
    have changed.
    """
    output = step.output_path
    made = read_fingerprint(output)
    if made is None:
        return ""
    (state,) = (status.state for status in step.status() if status.output == output.name)
    if state == "complete":
        return ""
    said = "a newer run is interrupted" if state == "interrupted" else "it is stale"
    try:
        changed = changes(made["config"], step.fingerprint({})["config"]) if listed else []
    except ScportraitLikeError:  # an input is missing, which its status tells
        changed = []
    return f"older output: {'; '.join([said, *changed])}"


def origin(step: ProcessingStep) -> str:
    """Path of the saved map that made the output of a pixel clustering; empty: it was trained."""
    record = (read_fingerprint(step.output_path) or {}).get("model") or {}
    return str(record.get("path", ""))


def loaded(project: Reported, kind: str) -> list[str]:
    """Names of the images or labels that were loaded, and not made by a step."""
    store = project.filehandler
    return [
        name
        for name, there in store.element_names().items()
        if there == kind and names.MADE_BY not in store.attributes(name)
    ]


def clustering_steps(project: Reported) -> list[Any]:
    """Return the pixel clusterings of the config."""
    return [
        step
        for steps in project.steps.values()
        for step in steps
        if step.directory.name == names.PIXEL_CLUSTERING_DIR and hasattr(step, "metaclusters_name")
    ]
