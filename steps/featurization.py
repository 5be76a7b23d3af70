"""Featurization: a model makes numbers of each cell's window or picture."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from scportrait_like import names
from scportrait_like.config import FolderName, StepConfig
from scportrait_like.errors import (
    ConfigError,
    InputError,
    MissingExtraError,
)
from scportrait_like.io.extracted import COMPLETE, Extracted
from scportrait_like.io.featurization_inputs import (
    FeatureSource,
    ImageWindows,
    open_pictures,
    sample_of,
    warn_of_size,
)
from scportrait_like.io.featurization_output import FeatureFacts, FeaturizationSink
from scportrait_like.io.indexes import element_identity
from scportrait_like.io.inputs_of_steps import find_channels, open_rasters
from scportrait_like.io.tables import check_channels, instance_dtype
from scportrait_like.models import MODELS, PREFIXES, ModelSpec, resolve_model
from scportrait_like.raster.featurizing import FixedBatch
from scportrait_like.raster.instance_runs import InstanceRun
from scportrait_like.raster.instance_statistics import WindowHead
from scportrait_like.raster.sources import view
from scportrait_like.run.durable import write_json
from scportrait_like.run.executors import kept_here
from scportrait_like.run.plan import Plan, Sink, Task
from scportrait_like.run.rundir import Fingerprint, RunDirectory
from scportrait_like.run.runner import Resources
from scportrait_like.step import ProcessingStep
from scportrait_like.table_step import TableStep

logger = logging.getLogger(__name__)

IMAGES: Final = "images"
EXTRACTION: Final = "extraction"
DEFAULT_SEED: Final = 42
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


class FeaturizationConfig(StepConfig):
    """Section ``Featurization``.

    Attributes
    ----------
    source
        ``extraction``: the pictures of `project.extract()`; ``images``: windows cut from image and
        mask.
    diameter
        Edge of the windows in pixels, for ``images``.
    remove_background
        Show the model nothing but the cell itself; for ``images``.
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

    name: FolderName = names.FEATURES
    source: Literal["extraction", "images"] = EXTRACTION
    diameter: Annotated[int, Field(ge=1)] | None = Field(None, validate_default=True)
    remove_background: bool = True
    model: Annotated[str, AfterValidator(_known_model)] = "intensity_statistics"
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    embedding_dimension: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    accept_changed_model: bool = False

    @field_validator("name")
    @classmethod
    def _has_name(cls, value: str | None) -> str:
        return names.FEATURES if value is None else value

    @field_validator("diameter")
    @classmethod
    def _fits_source(cls, value: int | None, info: ValidationInfo) -> int | None:
        source = info.data.get("source")
        if source == IMAGES and value is None:
            raise ValueError("source: images needs the edge of the windows in pixels")
        if source == EXTRACTION and value is not None:
            raise ValueError(
                "source: extraction has pictures of a size of their own (image_size of the "
                "extraction); leave diameter out, or set source: images"
            )
        return value

    @field_validator("remove_background")
    @classmethod
    def _can_show(cls, value: bool, info: ValidationInfo) -> bool:
        if not value and info.data.get("source") == EXTRACTION:
            raise ValueError(
                "the pictures of an extraction have no background; leave it out, or set "
                "source: images"
            )
        return value


