"""The report: a page with pictures of a project's inputs and outputs, and the fate of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from scportrait_like import names
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.ledger import read_ledger
from scportrait_like.io.placement import (
    clear_leftovers,
    flush_tree,
    place_folder,
    scratch_folder,
    write_errors,
)
from scportrait_like.plot import CellTable, fitting_view
from scportrait_like.status import StepStatus
from scportrait_like.step import ProcessingStep

FOLDER: Final = "report"
PAGE: Final = "report.html"

# Reasons of the ledger, in words.
REASONS: Final = {
    "border": "the window does not lie inside the image",
    "no_nucleus": "no nucleus of this id",
    "no_cytosol": "no cytosol of this id",
}
# So many cells side by side are seen well on a page.
_CELLS_ACROSS: Final = 45
# Edge of the part of a mask that tells how large cells are.
_LOOK: Final = 1000
# Pixels of the level that is searched for the part that holds most cell.
_OVERVIEW: Final = 1_000_000
# Maps of intensities: four fill two rows.
_MAPS: Final = 4

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


@dataclass(frozen=True)
class Picture:
    """A file beside the page, and what it shows."""

    file: str
    caption: str


@dataclass(frozen=True)
class Input:
    """A raster element of the project's store."""

    name: str
    shape: str
    dtype: str
    channels: str
    source: str


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


def write_report(project: Reported) -> Path:
    """Write the report; the caller holds the project's lock.

    Returns
    -------
    pathlib.Path
        The page. A former report is replaced as a whole.
    """
    target = project.project_location / FOLDER
    with write_errors(target):
        clear_leftovers(target)
        with scratch_folder(target) as scratch:
            folder = scratch / FOLDER
            folder.mkdir()
            (folder / PAGE).write_text(_page(project, folder), encoding="utf-8")
            flush_tree(folder)
            place_folder(folder, target, scratch)
    return target / PAGE


def _page(project: Reported, folder: Path) -> str:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = files("scportrait_like").joinpath("report_template.html").read_text("utf-8")
    config = project.project_location / names.CONFIG_FILE
    location = project.project_location.resolve()
    return environment.from_string(text).render(
        name=location.name,
        location=location,
        version=version("scportrait-like"),
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
        inputs=_inputs(project),
        input_pictures=_input_pictures(project, folder),
        steps=project.status(),
        outputs=_outputs(project, folder),
        intensities=_intensities(project, folder),
        config=config.read_text("utf-8") if config.is_file() else "",
    )


def _inputs(project: Reported) -> list[Input]:
    store = project.filehandler
    found = []
    for name, kind in store.element_names().items():
        if kind not in ("images", "labels"):
            continue
        array = store.open_array(name)
        channels = ", ".join(store.channel_names(name)) if kind == "images" else ""
        shape = " x ".join(f"{n:,}" for n in array.shape)
        source = str(store.attributes(name).get("source", ""))
        found.append(Input(name, shape, str(array.dtype), channels, source))
    return found


def _input_pictures(project: Reported, folder: Path) -> list[Picture]:
    if names.INPUT_IMAGE not in project.filehandler:
        return []
    has_mask = any(kind == "labels" for kind in project.filehandler.element_names().values())
    outlined = ", with the outlines of the masks" if has_mask else ""
    detail = _detail(project)
    # In a small picture of a large image there would be nothing but outlines.
    project.plot_input_image(masks=has_mask and detail is None, save=folder / "input_image.png")
    pictures = [Picture("input_image.png", f"The input{'' if detail else outlined}.")]
    if detail is not None:
        project.plot_input_image(masks=has_mask, crop=detail, save=folder / "input_detail.png")
        pictures.append(Picture("input_detail.png", f"A part of the input{outlined}."))
    if has_mask:
        project.plot_segmentation_masks(crop=detail, save=folder / "masks.png")
        part = "The same part of the masks" if detail else "The masks"
        caption = f"{part}; colours only tell neighbours apart."
        pictures.append(Picture("masks.png", caption))
    return pictures


def _detail(project: Reported) -> Crop | None:
    """Choose a part to look at closely, if cells are small on a page: where most of it is cell."""
    store = project.filehandler
    height, width = store.open_array(names.INPUT_IMAGE).shape[-2:]
    y, x, edge = height / 2, width / 2, float(_LOOK)
    if masks := [name for name in names.LABELS_OF_KIND.values() if name in store]:
        levels = [store.open_array(masks[-1], k) for k in range(len(store.level_paths(masks[-1])))]
        y, x = _densest(levels)
        edge = _CELLS_ACROSS * _diameter(levels, _square(y, x, _LOOK, height, width))
    if max(height, width) <= 1.5 * edge:
        return None
    return _square(y, x, edge, height, width)


def _square(y: float, x: float, edge: float, height: int, width: int) -> Crop:
    """Return the square about a point, moved or cut where it does not lie in the image."""
    tall, wide = min(int(edge), height), min(int(edge), width)
    y0 = int(np.clip(y - tall / 2, 0, height - tall))
    x0 = int(np.clip(x - wide / 2, 0, width - wide))
    return y0, y0 + tall, x0, x0 + wide


def _densest(levels: list[Any]) -> tuple[float, float]:
    """Find the middle (y, x) of the part of a mask that holds most cell."""
    from scipy.ndimage import uniform_filter

    view = fitting_view(levels, max_pixels=_OVERVIEW)
    inside = (view[:, :] > 0).astype(np.float32)
    filled = uniform_filter(inside, max(1, round(_LOOK / view.scale)), mode="constant")
    y, x = np.unravel_index(filled.argmax(), filled.shape)
    return float(y * view.scale), float(x * view.scale)


def _diameter(levels: list[Any], crop: Crop) -> float:
    """Typical diameter of a cell in a part of a mask, in pixels."""
    y0, y1, x0, x1 = crop
    ids, areas = np.unique(levels[0][y0:y1, x0:x1], return_counts=True)
    return float(np.sqrt(np.median(areas[ids > 0]))) if (ids > 0).any() else 1.0


def _outputs(project: Reported, folder: Path) -> list[Output]:
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


def _intensities(project: Reported, folder: Path) -> list[Intensities]:
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
    import zarr

    table = CellTable(zarr.open_group(project.filehandler.element_path(name), mode="r"), name)
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
