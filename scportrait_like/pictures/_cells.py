"""Pictures of cells: their portraits, and what was measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from scportrait_like import names
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.pictures._elements import Crop, Elements, Names
from scportrait_like.plot import CellTable, fitting_view

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

    from scportrait_like.step import ProcessingStep

Kind = Literal["map", "distribution"]

_FEW: Final = 20  # names listed in a message
# Channels that are drawn where the caller names none, and at most: both fit a page of A4.
_DRAWN: Final[dict[Kind, int]] = {"map": 6, "distribution": 18}


class CellPictures(Elements):
    """Plots of cells."""

    extraction_f: ProcessingStep | None
    aggregation_f: ProcessingStep | None

    if TYPE_CHECKING:

        @property
        def h5sc(self) -> AnnData:
            """The extracted pictures."""

    def plot_single_cell_images(
        self,
        n_cells: int = 12,
        *,
        cell_ids: Sequence[int] | None = None,
        channels: Names | None = None,
        masks: bool = True,
        output: str | None = None,
        title: str | None = None,
        save: str | Path | None = None,
    ) -> Figure:
        """Draw extracted single-cell images: one row a cell, one column a mask or channel.

        Parameters
        ----------
        n_cells
            At most so many, evenly spread over all (or over `cell_ids`).
        cell_ids
            Ids of the cells to draw, in this order.
        channels
            Names of channels; default: all.
        masks
            Draw the masks too.
        output
            Folder of another extraction, such as ``partial_data_ncells_50_seed_42``; default: the
            last one of this object, else that of all cells.
        title
            Drawn above.
        save
            Where to write the picture.

        Raises
        ------
        MissingInputError, IncompleteOutputError
            The cells are not extracted, or not all: the message says how to go on.
        InputError
            A cell that was not extracted (the message says why), or no such channel.
        """
        from scportrait_like.plot import PlanesOf, choose_planes, plot_portraits

        data = self._extracted(output)
        images = data.obsm[names.IMAGES_KEY]
        with closing(images.file):
            ids = data.obs[names.INSTANCE_KEY].to_numpy()
            rows = None if cell_ids is None else _rows(ids, cell_ids, Path(images.file.filename))
            planes, n_masks = choose_planes(data.var, channels, masks)
            return plot_portraits(
                PlanesOf(images, planes),
                ids,
                [str(data.var["channels"].iloc[plane]) for plane in planes],
                n_masks=n_masks,
                rows=rows,
                max_cells=n_cells,
                title=title,
                save=save,
            )

    def plot_intensities(
        self,
        channels: Names | None = None,
        *,
        kind: Kind = "map",
        statistic: str = "X",
        table: str | None = None,
        mask: str | None = None,
        crop: Crop | None = None,
        percentiles: tuple[float, float] = (1.0, 99.0),
        colormap: str = "viridis",
        title: str | None = None,
        max_pixels: int = 1_000_000,
        save: str | Path | None = None,
    ) -> Figure:
        """Draw what was measured of each cell, one panel a channel: upon the tissue, or its spread.

        Parameters
        ----------
        channels
            Names of channels. Default: all if they fit a page (6 maps, 18 distributions), else
            those of the most spread.
        kind
            "map": each cell of the mask in the colour of its value, cells without one in grey.
            "distribution": a histogram of all cells.
        statistic
            "X": the table's first statistic; else the name of one ("median"), or a column of its
            `obs` such as "area".
        table
            Name of a table; default: that of the step `Aggregation` in the config, else
            "intensities".
        mask
            "nucleus", "cytosol", or the name of labels, where the table holds cells of several;
            default: the first one.
        crop
            Of a map: (y0, y1, x0, x1) in pixels of the full image.
        percentiles
            Of a map: those of each channel that become the first and the last colour. They are of
            all cells of the mask, so colours mean the same whatever the crop.
        colormap
            Of a map: its name in matplotlib.
        title
            Drawn above.
        max_pixels
            Of a map: the finest level with no more pixels in view is drawn, in each panel.
        save
            Where to write the picture.

        Raises
        ------
        MissingInputError
            There is no such table: the message says how to make it. Or its mask is gone.
        InputError
            No such channel, statistic or kind, or a crop that does not lie in the mask.
        """
        from scportrait_like.plot import plot_distributions, plot_values

        if kind not in get_args(Kind):
            raise InputError(f"kind={kind!r}: expected one of {', '.join(get_args(Kind))}")
        if kind == "distribution" and crop is not None:
            raise InputError("crop: a distribution is of all cells; leave it out, or draw a map")
        cells = self._cell_table(table)
        region = self._region(cells, mask)
        wanted = [channels] if isinstance(channels, str) else channels
        found = cells.read(statistic, wanted, _DRAWN[kind], region)
        more = f"{found.hidden} more channels not shown" if found.hidden else ""
        if kind == "distribution":
            return plot_distributions(
                found.values,
                found.names,
                statistic=found.statistic,
                title=title,
                footnote=more,
                save=save,
            )
        view = fitting_view(self._levels(self._masks(region)[0]), crop, max_pixels)
        return plot_values(
            view,
            found.ids,
            found.values,
            found.names,
            statistic=found.statistic,
            crop=view.crop,
            scale=view.scale,
            percentiles=percentiles,
            colormap=colormap,
            title=title,
            footnote=more,
            save=save,
        )

    def _cell_table(self, name: str | None) -> CellTable:
        """Open a table of the store; default: that of the aggregation."""
        import zarr

        step = self.aggregation_f
        own = getattr(step, "table_name", names.INTENSITIES)
        elements = self.filehandler.element_names()
        wanted = own if name is None else name
        if elements.get(wanted) != "tables":
            how = "run project.aggregate()"
            if step is None:
                how = f"put a section Aggregation into the config, then {how}"
            elif wanted == own:
                how = step.how_to_go_on(step.output_path.name)
            there = ", ".join(key for key, kind in elements.items() if kind == "tables") or "none"
            raise MissingInputError(
                f"{self.project_location} has no table {wanted}: {how}. Tables there are: {there}"
            )
        return CellTable(zarr.open_group(self.filehandler.element_path(wanted), mode="r"), wanted)

    def _region(self, cells: CellTable, mask: str | None) -> str:
        """Name of the mask whose cells are drawn."""
        wanted = cells.regions[0] if mask is None else names.LABELS_OF_KIND.get(mask, mask)
        if wanted not in cells.regions:
            raise InputError(
                f"mask={mask!r}: the table {cells.name} holds cells of {', '.join(cells.regions)}"
            )
        return wanted

    def _extracted(self, output: str | None) -> AnnData:
        if output is None or self.extraction_f is None:
            return self.h5sc
        from scportrait_like.io.h5sc import read_h5sc

        path = self.extraction_f.directory / output / names.H5SC_FILE
        return read_h5sc(path, self.extraction_f.how_to_go_on(output))


def _rows(ids: np.ndarray[Any, Any], cell_ids: Sequence[int], file: Path) -> list[int]:
    """Rows of some cells; an id that has none is an error that says why."""
    found = {int(id_): np.flatnonzero(ids == id_) for id_ in cell_ids}
    missing = [id_ for id_, rows in found.items() if len(rows) == 0]
    if not missing:
        return [int(rows[0]) for rows in found.values()]
    why = _whereabouts(missing[:_FEW], file.with_name(names.LEDGER_FILE))
    raise InputError(f"cell_ids: not among the {len(ids):,} extracted cells: {why}")


def _whereabouts(ids: list[int], ledger: Path) -> str:
    """What the ledger says of some ids."""
    if not ledger.is_file():
        return ", ".join(map(str, ids))
    from scportrait_like.io.ledger import read_ledger

    lines = read_ledger(ledger).set_index("id")
    said = []
    for id_ in ids:
        if id_ not in lines.index:
            said.append(f"{id_} (not in the mask)")
            continue
        line = lines.loc[id_]
        reason = f": {line['reason']}" if line["reason"] else ""
        said.append(f"{id_} ({line['state']}{reason})")
    return ", ".join(said)
