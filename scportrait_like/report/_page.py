"""The page of the report."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Final

from scportrait_like import names
from scportrait_like.io.placement import (
    clear_leftovers,
    flush_tree,
    place_folder,
    scratch_folder,
    write_errors,
)
from scportrait_like.report._cells import intensities, outputs
from scportrait_like.report._clusters import clusterings
from scportrait_like.report._features import features
from scportrait_like.report._inputs import input_pictures, inputs
from scportrait_like.report._parts import Reported

FOLDER: Final = "report"
PAGE: Final = "report.html"


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
        inputs=inputs(project),
        input_pictures=input_pictures(project, folder),
        steps=project.status(),
        outputs=outputs(project, folder),
        intensities=intensities(project, folder),
        features=features(project, folder),
        clusterings=clusterings(project, folder),
        config=config.read_text("utf-8") if config.is_file() else "",
    )
