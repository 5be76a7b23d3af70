"""Project templates: what a new project folder starts with."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from scportrait_like import names
from scportrait_like.errors import InputError, ProjectError
from scportrait_like.run.durable import committed

DEFAULT: Final = "default"


def templates() -> dict[str, str]:
    """Names of the templates, and what each is for."""
    found = {}
    for folder in sorted(_root().iterdir(), key=lambda folder: folder.name):
        config = folder / names.CONFIG_FILE
        if config.is_file():
            found[folder.name] = config.read_text("utf-8").split("\n", 1)[0].lstrip("# ")
    return found


def copy_template(name: str, directory: Path) -> list[Path]:
    """Copy a template's files into a folder; it is made where it does not exist.

    Parameters
    ----------
    name
        Of the template.
    directory
        The project folder.

    Returns
    -------
    list of pathlib.Path
        The files that were not there.

    Raises
    ------
    InputError
        No such template, or a file is there that differs from the template's. Nothing is written.
    ProjectError
        The folder cannot be written.
    """
    known = templates()
    if name not in known:
        raise InputError(f"template {name!r} is not known; templates: {', '.join(known)}")
    wanted = {
        directory / file.name: file.read_bytes()
        for file in (_root() / name).iterdir()
        if file.is_file()
    }
    there = {path: path.read_bytes() for path in wanted if path.exists()}
    for path, content in there.items():
        if content != wanted[path]:
            raise InputError(
                f"{path} is there already and differs from template {name!r}; edit it, or name "
                "another folder"
            )
    missing = {path: content for path, content in wanted.items() if path not in there}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, content in missing.items():
            with committed(path) as file:
                file.write(content)
    except OSError as error:
        raise ProjectError(f"{directory} cannot be written: {error}") from error
    return sorted(missing)


def _root() -> Traversable:
    return files("scportrait_like.project_templates")
