"""Reading and writing: loaders, the `.h5sc` file, and what lies in the project's store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scportrait_like.lazy import lazy_attributes

if TYPE_CHECKING:
    from scportrait_like.io.h5sc import read_h5sc as read_h5sc

__all__ = ["read_h5sc"]

__getattr__, __dir__ = lazy_attributes(__name__, {"read_h5sc": "scportrait_like.io.h5sc:read_h5sc"})
