"""Steps whose table holds what a model makes of cells."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from scportrait_like import names
from scportrait_like.config import StepConfig
from scportrait_like.errors import ConfigError, InputError, MissingExtraError, StaleRunError
from scportrait_like.models import MODELS, PREFIXES, ModelSpec, resolve_model
from scportrait_like.run.durable import write_json
from scportrait_like.run.executors import kept_here
from scportrait_like.run.rundir import Fingerprint, RunDirectory
from scportrait_like.run.runner import Resources
from scportrait_like.table_step import TableStep

logger = logging.getLogger(__name__)

# Key of a fingerprint's part "model".
_CODE: Final = "code and weights"


def _known_model(name: str) -> str:
    if name not in MODELS and ":" not in name:
        prefixes = ", ".join(f"{prefix}:..." for prefix in PREFIXES)
        raise ValueError(
            f"unknown model; registered are {', '.join(MODELS)}; or name a function of yours as "
            f"module:function, or {prefixes}"
        )
    return name


class ModelConfig(StepConfig):
    """What a section says of its model.

    Attributes
    ----------
    model
        A registered one, ``module:function``, ``torch:path``, ``timm:name``, ``transformers:name``.
    model_kwargs
        For each call of it.
    embedding_dimension
        Numbers that it makes of a cell; None: it knows.
    batch_size
        Cells that it gets at once, always; None: as many as suit a core's cache.
    accept_changed_model
        A run key: go on with an interrupted run though the model's code or weights have changed.
    """

    model: Annotated[str, AfterValidator(_known_model)] = "intensity_statistics"
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    embedding_dimension: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    accept_changed_model: bool = False


class ModelStep(TableStep):
    """A table step that calls a model: its code and weights are part of the fingerprint."""

    config: ModelConfig

    @property
    def model(self) -> ModelSpec:
        """The model as the section has it, not fitted; nothing is fetched."""
        return self.find_model(fetch=False)

    def find_model(self, fetch: bool) -> ModelSpec:
        """Find the model; `fetch`: what is not on this machine may come, where kwargs say so."""
        config = self.config
        with self.naming("model"):
            return resolve_model(
                config.model, config.model_kwargs, config.embedding_dimension, fetch=fetch
            )

    @contextmanager
    def naming(self, key: str) -> Iterator[None]:
        """Say in errors which section and key are meant."""
        try:
            yield
        except (ConfigError, InputError) as error:
            raise type(error)(f"section {self.title}: key {key}: {error}") from error

    def fingerprint(self, call: Mapping[str, Any]) -> Fingerprint:
        """Everything that can change the result: also the model's code."""
        return {**super().fingerprint(call), "model": {_CODE: self.model.identity}}

    def _now(self, made: Fingerprint) -> Fingerprint:
        try:
            return super()._now(made)
        except (ConfigError, InputError, MissingExtraError, OSError):
            # The model cannot be found any more, which shows as a change.
            return {**made, "config": self.config.result_keys(), "model": {_CODE: None}}

    def resources(self) -> Resources:
        """What the run may use; a model on a GPU stays in this process."""
        found, batch = super().resources(), self.config.batch_size
        if batch is not None:
            found = replace(found, batch_size=batch)
        if self.model.on_gpu:
            why = f"model {self.config.model} runs on a GPU, in one process"
            found = replace(found, executor=kept_here(found.executor, why))
        return found

    def _open(
        self,
        run: RunDirectory,
        fingerprint: Fingerprint,
        call: Mapping[str, Any],
        overwrite: bool | None,
    ) -> None:
        there = run.fingerprint() or {}
        but_model = {**there, "model": fingerprint["model"]} == fingerprint != there
        if but_model and self.config.accept_changed_model and not overwrite:
            logger.warning(
                "%s: the code or the weights of model %s have changed since %s was begun; it "
                "goes on, as accept_changed_model says: %d of %d units keep what the model "
                "gave before",
                self.title,
                self.config.model,
                run.path,
                *run.progress(),
            )
            write_json(run.path / names.RUN_FILE, fingerprint)
        try:
            super()._open(run, fingerprint, call, overwrite)
        except StaleRunError as error:
            if not but_model:
                raise
            raise StaleRunError(
                f"{error} To go on with it, keeping what the model gave before: set "
                f"accept_changed_model: true in section {self.title}.",
                changes=error.changes,
            ) from None
