"""All pictures of a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scportrait_like.pictures._cells import CellPictures
from scportrait_like.pictures._clusters import ClusterPictures
from scportrait_like.pictures._elements import Crop, Names
from scportrait_like.plot import fitting_view, view_like

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.figure import Figure

    from scportrait_like.status import StepStatus


class Pictures(CellPictures, ClusterPictures):
    """Plots of a project; none of them writes into it or takes its lock.

    All return a :class:`matplotlib.figure.Figure`, which a notebook shows; ``save`` writes it to a
    file, whose suffix chooses the format. Large images are read from a level of their pyramid that
    fits the page.
    """

    if TYPE_CHECKING:

        def status(self) -> list[StepStatus]:
            """How far each step is."""

        def _writing(self, doing: str) -> AbstractContextManager[None]:
            """Hold the lock."""

    def plot_input_image(
        self,
        channels: Names | None = None,
        *,
        masks: bool | Names = False,
        crop: Crop | None = None,
        percentiles: tuple[float, float] = (5.0, 99.8),
        gamma: float = 1.0,
        title: str | None = None,
        max_pixels: int = 4_000_000,
        save: str | Path | None = None,
    ) -> Figure:
        """Draw the input image, up to six channels in colours of their own.

        Parameters
        ----------
        channels
            Names of channels. Default: all if there are at most four, else the four with the most
            structure.
        masks
            Draw the outlines of these masks ("nucleus", "cytosol", or names of labels elements);
            True: of all masks of the project.
        crop
            (y0, y1, x0, x1) in pixels of the full image.
        percentiles
            Those of each channel that become black and full colour.
        gamma
            Below 1 lifts the dark parts.
        title
            Drawn above.
        max_pixels
            The finest level with no more pixels in view is drawn.
        save
            Where to write the picture.

        Raises
        ------
        MissingInputError
            There is no image, or no such mask.
        InputError
            No such channel, or a crop that does not lie in the image.
        """
        from scportrait_like.plot import plot_image

        image = self._image()
        view = fitting_view(self._levels(image), crop, max_pixels)
        outlines = {name: view_like(self._levels(name), view) for name in self._outlined(masks)}
        return plot_image(
            view,
            self.filehandler.channel_names(image),
            channels=[channels] if isinstance(channels, str) else channels,
            outlines=outlines or None,
            crop=view.crop,
            scale=view.scale,
            percentiles=percentiles,
            gamma=gamma,
            title=title,
            save=save,
        )

    def plot_segmentation_masks(
        self,
        masks: Names | None = None,
        *,
        crop: Crop | None = None,
        max_pixels: int = 4_000_000,
        save: str | Path | None = None,
    ) -> Figure:
        """Draw masks side by side, in colours that tell neighbours apart.

        Parameters
        ----------
        masks
            "nucleus", "cytosol", or names of labels elements; default: all masks of the project.
        crop, max_pixels, save
            As in `plot_input_image`.

        Raises
        ------
        MissingInputError
            There is no mask, or no such one.
        """
        from scportrait_like.plot import plot_masks

        wanted = self._masks(masks)
        view = fitting_view(self._levels(wanted[0]), crop, max_pixels)
        others = {name: view_like(self._levels(name), view) for name in wanted[1:]}
        return plot_masks({wanted[0]: view, **others}, crop=view.crop, scale=view.scale, save=save)

    def report(self) -> Path:
        """Write a page with pictures of the inputs and outputs, and what became of every cell.

        Returns
        -------
        pathlib.Path
            ``report/report.html`` in the project; the pictures lie beside it.
        """
        from scportrait_like.report import write_report

        with self._writing("the report"):
            return write_report(self)
