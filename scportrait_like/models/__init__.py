"""Models: what makes an embedding of the window of a cell.

A model is called ``model(batch, embedding_dimension=d, **model_kwargs)`` with windows
(b, c, z, y, x) in the image's dtype, and returns (b, d). If it has a parameter ``mask``, it also
gets (b, m, z, y, x) bool: where the cell is. `resolve_model` finds one; the registered ones are the
entries of `MODELS`.
"""

from scportrait_like.models._adapters import PREFIXES, Adapter, Model
from scportrait_like.models._calls import embed
from scportrait_like.models._registry import MODELS, ModelKind
from scportrait_like.models._spec import ModelSpec, resolve_model

__all__ = [
    "MODELS",
    "PREFIXES",
    "Adapter",
    "Model",
    "ModelKind",
    "ModelSpec",
    "embed",
    "resolve_model",
]
