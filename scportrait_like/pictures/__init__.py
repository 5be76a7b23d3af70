"""Pictures of a project: what `Project` inherits to look at its inputs and outputs."""

from scportrait_like.pictures._pictures import Pictures

__all__ = ["Pictures"]
