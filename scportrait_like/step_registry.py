"""The registry of steps: entry points, and classes named as ``module:Class``."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any, Final

from scportrait_like.errors import ConfigError
from scportrait_like.step import ProcessingStep

STEP_GROUP: Final = "scportrait_like.steps"


def registered_steps() -> list[str]:
    """Names of the steps that entry points bring."""
    return sorted(point.name for point in entry_points(group=STEP_GROUP))


def find_step(name: str, where: str = "config") -> type[ProcessingStep]:
    """Class of a step, by its entry point's name or as ``module:Class``.

    Raises
    ------
    ConfigError
        No such step; the message lists those that are known.
    """
    for point in entry_points(group=STEP_GROUP, name=name):
        return _checked(point.load(), name, where)
    if ":" not in name:
        known = ", ".join(registered_steps())
        raise ConfigError(f"{where}: unknown step {name}; known steps: {known}, or module:Class")
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: step {name} cannot be imported: {error}") from error
    return _checked(found, name, where)


def _checked(found: Any, name: str, where: str) -> type[ProcessingStep]:
    if not (isinstance(found, type) and issubclass(found, ProcessingStep)):
        raise ConfigError(f"{where}: {name} is not a subclass of ProcessingStep")
    return found


def has_step(name: str) -> bool:
    """Whether a section names a step that can be found."""
    return ":" in name or name in registered_steps()
