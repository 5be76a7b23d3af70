"""Registered models as adapters, and what fitting them leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError, ModelError
from scportrait_like.identity import array_identity, digest
from scportrait_like.models._adapters import Model
from scportrait_like.models._functions import check_parameters, parameters_of
from scportrait_like.models._registry import ModelKind
from scportrait_like.run.durable import committed

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Fitted:
    """What fitting a model gave.

    Attributes
    ----------
    digest
        Of the arrays.
    path
        Their ``.npz`` file, or None.
    arrays
        They themselves, where there is no file.
    """

    digest: str
    path: Path | None
    arrays: Arrays | None = field(repr=False)

    @classmethod
    def keep(cls, arrays: Arrays, path: Path | None) -> Fitted:
        """Write arrays into a file, if there shall be one."""
        found = _digest_of(arrays)
        if path is None:
            return cls(found, None, dict(arrays))
        with committed(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
        return cls(found, path, None)

    @classmethod
    def read(cls, path: Path) -> Fitted:
        """Take over what `keep` wrote."""
        return cls(_digest_of(_arrays_in(path)), path, None)

    def load(self, name: str) -> Arrays:
        """Return the arrays.

        Raises
        ------
        ModelError
            The file holds others by now, or none.
        """
        if self.path is None:
            return self.arrays or {}
        try:
            arrays = _arrays_in(self.path)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"model {name}: what it was fitted to cannot be read from {self.path}: {error}"
            ) from error
        if _digest_of(arrays) != self.digest:
            raise ModelError(
                f"model {name}: {self.path} is not what this run began with; run with overwrite"
            )
        return arrays


def _arrays_in(path: Path) -> Arrays:
    with np.load(path) as held:
        return {key: held[key] for key in held.files}


def _digest_of(arrays: Arrays) -> str:
    return digest({key: array_identity(found) for key, found in arrays.items()})


@dataclass(frozen=True)
class RegisteredModel:
    """An entry of the registry with its kwargs: an `Adapter`.

    Attributes
    ----------
    name
        In the registry.
    kind
        The entry.
    kwargs
        For each call, or for the fit.
    sample
        Windows that it is fitted on; 0 where it is not.
    fitted
        What the fit gave.
    """

    name: str
    kind: ModelKind
    kwargs: Mapping[str, Any] = field(repr=False)
    sample: int = 0
    fitted: Fitted | None = None
    dimension: int | None = None
    on_gpu: bool = False

    @classmethod
    def of(cls, name: str, kind: ModelKind, kwargs: Mapping[str, Any]) -> RegisteredModel:
        """Make it of an entry and the user's model_kwargs.

        Raises
        ------
        InputError
            It takes no such kwargs.
        """
        own = dict(kwargs)
        sample = own.pop("sample", kind.sample) if kind.fit else 0
        if kind.fit and (isinstance(sample, bool) or not isinstance(sample, int) or sample < 2):
            raise InputError(
                f"model {name}: sample, the windows to fit on, must be a whole number above 1, "
                f"not {sample!r}"
            )
        parameters = parameters_of(kind.function, name)
        if kind.fit:  # what a fit took as well is no business of the user's
            fit = parameters_of(kind.fit, name)
            parameters = {key: p for key, p in parameters.items() if key != "fitted"}
            check_parameters({k: p for k, p in fit.items() if k != "masks"}, own, name)
        else:
            check_parameters(parameters, own, name)
        return cls(name, kind, own, sample)

    @property
    def wants_mask(self) -> bool:
        """Whether its function has a parameter ``mask``."""
        return "mask" in parameters_of(self.kind.function, self.name)

    @property
    def identity(self) -> str:
        """Name, kwargs, and what it was fitted to."""
        fitted = self.fitted.digest if self.fitted else None
        return digest(self.name, self.kwargs, self.sample, fitted)

    def fit(
        self, images: NDArray[Any], masks: NDArray[Any] | None, dimension: int, path: Path | None
    ) -> RegisteredModel:
        """Fit it on a sample, and keep the result in a file if there shall be one."""
        if self.kind.fit is None:
            return self
        arrays = self.kind.fit(images, masks, embedding_dimension=dimension, **self.kwargs)
        return replace(self, fitted=Fitted.keep(arrays, path))

    def load(self) -> Model:
        """Return its function, with what it was fitted to."""
        if self.kind.fit is None:
            return partial(self.kind.function, **self.kwargs)
        if self.fitted is None:
            raise ModelError(f"model {self.name} was not fitted on a sample yet")
        return partial(self.kind.function, fitted=self.fitted.load(self.name))
