"""The part of the report about clusters of pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from scportrait_like import names
from scportrait_like.io.cluster_tables import PIXELS
from scportrait_like.plot import ClusterValues, cluster_colours, percent, z_scores
from scportrait_like.report._inputs import detail
from scportrait_like.report._parts import (
    Crop,
    Picture,
    Reported,
    clustering_steps,
    maker,
    older_output,
    open_table,
    origin,
)
from scportrait_like.status import StepStatus

_WHOLE: Final = 1000  # longer edge of a map of which a page shows every pixel
_HIGHEST: Final = 3  # channels named of each metacluster
_HIGH: Final = 0.5  # least z-score of those


@dataclass(frozen=True)
class MetaclusterLine:
    """One metacluster: its colour upon the map, and where it is bright."""

    number: int
    colour: str
    pixels: int
    share: str
    bright: str


@dataclass(frozen=True)
class PixelClusters:
    """The output of a pixel clustering."""

    metaclusters: str
    clusters: str
    facts: list[tuple[str, str]]
    lines: list[MetaclusterLine]
    status: StepStatus | None
    older: str
    pictures: list[Picture] = field(default_factory=list)


def clusterings(project: Reported, folder: Path) -> list[PixelClusters]:
    """Describe all pixel clusterings of the config whose labels and tables are there."""
    there = project.filehandler.element_names()
    found = []
    for step in clustering_steps(project):
        table, labels = step.metaclusters_table_name, step.metaclusters_name
        if there.get(table) == "tables" and there.get(labels) == "labels":
            found.append(_section(project, step, folder))
    return found


def _section(project: Reported, step: Any, folder: Path) -> PixelClusters:
    labels, table = (
        step.metaclusters_name,
        open_table(project.filehandler, step.metaclusters_table_name),
    )
    found = ClusterValues.of(table, PIXELS, None)
    facts, saved = [("channels", ", ".join(found.channels))], step.output_path / names.SOM_FILE
    if saved.is_file():
        facts += _facts(saved, step)
    section = PixelClusters(
        labels,
        step.clusters_name,
        facts,
        _lines(found),
        maker(project, labels),
        older_output(step, listed=True),
    )
    name = step.config.name
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        ("map", "Each pixel in the colour of its metacluster.", {}),
        ("heatmap", _HEATMAP, {"kind": "heatmap"}),
    ]
    if (part := _part(project, labels)) is not None:
        wanted.insert(1, ("detail", "A part of the map.", {"crop": part}))
    if project.filehandler.element_names().get(step.table_of({})) == "tables":
        where = " (the same part)" if part else ""
        wanted.append(("cells", _CELLS + where + ".", {"kind": "cells", "crop": part}))
    if saved.is_file() and project.filehandler.element_names().get(step.clusters_table_name):
        wanted.append(("som", _SOM, {"kind": "som"}))
    for what, caption, options in wanted:
        file = f"{labels}_{what}.png"
        project.plot_pixel_clusters(clustering=name, save=folder / file, **options)
        section.pictures.append(Picture(file, caption))
    return section


_HEATMAP: Final = (
    "The mean of each metacluster in each channel, prepared as for the clustering, in standard "
    "deviations from the mean of all metaclusters."
)
_CELLS: Final = (
    "Each cell in the colour of the metacluster that most of its pixels have, cells of none in "
    "pale grey"
)
_SOM: Final = (
    "The self-organising map: each circle is a cluster in the colour of its metacluster, its area "
    "the share of the pixels."
)


def _part(project: Reported, labels: str) -> Crop | None:
    """Return the part of the input that is looked at closely, where the map shows the same."""
    store = project.filehandler
    if names.INPUT_IMAGE not in store:
        return None
    shapes = {store.open_array(name).shape[-2:] for name in (names.INPUT_IMAGE, labels)}
    if len(shapes) != 1 or max(*shapes.pop()) <= _WHOLE:
        return None
    return detail(project)


def _facts(saved: Path, step: Any) -> list[tuple[str, str]]:
    from scportrait_like.pixels.trained_som import TrainedSom

    trained = TrainedSom.load(saved)
    clusters = f"{trained.n_nodes:,} on a grid of {trained.xdim} x {trained.ydim}"
    facts = [("clusters", clusters), ("metaclusters", f"{trained.n_metaclusters:,}")]
    if path := origin(step):
        facts.append(("map", f"taken over from {path}; nothing was trained here"))
    if drawn := trained.sample.get("drawn"):
        valid = trained.sample.get("valid")
        pixels = f"{drawn:,} pixels" + (f" of {valid:,}" if valid else "")
        facts.append(("trained on", f"{pixels}, where the map comes from" if path else pixels))
    prepared = trained.preparation or {}
    told = [f"{key} {value}" for key, value in prepared.items() if value is not None]
    facts.append(("preparation", ", ".join(told) or "none"))
    return facts


def _lines(found: ClusterValues) -> list[MetaclusterLine]:
    scores, total = z_scores(found.means), float(found.pixels.sum())
    lines = []
    for k, (pixels, row) in enumerate(zip(found.pixels.tolist(), scores, strict=True)):
        best = np.argsort(-np.nan_to_num(row), kind="stable")[:_HIGHEST]
        bright = ", ".join(f"{found.channels[c]} {row[c]:+.1f}" for c in best if row[c] >= _HIGH)
        red, green, blue = np.round(255 * cluster_colours([k + 1])[0]).astype(int).tolist()
        colour = f"#{red:02x}{green:02x}{blue:02x}"
        lines.append(MetaclusterLine(k + 1, colour, pixels, percent(pixels, total), bright))
    return lines
