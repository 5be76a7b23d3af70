"""Pictures of the clusters of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from scportrait_like import names as known
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.io.cluster_tables import METACLUSTER, METACLUSTERS, PIXELS
from scportrait_like.pictures._elements import Crop, Elements, Names
from scportrait_like.plot import (
    ClusterValues,
    HeatmapOrder,
    HeatmapValues,
    checked_names,
    fitting_view,
)
from scportrait_like.report._parts import older_output, open_table, origin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scportrait_like.step import ProcessingStep

ClusterKind = Literal["map", "heatmap", "som", "cells"]
Level = Literal["metaclusters", "clusters"]

_SECTION: Final = "PixelClustering"


class ClusterPictures(Elements):
    """Plots of a pixel clustering."""

    pixel_clustering_f: ProcessingStep | None

    def plot_pixel_clusters(
        self,
        kind: ClusterKind = "map",
        *,
        level: Level = "metaclusters",
        clustering: str | None = None,
        names: Mapping[int, str] | None = None,
        channels: Names | None = None,
        values: HeatmapValues = "z",
        order: HeatmapOrder | None = None,
        crop: Crop | None = None,
        z: int | None = None,
        title: str | None = None,
        max_pixels: int = 2_000_000,
        save: str | Path | None = None,
    ) -> Figure:
        """Draw the clusters of pixels; a metacluster has the same colour in every picture.

        Parameters
        ----------
        kind
            "map": each pixel in the colour of its metacluster, pixels of no cluster pale grey.
            "heatmap": the mean of each metacluster in each channel, prepared as for the clustering,
            as z-scores or as they are. "som": the self-organising map, as a grid and as its minimum
            spanning tree. "cells": each cell of the mask in the colour of the metacluster that most
            of its pixels have (of several equally common the lowest); cells of none are pale grey.
        level
            Of a map or heatmap. "clusters": the nodes of the self-organising map; in a map they are
            shades of the colour of their metacluster.
        clustering
            ``name`` of a mapping of the section, where that is a list; default: the first one.
        names
            Of metaclusters by number, such as ``{3: "B cells"}``; numbers may be text.
        channels
            Of a heatmap: names; default: all that were clustered.
        values
            Of a heatmap: "z" or "mean"; see `scportrait_like.plot.plot_cluster_heatmap`.
        order
            Of a heatmap: "similar": rows and columns that are alike stand together; "number": rows
            by their numbers, channels as they were clustered. Default: "number" where a saved map
            was applied, so that all projects of one map look alike, else "similar".
        crop
            Of a map or of cells: (y0, y1, x0, x1) in pixels of the full image.
        z
            Of a map or of cells in three dimensions: the plane; default: the middle.
        title
            Drawn above.
        max_pixels
            Of a map or of cells: the finest level with no more pixels in view is drawn.
        save
            Where to write the picture.

        Raises
        ------
        MissingInputError
            The pixels are not clustered, or not counted in cells: the message says how to go on.
        InputError
            No such kind, level, metacluster, channel or plane, or a crop that does not lie in the
            image.
        """
        for argument, value, allowed in (("kind", kind, ClusterKind), ("level", level, Level)):
            if value not in get_args(allowed):
                listed = ", ".join(get_args(allowed))
                raise InputError(f"{argument}={value!r}: expected one of {listed}")
        if kind not in ("map", "cells") and (crop is not None or z is not None):
            raise InputError(f"crop and z are of a map or of cells: leave them out of a {kind}")
        if kind != "heatmap" and (channels is not None or values != "z" or order is not None):
            raise InputError(
                f"channels, values and order are of a heatmap: leave them out of {kind!r}"
            )
        made = _Made(self, self._clustering(clustering))
        options: dict[str, Any] = {"names": made.names(names), "title": title, "save": save}
        if kind == "map":
            return made.map(level, crop, z, max_pixels, **options)
        if kind == "cells":
            return made.cells(crop, z, max_pixels, **options)
        if kind == "heatmap":
            return made.heatmap(level, channels, values, order, **options)
        return made.som(**options)

    def _clustering(self, name: str | None) -> ProcessingStep:
        """Find the step of a mapping of the section."""
        first = self.pixel_clustering_f
        if first is None:
            raise MissingInputError(
                f"{self.project_location} has no pixel clusters: put a section {_SECTION} into "
                "the config, then run project.cluster_pixels()"
            )
        steps = self.steps[first.name]
        found = [step for step in steps if name in (None, step.config.name)]
        if not found:
            there = ", ".join(step.config.name for step in steps if step.config.name) or "no names"
            raise InputError(f"clustering={name!r}: the section {_SECTION} has {there}")
        return found[0]


class _Made:
    """What a pixel clustering has left in the store."""

    def __init__(self, project: Elements, step: ProcessingStep) -> None:
        self._project, self._step = project, step
        self._footnote = older_output(step)

    def names(self, given: Mapping[int, str] | None) -> dict[int, str]:
        """Check the names of metaclusters."""
        most = None if given is None else len(self._values("metaclusters").pixels)
        return checked_names(given, most)

    def map(
        self, level: Level, crop: Crop | None, z: int | None, max_pixels: int, **options: Any
    ) -> Figure:
        from scportrait_like.plot import plot_cluster_map

        usual = {"clusters": known.PIXEL_CLUSTERS, "metaclusters": known.PIXEL_METACLUSTERS}
        name = self._element(f"{level}_name", usual[level], "labels")
        levels = self._project._levels(name)
        shape = levels[0].shape
        view = fitting_view(levels, crop, max_pixels)
        plane = _plane(shape, z)
        counts = None
        if crop is None and plane is None:
            pixels = self._values("metaclusters").pixels
            counts = [int(np.prod(shape)) - int(pixels.sum()), *pixels.tolist()]
        return plot_cluster_map(
            view if plane is None else view.plane((plane + 0.5) / shape[0]),
            self._values("clusters").metaclusters if level == "clusters" else None,
            counts=counts,
            crop=view.crop,
            scale=view.scale,
            footnote=self._noted(shape, plane),
            **options,
        )

    def cells(self, crop: Crop | None, z: int | None, max_pixels: int, **options: Any) -> Figure:
        from scportrait_like.plot import plot_cluster_cells

        step: Any = self._step
        name, store = str(step.table_of({})), self._project.filehandler
        if store.element_names().get(name) != "tables":
            how = step.how_to_go_on(step.output_path.name)
            raise MissingInputError(
                f"{self._project.project_location} has no table {name}, which needs a mask "
                f"(project.load_labels) and count_in_cells: {how}"
            )
        table = open_table(self._project.filehandler, name)
        mask = self._project._masks(table.regions[0])[0]
        ids, groups = table.commonest(METACLUSTERS, mask)
        levels = self._project._levels(mask)
        view, shape = fitting_view(levels, crop, max_pixels), levels[0].shape
        plane = _plane(shape, z)
        return plot_cluster_cells(
            view if plane is None else view.plane((plane + 0.5) / shape[0]),
            ids,
            groups,
            crop=None if crop is None and plane is None else view.crop,
            scale=view.scale,
            footnote=self._noted(shape, plane),
            **options,
        )

    def _noted(self, shape: tuple[int, ...], plane: int | None) -> str:
        of = [] if plane is None else [f"plane {plane} of {shape[0]}"]
        return "; ".join([*of, self._footnote] if self._footnote else of)

    def heatmap(
        self,
        level: Level,
        channels: Names | None,
        values: HeatmapValues,
        order: HeatmapOrder | None,
        **options: Any,
    ) -> Figure:
        from scportrait_like.plot import plot_cluster_heatmap

        found = self._values(level, channels)
        return plot_cluster_heatmap(
            found.means,
            found.channels,
            metaclusters=found.metaclusters,
            counts=found.pixels,
            values=values,
            order=order or ("number" if origin(self._step) else "similar"),
            footnote=self._footnote,
            **options,
        )

    def som(self, **options: Any) -> Figure:
        from scportrait_like.pixels.trained_som import TrainedSom
        from scportrait_like.plot import plot_som

        pixels = self._values("clusters").pixels
        trained = TrainedSom.load(self._step.output_path / known.SOM_FILE)
        shape = (trained.xdim, trained.ydim)
        options |= {"counts": pixels, "footnote": self._footnote}
        return plot_som(trained.codes, trained.metaclusters, shape, **options)

    def _values(self, level: Level, channels: Names | None = None) -> ClusterValues:
        usual = known.PIXEL_CLUSTER_INTENSITIES
        if level == "metaclusters":
            usual = known.PIXEL_METACLUSTER_INTENSITIES
        name = self._element(f"{level}_table_name", usual, "tables")
        of_each = METACLUSTER if level == "clusters" else None
        return ClusterValues.of(
            open_table(self._project.filehandler, name), PIXELS, of_each, channels
        )

    def _element(self, attribute: str, usual: str, kind: str) -> str:
        """Name of an element that the step makes; raise where it is not there."""
        name = str(getattr(self._step, attribute, usual))
        if self._project.filehandler.element_names().get(name) != kind:
            how = self._step.how_to_go_on(self._step.output_path.name)
            raise MissingInputError(f"{self._project.project_location} has no {kind} {name}: {how}")
        return name


def _plane(shape: tuple[int, ...], z: int | None) -> int | None:
    """Return the plane to draw of a volume; None of a plane."""
    depth = shape[0] if len(shape) == 3 else 0
    if z is not None and not 0 <= z < depth:
        planes = f"planes 0 to {depth - 1}" if depth else "one plane only: leave z out"
        raise InputError(f"z={z}: the image has {planes}")
    return (depth // 2 if z is None else z) if depth else None
