"""The registry of models that the package brings.

The smallest entry is a function, and how its columns are called::

    def brightest(batch, *, embedding_dimension):
        return batch.max(axis=(2, 3, 4))

    def columns(channels, masks):
        return [f"{channel}_max" for channel in channels]

    MODELS["brightest"] = ModelKind(brightest, columns)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from scportrait_like.models import _pca, _shape, _statistics

Names = Callable[[Sequence[str], Sequence[str]], list[str]]


@dataclass(frozen=True)
class ModelKind:
    """An entry of the registry.

    Attributes
    ----------
    function
        ``function(batch, embedding_dimension=d, **model_kwargs)`` -> (b, d), with a parameter
        ``mask`` if it looks at masks. What it gives a window must not depend on the other windows
        of the batch. At the top of a module: worker processes get it by name.
    columns
        (names of channels, names of masks) -> names of its columns; None if the user says how many
        there are.
    may_be_nan
        Whether NaN and infinity are results like others.
    fit
        ``fit(images, masks, embedding_dimension, **model_kwargs)`` -> arrays by name, for a model
        that is fitted on a sample; `function` then gets them as ``fitted``. None: nothing to fit.
    sample
        Windows that it is fitted on, where the user's ``sample`` in model_kwargs says nothing.
    """

    function: Callable[..., NDArray[Any]]
    columns: Names | None = None
    may_be_nan: bool = False
    fit: Callable[..., Mapping[str, NDArray[Any]]] | None = None
    sample: int = 0


MODELS: Final[dict[str, ModelKind]] = {
    "intensity_statistics": ModelKind(
        _statistics.intensity_statistics, _statistics.columns, may_be_nan=True
    ),
    "shape": ModelKind(_shape.shape, _shape.columns, may_be_nan=True),
    "pca": ModelKind(_pca.pca, fit=_pca.fit_pca, sample=1000),
}
