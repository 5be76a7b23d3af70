"""Which model is meant, and what it gives: `resolve_model` makes the spec that workers get."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from scportrait_like.errors import ConfigError, InputError
from scportrait_like.identity import digest
from scportrait_like.models._adapters import PREFIXES, Adapter, Model
from scportrait_like.models._functions import FunctionModel
from scportrait_like.models._loading import load_once
from scportrait_like.models._registered import Fitted, RegisteredModel
from scportrait_like.models._registry import MODELS


@dataclass(frozen=True)
class ModelSpec:
    """A model as the user chose it: small, and it pickles.

    Attributes
    ----------
    adapter
        Loads it.
    embedding_dimension
        Numbers a window that the user asked for, or None.
    """

    adapter: Adapter
    embedding_dimension: int | None = None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.adapter.name

    @property
    def wants_mask(self) -> bool:
        """Whether it looks at masks."""
        return self.adapter.wants_mask

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU: its calls then come from one thread of a process."""
        return self.adapter.on_gpu

    @property
    def identity(self) -> str:
        """What its results depend on: part of a run's fingerprint."""
        return digest(self.adapter.identity, self.embedding_dimension)

    @property
    def may_be_nan(self) -> bool:
        """Whether NaN and infinity are results like others."""
        adapter = self.adapter
        return isinstance(adapter, RegisteredModel) and adapter.kind.may_be_nan

    @property
    def fit_sample(self) -> int:
        """Windows that it must be fitted on before it can be loaded; 0 if none (any more)."""
        adapter = self.adapter
        if isinstance(adapter, RegisteredModel) and adapter.fitted is None:
            return adapter.sample
        return 0

    def dimension(self, n_channels: int, n_masks: int) -> int:
        """Numbers that it gives a window.

        Raises
        ------
        InputError
            Nobody knows, or it gives another number than the user asked for.
        """
        given = self.embedding_dimension
        known = self.adapter.dimension
        # Of a function it is a default.
        fixed = known is not None and not isinstance(self.adapter, FunctionModel)
        if fixed and given not in (None, known):
            raise InputError(
                f"model {self.name}: it gives {known} numbers, not embedding_dimension={given}; "
                "leave that out"
            )
        names = self._columns([""] * n_channels, [""] * n_masks)
        if names is not None:
            known = len(names)
            if given is not None and given != known:
                raise InputError(
                    f"model {self.name}: it gives {known} numbers for {n_channels} channels and "
                    f"{n_masks} masks, not embedding_dimension={given}; leave that out"
                )
        if given is None and known is None:
            raise InputError(
                f"model {self.name}: give embedding_dimension, the numbers it makes of a window"
            )
        return given if given is not None else known  # type: ignore[return-value]

    def feature_names(self, channels: Sequence[str], masks: Sequence[str]) -> list[str]:
        """Names of the numbers, ``embedding_0`` and so on where the model has none."""
        names = self._columns(channels, masks)
        if names is not None:
            return names
        return [f"embedding_{i}" for i in range(self.dimension(len(channels), len(masks)))]

    def fitted(
        self, images: NDArray[Any], masks: NDArray[Any] | None, path: Path | None = None
    ) -> ModelSpec:
        """Fit it on a sample of windows.

        Parameters
        ----------
        images : (n, c, z, y, x)
            `fit_sample` of them, or as many as there are.
        masks : (n, m, z, y, x) bool, or None
            Where the cells are; needed if `wants_mask`.
        path
            Of the ``.npz`` file that keeps the result, for worker processes to load; None: it is
            kept in the spec.

        Returns
        -------
        A spec that can be loaded. A model without a fit is returned as it is.

        Raises
        ------
        InputError
            The sample does not do.
        """
        if not isinstance(self.adapter, RegisteredModel):
            return self
        n_masks = 1 if masks is None else masks.shape[1]
        dimension = self.dimension(images.shape[1], n_masks)
        return replace(self, adapter=self.adapter.fit(images, masks, dimension, path))

    def with_fit(self, path: Path) -> ModelSpec:
        """Take over what `fitted` wrote into a file, in another run.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        """
        if not isinstance(self.adapter, RegisteredModel) or not self.fit_sample:
            return self
        return replace(self, adapter=replace(self.adapter, fitted=Fitted.read(path)))

    def load(self) -> Model:
        """Return the model; it is loaded once a process."""
        return load_once(self.adapter)

    def _columns(self, channels: Sequence[str], masks: Sequence[str]) -> list[str] | None:
        adapter = self.adapter
        if not isinstance(adapter, RegisteredModel) or adapter.kind.columns is None:
            return None
        return adapter.kind.columns(channels, masks)


def resolve_model(
    spec: Callable[..., Any] | str,
    kwargs: Mapping[str, Any] | None = None,
    embedding_dimension: int | None = None,
    *,
    fetch: bool = True,
) -> ModelSpec:
    """Find a model, and check what it is given.

    Parameters
    ----------
    spec
        A function; ``"module:function"``; a registered name; or ``"torch:path"``, ``"timm:name"``,
        ``"transformers:name"``.
    kwargs
        The user's model_kwargs.
    embedding_dimension
        Numbers wanted a window; None: the model knows.
    fetch
        False: weights are looked for on this machine only, also where kwargs say ``download``.

    Raises
    ------
    ConfigError
        There is no such model.
    InputError
        It cannot be called as models are, or not with these kwargs.
    """
    dimension: Any = embedding_dimension
    if dimension is not None:
        if isinstance(dimension, bool) or not isinstance(dimension, Integral) or dimension < 1:
            raise InputError(
                f"embedding_dimension must be a whole number from 1, not {dimension!r}"
            )
        dimension = int(dimension)
    return ModelSpec(_adapter(spec, kwargs or {}, fetch), dimension)


def _adapter(spec: Any, kwargs: Mapping[str, Any], fetch: bool) -> Adapter:
    if callable(spec):
        return FunctionModel.of(spec, kwargs)
    if not isinstance(spec, str):
        raise InputError(f"model: a function or a name is needed, not {type(spec).__name__}")
    if spec in MODELS:
        return RegisteredModel.of(spec, MODELS[spec], kwargs)
    prefix, colon, rest = spec.partition(":")
    if prefix in PREFIXES and colon and rest:
        if not fetch and kwargs.get("download") is True:
            kwargs = {**kwargs, "download": False}
        module, _, make = PREFIXES[prefix].partition(":")
        adapter: Adapter = getattr(importlib.import_module(module), make)(rest, kwargs)
        return adapter
    if prefix and rest:
        return FunctionModel.of(spec, kwargs)
    raise ConfigError(
        f"model {spec!r} is not known. Registered are {', '.join(MODELS)}; else name a function as "
        f"module:function, or {', '.join(f'{name}:...' for name in PREFIXES)}"
    )
