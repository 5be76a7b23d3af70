"""The part of the report about features: what models made of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.io.cluster_tables import METACLUSTERS
from scportrait_like.plot import (
    CellTable,
    plot_distributions,
    plot_embedding,
    principal_components,
)
from scportrait_like.report._parts import Picture, Reported, clustering_steps, maker, open_table
from scportrait_like.status import StepStatus

_SHOWN: Final = 9  # distributions: three rows
_CELLS: Final = 20_000  # points upon a picture
_NUMBERS: Final = 20_000_000  # of a sample, all features together


@dataclass(frozen=True)
class Features:
    """A table of what a model made of each cell."""

    table: str
    mask: str
    cells: int
    features: int
    facts: list[tuple[str, str]]
    status: StepStatus | None
    pictures: list[Picture] = field(default_factory=list)


def features(project: Reported, folder: Path) -> list[Features]:
    """Describe all tables of features."""
    store = project.filehandler
    found = [name for name, kind in store.element_names().items() if kind == "tables"]
    return [
        _section(project, name, folder)
        for name in found
        if (store.element_path(name) / "uns" / names.FEATURIZATION_KEY).is_dir()
        and store.metadata(name).get("region")
    ]


def _section(project: Reported, name: str, folder: Path) -> Features:
    table = open_table(project.filehandler, name)
    mask, n = table.regions[0], len(table.channels)
    some, cells = table.sample(mask, min(_CELLS, max(1000, _NUMBERS // max(1, n))))
    section = Features(name, mask, cells, n, _facts(table), maker(project, name))
    if not n or not cells:
        return section
    file = f"distribution_{name}.png"
    shown = table.read("X", None, _SHOWN, mask)
    more = f"{shown.hidden:,} more features not shown" if shown.hidden else ""
    plot_distributions(shown.values, shown.names, footnote=more, save=folder / file)
    caption = "Features of all cells" + (", those of most spread." if shown.hidden else ".")
    section.pictures.append(Picture(file, caption))
    found = principal_components(some.values)
    if n < 2 or len(found.rows) < 3:
        return section
    file = f"components_{name}.png"
    groups = _commonest(project, mask, some.ids[found.rows])
    axes = [f"component {k} ({100 * share:.0f} %)" for k, share in enumerate(found.shares, 1)]
    sampled = f"evenly drawn from {cells:,}" if len(some.ids) < cells else ""
    plot_embedding(found.points, groups, axis_names=axes, footnote=sampled, save=folder / file)
    caption = "Cells along the first two principal components of the standardised features"
    if groups is not None:
        caption += ", each in the colour of the metacluster that most of its pixels have"
    section.pictures.append(Picture(file, f"{caption}."))
    return section


def _facts(table: CellTable) -> list[tuple[str, str]]:
    """Return what made the table, as it says itself."""
    found, about = [], table.about(names.FEATURIZATION_KEY)
    for key in sorted(about, key=lambda key: (key != "model", key)):
        value = about[key]
        text = ", ".join(map(str, value)) if np.ndim(value) else str(value)
        if text not in ("", "{}"):
            found.append((key.replace("_", " "), text))
    return found


def _commonest(project: Reported, mask: str, ids: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return the metacluster (n,) that most pixels of each cell have, where they were counted.

    0: none of a cell's pixels has any.
    """
    there = project.filehandler.element_names()
    for step in clustering_steps(project):
        name = str(step.table_of({}))
        if (
            there.get(name) != "tables"
            or mask not in (table := open_table(project.filehandler, name)).regions
        ):
            continue
        return table.commonest(METACLUSTERS, mask, ids)[1]
    return None
