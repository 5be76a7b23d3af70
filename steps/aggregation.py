"""Aggregation: statistics of each cell's pixels in every channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from scportrait_like import names
from scportrait_like.config import StepConfig, Strings
from scportrait_like.errors import InputError
from scportrait_like.io.aggregation_output import GEOMETRY, AggregationSink, TableFacts
from scportrait_like.io.indexes import labels_index
from scportrait_like.io.inputs_of_steps import (
    Channels,
    find_channels,
    open_rasters,
)
from scportrait_like.io.tables import check_channels, instance_dtype
from scportrait_like.raster.aggregate import (
    Crossing,
    aggregation_grid,
    plan_aggregation,
    warm_up,
    with_costs,
)
from scportrait_like.raster.aggregated import Needs
from scportrait_like.raster.aggregation import AggregationTask
from scportrait_like.raster.sources import ZarrSource
from scportrait_like.raster.statistics import Statistic, resolve_statistics
from scportrait_like.run.plan import Plan, Sink, Task
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.step import ProcessingStep
from scportrait_like.table_step import TableStep


def _known_statistics(wanted: list[str]) -> list[str]:
    if len(set(wanted)) < len(wanted):
        raise ValueError("give each statistic once")
    if not any(each.per_channel for each in resolve_statistics(wanted).values()):
        raise ValueError("give at least one statistic of the pixels, such as mean")
    return wanted


class AggregationConfig(StepConfig):
    """Section ``Aggregation``.

    Attributes
    ----------
    statistics
        Any of count, sum, mean, var, skew, kurtosis, min, max, median, and quantiles such as
        ``q0.25``.
    table_name
        Of the table in the project's store; default ``intensities``, and ``intensities_<name>``
        where the section is a list.
    """

    statistics: Annotated[Strings, AfterValidator(_known_statistics)] = ["mean"]  # noqa: RUF012


class Aggregation(TableStep):
    """Take statistics of each cell's pixels in every channel, into a table of the project's store.

    The table annotates the mask: ``X`` is the first statistic, cells x channels, the others are
    layers; ``obs`` holds the area and the bounding box of each cell in pixels, ``obsm["spatial"]``
    its centroid (x, y). The output folder holds ``ledger.parquet`` (every id of the mask) and
    ``run.json``.
    """

    Config: ClassVar[type[StepConfig]] = AggregationConfig
    config: AggregationConfig
    folder: ClassVar[str] = names.AGGREGATION_DIR

    def process(self, *, overwrite: bool | None = None) -> Path:
        """Aggregate all cells.

        Parameters
        ----------
        overwrite
            True starts anew; see `ProcessingStep.execute`.

        Returns
        -------
        pathlib.Path
            Folder of the ledger; the table stands in ``project.sdata`` under `table_name`.

        Raises
        ------
        InputError
            Channels or sizes that do not fit.
        ElementExistsError
            Something else than this step's table has that name.
        StaleRunError
            What lies there was made from other settings or inputs.
        """
        self.check_table({}, overwrite, GEOMETRY)
        return self.execute({}, overwrite)

    def check(
        self, before: Sequence[ProcessingStep] = (), *, overwrite: bool | None = None
    ) -> None:
        """Refuse what `process` would refuse before its units, as far as no mask is read."""
        self.check_table({}, overwrite, GEOMETRY)
        with self.absent_yet(before):
            self.inputs()  # which must be there
            self._channels()
            self._sources()

    @property
    def table_name(self) -> str:
        """Name of the table of intensities, which the pictures and the report show."""
        return self.table_of({})

    def table_of(self, call: Mapping[str, Any]) -> str:
        """Name of the table in the project's store."""
        config = self.config
        suffix = f"_{config.name}" if config.name else ""
        return config.table_name or f"{names.INTENSITIES}{suffix}"

    def output_name(self, call: Mapping[str, Any]) -> str:
        """``data``, or the section's own name."""
        return self.config.name or super().output_name(call)

    def repeat(self, call: Mapping[str, Any], overwrite: bool = True) -> str:
        """How a user writes the call."""
        return f"project.aggregate({'overwrite=True' if overwrite else ''})"

    # Inputs

    def inputs(self) -> tuple[str, ...]:
        """The image and the mask."""
        return self.image_and_labels()

    def _channels(self) -> Channels:
        config = self.config
        return find_channels(self.filehandler, config.image, config.channels, self.title)

    def _positions(self) -> tuple[int, ...]:
        """Positions of the channels, ascending: those that share chunks are read together."""
        return tuple(sorted(position for position, _ in self._channels()))

    def _sources(self) -> tuple[ZarrSource, ZarrSource]:
        image, (labels,) = open_rasters(self.filehandler, self.config.image, [self.labels])
        return image, labels

    def _statistics(self) -> dict[str, Statistic]:
        return resolve_statistics(self.config.statistics)

    # Plan, task, sink

    def plan(self, call: Mapping[str, Any]) -> Plan:
        """Cut the mask into tiles, and find the cells that cross them where quantiles need it."""
        image, labels = self._sources()
        check_channels([name for _, name in self._channels()], self.config.image)
        index = labels_index(self.filehandler, self.labels, self.budget())
        if len(index) == 0:
            raise InputError(f"mask {self.labels} is empty: it holds no label above 0")
        needs, grid = Needs.of(self._statistics()), aggregation_grid(labels, image)
        crossing = Crossing.of(index.ids, index.area, index.box, grid) if needs.ranks else None
        plan = plan_aggregation(grid, crossing)
        return with_costs(plan, grid, labels, image, len(self._channels()), needs)

    def task(self, plan: Plan, run: RunDirectory) -> Task:
        """Return the work of a unit; kernels are compiled here, before any worker starts."""
        image, labels = self._sources()
        statistics = self._statistics()
        warm_up(image, statistics, labels)
        needs = Needs.of(statistics)
        return AggregationTask(
            labels=labels,
            what=f"mask {self.labels}",
            image=image,
            channels=self._positions(),
            measures=needs.measures,
            ranks=needs.ranks,
            background=False,
            only_wanted=False,
            plan_path=run.plan_path,
            units_path=run.units_path,
        )

    def sink(self, plan: Plan, output: Path, call: Mapping[str, Any]) -> Sink:
        """Return what merges the units into the table and the ledger."""
        read = self._positions()
        facts = TableFacts(
            name=self.table_of(call),
            region=self.labels,
            channels=tuple(name for _, name in self._channels()),
            columns=tuple(read.index(position) for position, _ in self._channels()),
            ids_dtype=instance_dtype(self._sources()[1].dtype),
            statistics=self._statistics(),
            region_key=self.config.region_key,
            instance_key=self.config.instance_key,
            attributes=self.table_attributes(call),
        )
        index = labels_index(self.filehandler, self.labels, self.budget())
        return AggregationSink(plan, output, self.filehandler, index, facts)
