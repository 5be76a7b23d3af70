"""Featurization: a model makes numbers of each cell's window or picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from scportrait_like import names
from scportrait_like.config import FolderName, StepConfig
from scportrait_like.io.extracted import COMPLETE, Extracted
from scportrait_like.io.featurization_inputs import (
    DEFAULT_SEED,
    FeatureSource,
    call_of,
    named,
    open_windows,
    sample_of,
    warn_of_size,
)
from scportrait_like.io.featurization_output import FeatureFacts, FeaturizationSink
from scportrait_like.io.featurization_pictures import find_in_pictures, open_pictures
from scportrait_like.io.indexes import element_identity
from scportrait_like.io.inputs_of_steps import check_elements, find_channels
from scportrait_like.io.tables import instance_dtype
from scportrait_like.model_step import ModelConfig, ModelStep
from scportrait_like.models import ModelSpec
from scportrait_like.raster.featurizing import FixedBatch
from scportrait_like.run.plan import Plan, Sink, Task
from scportrait_like.run.rundir import Fingerprint, RunDirectory
from scportrait_like.step import ProcessingStep

IMAGES: Final = "images"
EXTRACTION: Final = "extraction"


class FeaturizationConfig(ModelConfig):
    """Section ``Featurization``; for the keys of the model see `ModelConfig`.

    Attributes
    ----------
    source
        ``extraction``: the pictures of `project.extract()`; ``images``: windows cut from image and
        mask.
    diameter
        Edge of the windows in pixels, for ``images``.
    remove_background
        Show the model nothing but the cell itself; for ``images``.
    """

    name: FolderName = names.FEATURES
    source: Literal["extraction", "images"] = EXTRACTION
    diameter: Annotated[int, Field(ge=1)] | None = Field(None, validate_default=True)
    remove_background: bool = True

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


class Featurization(ModelStep):
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
        call = call_of(n_cells, data_type, partial_seed)
        self.check_table(call, overwrite)
        if self.config.source == EXTRACTION:
            self._extracted(call).check(self.title)
        self.find_model(fetch=True)  # all else finds it on this machine
        return self.execute(call, overwrite)

    def check(
        self,
        before: Sequence[ProcessingStep] = (),
        n_cells: int = 0,
        data_type: str = "complete",
        partial_seed: int | None = None,
        *,
        overwrite: bool | None = None,
    ) -> None:
        """Refuse what `process` would refuse before its units, as far as no mask is read."""
        call = call_of(n_cells, data_type, partial_seed)
        self.check_table(call, overwrite)
        model, step = self.find_model(fetch=True), self._extraction
        awaited = step if self.config.source == EXTRACTION and step in before else None
        if self.config.source == EXTRACTION and awaited is None:
            self._extracted(call).check(self.title)
        with self.absent_yet(before):
            planes = self._planes_awaited(awaited) if awaited else self._planes(call)
            if planes is not None:
                self._check_dimension(model, *planes)

    def output_name(self, call: Mapping[str, Any]) -> str:
        """The section's name, with what tells a pick."""
        return named(str(self.config.name), call)

    def table_of(self, call: Mapping[str, Any]) -> str:
        """Name of the table in the project's store."""
        return named(self.config.table_name or str(self.config.name), call)

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
        """Everything that can change the result: also the extraction."""
        found = super().fingerprint(call)
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

    def _planes(self, call: Mapping[str, Any]) -> tuple[int, int]:
        """How many channels and masks the model gets."""
        self.inputs()  # which must be there
        source = self._source(call)
        return len(source.channels), len(source.masks)

    def _planes_awaited(self, step: Any) -> tuple[int, int] | None:
        """The same of pictures that a step will make; None: nobody knows."""
        if not hasattr(step, "masks"):
            return None  # a step of the user's
        config, there = step.config, self.filehandler
        step.inputs()  # which must be there
        known = config.channels or there.channel_names(config.image)
        if self.config.labels is not None:
            check_elements(there, config.image, [self.config.labels])
        with self.naming("channels"):
            return len(find_in_pictures(known, self.config.channels)), len(step.masks())

    # Plan, task, sink

    def _source(self, call: Mapping[str, Any]) -> FeatureSource:
        config, there, budget = self.config, self.filehandler, self.budget()
        if config.source == EXTRACTION:
            path = self._extracted(call).path
            with self.naming("channels"):
                return open_pictures(
                    there, path, config.labels, config.channels, config.batch_size, budget
                )
        return open_windows(
            there,
            config.image,
            self.labels,
            find_channels(there, config.image, config.channels, self.title),
            config.diameter or 0,
            remove_background=config.remove_background,
            batch_size=config.batch_size,
            executor=self.executor or config.executor,
            budget=budget,
        )

    def plan(self, call: Mapping[str, Any]) -> Plan:
        """Pick the cells, cut the work into units, and fit the model if it needs that."""
        source, model = self._source(call), self.model
        features = self._features(source, model)
        picked = call.get("n_cells") if self._picks(call) else None
        plan = source.plan(picked, call.get("seed", DEFAULT_SEED))
        warn_of_size(self.title, len(plan.arrays["ids"]), len(features), self.budget())
        if model.fit_sample:
            images, masks = sample_of(source, plan, model)
            with self.naming("model_kwargs"):
                model.fitted(images, masks, self._fit_path(call))
        return plan

    def _picks(self, call: Mapping[str, Any]) -> bool:
        """Whether cells are picked here; a partial extraction has picked them before."""
        before = call.get("data_type") == "partial" and self.config.source == EXTRACTION
        return bool(call) and not before

    def _fit_path(self, call: Mapping[str, Any]) -> Path:
        run = self._run_directory(self.directory / self.output_name(call))
        return run.path / names.MODEL_FILE

    def _check_dimension(self, model: ModelSpec, n_channels: int, n_masks: int) -> None:
        with self.naming("embedding_dimension"):
            model.dimension(n_channels, n_masks)

    def _features(self, source: FeatureSource, model: ModelSpec) -> tuple[str, ...]:
        self._check_dimension(model, len(source.channels), len(source.masks))
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
