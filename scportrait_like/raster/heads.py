"""Heads of runs over windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from scportrait_like.models import ModelSpec, embed
from scportrait_like.raster.instances import Instances


@dataclass(frozen=True)
class ModelHead:
    """Makes embeddings: gives ``embedding``, (n, d).

    Attributes
    ----------
    model
        A fitted one, if it needs fitting.
    dimension
        Numbers a window, d.
    dtype
        Of the result.
    """

    model: ModelSpec
    dimension: int
    dtype: str = "float32"

    @property
    def stays(self) -> str:
        """Why it must be called in this process; empty where it may be called in any."""
        return f"model {self.model.name} runs on a GPU, in one process" * self.model.on_gpu

    def __call__(self, instances: Instances) -> Mapping[str, NDArray[Any]]:
        """Call the model on a batch; raises `ModelError`."""
        mask = instances.masks() if self.model.wants_mask else None
        found = embed(
            self.model, instances.images(), mask, instances.ids, self.dimension, self.dtype
        )
        return {"embedding": found}
