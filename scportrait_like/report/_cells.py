"""The parts of the report about cells: their fate, and what was measured of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from scportrait_like import names
from scportrait_like.io.ledger import read_ledger
from scportrait_like.plot import CellTable
from scportrait_like.report._parts import Picture, Reported, open_table
from scportrait_like.status import StepStatus
from scportrait_like.step import ProcessingStep

# Reasons of the ledger, in words.
REASONS: Final = {
    "border": "the window does not lie inside the image",
    "no_nucleus": "no nucleus of this id",
    "no_cytosol": "no cytosol of this id",
}
# Maps of intensities: four fill two rows.
_MAPS: Final = 4


@dataclass(frozen=True)
class LedgerLine:
    """How many ids of the mask share a fate."""

    state: str
    reason: str
    cells: int
    percent: float


@dataclass(frozen=True)
class Output:
    """A complete output of a step."""

    title: str
    cells: int
    ledger: list[LedgerLine]
    pictures: list[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class ChannelLine:
    """The values of one channel over all cells; empty texts where it has none."""

    channel: str
    least: str
    median: str
    largest: str
    without: int


@dataclass(frozen=True)
class Intensities:
    """A table of what was measured of each cell."""

    table: str
    mask: str
    cells: int
    statistics: str
    statistic: str
    lines: list[ChannelLine]
    status: StepStatus | None = None
    pictures: list[Picture] = field(default_factory=list)


def outputs(project: Reported, folder: Path) -> list[Output]:
    """All complete outputs that have a ledger."""
    found = []
    for steps in project.steps.values():
        for step in steps:
            for status in step.status():
                if status.state == "complete":
                    found += _output(project, step, status, folder)
    return found


def _output(
    project: Reported, step: ProcessingStep, status: StepStatus, folder: Path
) -> list[Output]:
    place = step.directory / status.output
    if not (place / names.LEDGER_FILE).is_file():
        return []
    lines = read_ledger(place / names.LEDGER_FILE)
    counts: Any = lines.groupby(["state", "reason"], observed=True, sort=False).size()
    counts = counts.sort_values(ascending=False)
    ledger = [
        LedgerLine(state.replace("_", " "), REASONS.get(reason, reason), n, 100 * n / len(lines))
        for (state, reason), n in counts.items()
    ]
    output = Output(f"{step.name}: {status.output}", len(lines), ledger)
    if (place / names.H5SC_FILE).is_file() and (lines["state"] == "written").any():
        file = f"single_cells_{status.output}.png"
        project.plot_single_cell_images(output=status.output, save=folder / file)
        caption = "Single-cell images, each channel on a scale of its own."
        output.pictures.append(Picture(file, caption))
    return [output]


def intensities(project: Reported, folder: Path) -> list[Intensities]:
    """The tables of all aggregations, and a table of their usual name that was loaded."""
    elements = project.filehandler.element_names()
    made = {
        str(table): step.status()[0]
        for steps in project.steps.values()
        for step in steps
        if (table := getattr(step, "table_name", None)) is not None
    }
    wanted: dict[str, StepStatus | None] = {names.INTENSITIES: None, **made}
    return [
        _intensity(project, name, status, folder)
        for name, status in wanted.items()
        if elements.get(name) == "tables" and project.filehandler.metadata(name).get("region")
    ]


def _intensity(
    project: Reported, name: str, status: StepStatus | None, folder: Path
) -> Intensities:
    table = open_table(project.filehandler, name)
    mask = table.regions[0]
    found = table.read("X", table.channels, len(table.channels), mask)
    statistics = ", ".join([table.x_statistic, *table.layers])
    lines = [_channel_line(*each) for each in zip(found.names, found.values.T, strict=True)]
    section = Intensities(name, mask, len(found.ids), statistics, table.x_statistic, lines, status)
    if not lines or not len(found.ids):
        return section
    if project.filehandler.element_names().get(mask) == "labels":
        file = f"map_{name}.png"
        shown = _most_spread(table, mask)
        project.plot_intensities(shown, table=name, save=folder / file)
        caption = f"Each cell in the colour of its {table.x_statistic}, channels of most spread."
        section.pictures.append(Picture(file, caption))
    file = f"distribution_{name}.png"
    project.plot_intensities(kind="distribution", table=name, save=folder / file)
    caption = f"The {table.x_statistic} of all cells, one histogram a channel."
    section.pictures.append(Picture(file, caption))
    return section


def _most_spread(table: CellTable, mask: str) -> list[str]:
    return table.read("X", None, _MAPS, mask).names


def _channel_line(channel: str, values: np.ndarray[Any, Any]) -> ChannelLine:
    finite = values[np.isfinite(values)]
    without = len(values) - len(finite)
    if not finite.size:
        return ChannelLine(channel, "", "", "", without)
    least, median, largest = (f"{value:,.4g}" for value in np.quantile(finite, (0, 0.5, 1)))
    return ChannelLine(channel, least, median, largest, without)
