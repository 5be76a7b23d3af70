"""Settings of this process.

>>> import scportrait_like as sl
>>> sl.settings.memory_limit = "4GB"
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

memory_limit: int | str | None = None
"""Bytes (or "4GB") that the process tree may take, where neither a call, a project nor a section of
its config says; None: a share of what the machine or container grants."""

_KNOWN = ("memory_limit",)


class _Settings(ModuleType):
    """A module that refuses what is no setting, where the mistake is made."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("__"):
            _check(name, value)
        super().__setattr__(name, value)


def _check(name: str, value: Any) -> None:
    from scportrait_like.config import parse_size
    from scportrait_like.errors import ConfigError

    if name not in _KNOWN:
        raise ConfigError(f"settings.{name}: unknown setting; known settings: {', '.join(_KNOWN)}")
    try:
        parse_size(value)
    except ValueError as error:
        raise ConfigError(f"settings.{name}: {value!r} is not allowed: {error}") from None


sys.modules[__name__].__class__ = _Settings