class Featurization(TableStep):
    """Let a model make numbers of each cell, into a table of the project's store.

    The table annotates the mask: ``X`` is cells x features (float32), ``obsm["spatial"]`` the
    centroid (x, y) in pixels, ``uns["featurization"]`` tells the model. The output folder holds
    ``ledger.parquet`` (every id of the mask, or of the extraction), ``run.json``, and
    ``model.npz``, where the model was fitted.
    """

    Config: ClassVar[type[StepConfig]] = FeaturizationConfig
    config: FeaturizationConfig
    folder: ClassVar[str] = names.FEATURIZATION_DIR

    def process(
        self,
        n_cells: int = 0,
        data_type: str = "complete",
        partial_seed: int | None = None,
        *,
        overwrite: bool | None = None,
    ) -> Path:
        """Featurize all cells, or some.

        Parameters
        ----------
        n_cells
            0: all. Else so many, picked at random as `project.extract` does.
        data_type
            ``complete``: of all cells. ``partial``: of those that
            ``project.extract(partial=True, n_cells=n_cells, seed=partial_seed)`` has extracted;
            where the source are images, they are picked alike.
        partial_seed
            Of the pick; default 42.
        overwrite
            True starts anew; see `ProcessingStep.execute`.

        Returns
        -------
        pathlib.Path
            Folder of the ledger; the table stands in ``project.sdata`` under the section's name.

        Raises
        ------
        InputError, ConfigError
            Arguments, channels, sizes or a model that do not work.
        MissingInputError
            The pictures are not there, or not as they should be; the message names the call.
        ModelError
            The model failed on a batch; finished units are kept.
        ElementExistsError
            Something else than this step's table has that name.
        StaleRunError
            What lies there was made from other settings or inputs, or by another model.
        """
        call = self._call(n_cells, data_type, partial_seed)
        self.check_table(call, overwrite)
        if self.config.source == EXTRACTION:
            self._extracted(call).check(self.name)
        self._model(fetch=True)  # all else finds it on this machine
        return self.execute(call, overwrite)

    @staticmethod
    def _call(n_cells: int, data_type: str, seed: int | None) -> dict[str, Any]:
        if data_type not in ("complete", "partial"):
            raise InputError(f"data_type={data_type!r} is not allowed: give complete or partial")
        given: dict[str, Any] = {"n_cells": n_cells, "partial_seed": 0 if seed is None else seed}
        for key, value in given.items():
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise InputError(f"{key}={value!r} is not allowed: give a whole number")
        if n_cells < 0:
            raise InputError(f"n_cells={n_cells} is not allowed: give 0 for all, or more")
        if seed is not None and seed < 0:
            raise InputError(f"partial_seed {seed} is not allowed: numpy takes none below zero")
        if not n_cells:
            if data_type == "partial":
                raise InputError("data_type='partial' needs n_cells, as the extraction had it")
            if seed is not None:
                raise InputError(f"partial_seed={seed} picks cells only with n_cells above zero")
            return {}
        seed = DEFAULT_SEED if seed is None else seed
        return {"data_type": data_type, "n_cells": int(n_cells), "seed": int(seed)}

    def _named(self, name: str, call: Mapping[str, Any]) -> str:
        """Name of what a call makes, told apart from what others make."""
        if not call:
            return name
        of = names.partial if call["data_type"] == "partial" else names.picked
        return of(name, call["n_cells"], call["seed"])

    def output_name(self, call: Mapping[str, Any]) -> str:
        """The section's name, with what tells a pick."""
        return self._named(str(self.config.name), call)

    def table_of(self, call: Mapping[str, Any]) -> str:
        """Name of the table in the project's store."""
        return self._named(self.config.table_name or str(self.config.name), call)

    def repeat(self, call: Mapping[str, Any], overwrite: bool = True) -> str:
        """How a user writes the call."""
        words = dict(call)
        if "seed" in words:
            words["partial_seed"] = words.pop("seed")
        if overwrite:
            words["overwrite"] = True
        return f"project.featurize({', '.join(f'{k}={v!r}' for k, v in words.items())})"

    # Inputs

    def needs(self) -> tuple[str, ...]:
        """The project's extraction, where its pictures are read."""
        step = self._extraction
        return () if step is None or self.config.source != EXTRACTION else (step.name,)

    def inputs(self) -> tuple[str, ...]:
        """The image and the mask; of an extraction a mask that the section names."""
        if self.config.source == EXTRACTION:
            return () if self.config.labels is None else (self.config.labels,)
        return self.image_and_labels()

    def fingerprint(self, call: Mapping[str, Any]) -> Fingerprint:
        """Everything that can change the result: also the model's code, and the extraction."""
        found = super().fingerprint(call)
        found["model"] = {_CODE: self.model.identity}
        if self.config.source == EXTRACTION:
            extracted = self._extracted(call)
            found["inputs"][extracted.name] = extracted.identity()
            if extracted.foreign:  # the file does not tell which masks it is of
                masks = [name for name in names.LABELS_OF_KIND.values() if name in self.filehandler]
                found["inputs"] |= {
                    name: element_identity(self.filehandler, name) for name in masks
                }
        return found

    def missing(self, call: Mapping[str, Any]) -> list[str]:
        """The table, and pictures that are not those of now."""
        lacking = super().missing(call)
        if (
            self.config.source == EXTRACTION
            and (state := self._extracted(call).state()) != COMPLETE
        ):
            lacking.append(f"the extraction that it was made of is {state}")
        return lacking

    def _now(self, made: Fingerprint) -> Fingerprint:
        try:
            return super()._now(made)
        except (ConfigError, InputError, MissingExtraError, OSError):
            # The model cannot be found any more, which shows as a change.
            return {**made, "config": self.config.result_keys(), "model": {_CODE: None}}

    @property
    def model(self) -> ModelSpec:
        """The model as the section has it, not fitted; nothing is fetched."""
        return self._model(fetch=False)

    def _model(self, fetch: bool) -> ModelSpec:
        config = self.config
        with self._naming("model"):
            return resolve_model(
                config.model, config.model_kwargs, config.embedding_dimension, fetch=fetch
            )

    @contextmanager
    def _naming(self, key: str) -> Iterator[None]:
        """Say in errors which section is meant."""
        try:
            yield
        except (ConfigError, InputError) as error:
            raise type(error)(f"section {self.name}: key {key}: {error}") from error

    # The extraction

    @property
    def _extraction(self) -> ProcessingStep | None:
        """The project's step that makes the pictures; None without a project."""
        found = getattr(self.project, "extraction_f", None)
        return found if isinstance(found, ProcessingStep) else None

    def _extracted(self, call: Mapping[str, Any]) -> Extracted:
        """The pictures that a call reads."""
        partial = call.get("data_type") == "partial"
        pick = (call["n_cells"], call["seed"]) if partial else None
        return Extracted(self.project_location, self._extraction, pick)

    # Plan, task, sink

    def _source(self, call: Mapping[str, Any]) -> FeatureSource:
        config, there, budget = self.config, self.filehandler, self.budget()
        if config.source == EXTRACTION:
            path = self._extracted(call).path
            with self._naming("channels"):
                return open_pictures(
                    there, path, config.labels, config.channels, config.batch_size, budget
                )
        channels = find_channels(there, config.image, config.channels, self.name)
        check_channels([name for _, name in channels], config.image)
        image, (labels,) = open_rasters(there, config.image, [self.labels])
        run = InstanceRun(
            labels=view(labels, (None, slice(None), slice(None))),
            image=view(image, (slice(None), None, slice(None), slice(None))),
            size=config.diameter or 0,
            head=WindowHead(),
            channels=tuple(position for position, _ in channels),
            remove_background=config.remove_background,
            batch_size=config.batch_size,
            what=f"mask {self.labels}",
            executor=self.executor or config.executor,
            memory_limit=budget,
        )
        return ImageWindows(run, tuple(name for _, name in channels), self.labels, there, budget)

    def plan(self, call: Mapping[str, Any]) -> Plan:
        """Pick the cells, cut the work into units, and fit the model if it needs that."""
        source, model = self._source(call), self.model
        features = self._features(source, model)
        picked = call.get("n_cells") if self._picks(call) else None
        plan = source.plan(picked, call.get("seed", DEFAULT_SEED))
        warn_of_size(self.name, len(plan.arrays["ids"]), len(features), self.budget())
        if model.fit_sample:
            images, masks = sample_of(source, plan, model)
            with self._naming("model_kwargs"):
                model.fitted(images, masks, self._fit_path(call))
        return plan

    def _picks(self, call: Mapping[str, Any]) -> bool:
        """Whether cells are picked here; a partial extraction has picked them before."""
        before = call.get("data_type") == "partial" and self.config.source == EXTRACTION
        return bool(call) and not before

    def _fit_path(self, call: Mapping[str, Any]) -> Path:
        run = self._run_directory(self.directory / self.output_name(call))
        return run.path / names.MODEL_FILE

    def _features(self, source: FeatureSource, model: ModelSpec) -> tuple[str, ...]:
        with self._naming("embedding_dimension"):
            model.dimension(len(source.channels), len(source.masks))
        # As scPortrait names them: nucleus_area, not seg_all_nucleus_area.
        kinds = {labels: kind for kind, labels in names.LABELS_OF_KIND.items()}
        masks = [kinds.get(name, name) for name in source.masks]
        return tuple(model.feature_names(source.channels, masks))

    def task(self, plan: Plan, run: RunDirectory) -> Task:
        """Return the work of a unit."""
        call = (run.fingerprint() or {}).get("call", {})
        source, model = self._source(call), self.model
        if model.fit_sample:
            model = model.with_fit(run.path / names.MODEL_FILE)
        task = source.task(model, len(self._features(source, model)), run)
        batch = self.config.batch_size
        return task if batch is None else FixedBatch(task, batch)

    def sink(self, plan: Plan, output: Path, call: Mapping[str, Any]) -> Sink:
        """Return what makes the table and the ledger."""
        config, source, model = self.config, self._source(call), self.model
        there = self.filehandler
        said = ("model", "source", "diameter", "remove_background")
        about: dict[str, Any] = {
            **{key: value for key in said if (value := getattr(config, key)) is not None},
            "model_kwargs": json.dumps(config.model_kwargs),
            "channels": list(source.channels),
            "masks": list(source.masks),
        }
        facts = FeatureFacts(
            name=self.table_of(call),
            region=source.region,
            features=self._features(source, model),
            ids_dtype=instance_dtype(there.open_array(source.region).dtype),
            region_key=config.region_key,
            instance_key=config.instance_key,
            about=about,
            attributes=self.table_attributes(call),
            model=self._fit_path(call) if model.fit_sample else None,
        )
        return FeaturizationSink(plan, output, there, facts, source.rows, source.embeddings)

    # Running

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
        there = run.fingerprint()
        if there is not None and self.config.accept_changed_model and not overwrite:
            accepted = {**there, "model": fingerprint["model"]}
            if accepted == fingerprint != there:
                logger.warning(
                    "%s: the code or the weights of model %s have changed since %s was begun; it "
                    "goes on, as accept_changed_model says: %d of %d units keep what the model "
                    "gave before",
                    self.name,
                    self.config.model,
                    run.path,
                    *run.progress(),
                )
                write_json(run.path / names.RUN_FILE, fingerprint)
        super()._open(run, fingerprint, call, overwrite)
