"""Pictures of the clusters of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from scportrait_like import names as known
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.io.cluster_tables import METACLUSTER, PIXELS
from scportrait_like.pictures._elements import Crop, Elements, Names
from scportrait_like.plot import CellTable, ClusterValues, fitting_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scportrait_like.step import ProcessingStep

ClusterKind = Literal["map", "heatmap", "som"]
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
            as z-scores. "som": the self-organising map, as a grid and as its minimum spanning tree.
        level
            Of a map or heatmap. "clusters": the nodes of the self-organising map; in a map they are
            shades of the colour of their metacluster.
        clustering
            ``name`` of a mapping of the section, where that is a list; default: the first one.
        names
            Of metaclusters by number, such as ``{3: "B cells"}``.
        channels
            Of a heatmap: names; default: all that were clustered.
        crop
            Of a map: (y0, y1, x0, x1) in pixels of the full image.
        z
            Of a map in three dimensions: the plane; default: the middle.
        title
            Drawn above.
        max_pixels
            Of a map: the finest level with no more pixels in view is drawn.
        save
            Where to write the picture.

        Raises
        ------
        MissingInputError
            The pixels are not clustered: the message says how to go on.
        InputError
            No such kind, level, channel or plane, or a crop that does not lie in the image.
        """
        for argument, value, allowed in (("kind", kind, ClusterKind), ("level", level, Level)):
            if value not in get_args(allowed):
                listed = ", ".join(get_args(allowed))
                raise InputError(f"{argument}={value!r}: expected one of {listed}")
        if kind != "map" and (crop is not None or z is not None):
            raise InputError(f"crop and z are of a map: leave them out of a {kind}")
        if kind != "heatmap" and channels is not None:
            raise InputError(f"channels are of a heatmap: leave them out of a {kind}")
        made = _Made(self, self._clustering(clustering))
        options: dict[str, Any] = {"names": names, "title": title, "save": save}
        if kind == "map":
            return made.map(level, crop, z, max_pixels, **options)
        if kind == "heatmap":
            return made.heatmap(level, channels, **options)
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
            footnote="" if plane is None else f"plane {plane} of {shape[0]}",
            **options,
        )

    def heatmap(self, level: Level, channels: Names | None, **options: Any) -> Figure:
        from scportrait_like.plot import plot_cluster_heatmap

        found = self._values(level, channels)
        return plot_cluster_heatmap(
            found.means,
            found.channels,
            metaclusters=found.metaclusters,
            counts=found.pixels,
            **options,
        )

    def som(self, **options: Any) -> Figure:
        from scportrait_like.pixels.trained_som import TrainedSom
        from scportrait_like.plot import plot_som

        pixels = self._values("clusters").pixels
        trained = TrainedSom.load(self._step.output_path / known.SOM_FILE)
        shape = (trained.xdim, trained.ydim)
        return plot_som(trained.codes, trained.metaclusters, shape, counts=pixels, **options)

    def _values(self, level: Level, channels: Names | None = None) -> ClusterValues:
        import zarr

        usual = known.PIXEL_CLUSTER_INTENSITIES
        if level == "metaclusters":
            usual = known.PIXEL_METACLUSTER_INTENSITIES
        name = self._element(f"{level}_table_name", usual, "tables")
        path = self._project.filehandler.element_path(name)
        table = CellTable(zarr.open_group(path, mode="r"), name)
        of_each = METACLUSTER if level == "clusters" else None
        return ClusterValues.of(table, PIXELS, of_each, channels)

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
