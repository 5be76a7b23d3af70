"""Project: owns a directory and its store, and chains processing steps."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scportrait_like import names, settings
from scportrait_like.config import (
    RUN_KEYS,
    ProjectConfig,
    load_config,
    parse_size,
    sections_of,
)
from scportrait_like.errors import ConfigError, InputError, MissingInputError, ProjectError
from scportrait_like.filehandler import FileHandler
from scportrait_like.inputs import Inputs
from scportrait_like.notes import Notes
from scportrait_like.pictures import Pictures
from scportrait_like.run.durable import committed
from scportrait_like.run.executors import check_executor_name
from scportrait_like.run.rundir import changes
from scportrait_like.status import StepStatus
from scportrait_like.step import ProcessingStep
from scportrait_like.step_registry import find_step, has_step, registered_steps
from scportrait_like.writing import writing

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

StepClass = type[ProcessingStep]


class Project(Inputs, Pictures):
    """A project folder: its inputs, its steps, and what they made.

    Running the same script again resumes what was interrupted and does nothing where all is done.

    Parameters
    ----------
    project_location
        The folder; it is made where it does not exist.
    config_path
        A YAML file (copied to ``config.yml`` in the folder), a mapping, or None: the one there.
    segmentation_f, selection_f
        Only None: masks are made elsewhere and loaded with `load_labels`.
    extraction_f, featurization_f, aggregation_f, pixel_clustering_f
        A step class to use, one of the user's own included; its section must be in the config.
    overwrite
        Permit replacing a different input or config. A complete or resumable run whose settings
        and inputs still match is never thrown away by it.
    debug
        Log everything, to stderr too.
    executor
        A `concurrent.futures.Executor`, or the name of one, for all steps.
    memory_limit
        Bytes (or "4GB") for the whole process tree, where a section does not say; default:
        ``scportrait_like.settings.memory_limit``.

    Raises
    ------
    ConfigError
        A mistake in the config: file, section, key, value and what is allowed.
    ProjectError
        A folder that cannot be written, or that has another config.
    """

    def __init__(
        self,
        project_location: str | Path,
        config_path: str | Path | Mapping[str, Any] | None = None,
        segmentation_f: None = None,
        extraction_f: StepClass | None = None,
        featurization_f: StepClass | None = None,
        selection_f: None = None,
        overwrite: bool = False,
        debug: bool = False,
        *,
        aggregation_f: StepClass | None = None,
        pixel_clustering_f: StepClass | None = None,
        executor: Executor | str | None = None,
        memory_limit: int | str | None = None,
    ) -> None:
        _refuse_classes(segmentation_f=segmentation_f, selection_f=selection_f)
        # Absolute, so that a script may change its working directory.
        self.project_location = Path(project_location).expanduser().absolute()
        if "*" in str(self.project_location):
            raise ProjectError(
                f"{self.project_location}: dask takes a * in a path for a pattern; choose another "
                "name for the folder"
            )
        self.overwrite, self.debug = overwrite, debug
        self.executor = executor
        self.memory_limit = settings.memory_limit if memory_limit is None else memory_limit
        _check_resources(executor, memory_limit)
        self.filehandler = FileHandler(self.project_location)
        named = _named_classes(
            extraction_f=extraction_f,
            featurization_f=featurization_f,
            aggregation_f=aggregation_f,
            pixel_clustering_f=pixel_clustering_f,
        )
        self._notes = Notes()
        # Steps are set up before anything is written: a mistake in the config leaves no trace.
        with self._notes.taken():
            given = None if config_path is None else load_config(config_path)
            self._loaded = given or self._stored_config() or ProjectConfig()
            self.steps = self._set_up(self._loaded, named)
        if given is not None:
            self._store_config(given, config_path)
        self.extraction_f = self._first("HDF5CellExtraction", extraction_f)
        self.aggregation_f = self._first("Aggregation", aggregation_f)
        self.featurization_f = self._first("Featurization", featurization_f)
        self.pixel_clustering_f = self._first("PixelClustering", pixel_clustering_f)
        self._last_extraction: Path | None = None

    # Config and steps

    @property
    def config(self) -> dict[str, Any]:
        """Sections of the config, as read."""
        return self._loaded.sections

    @property
    def config_path(self) -> Path:
        """The project's own copy of the config."""
        return self.project_location / names.CONFIG_FILE

    def _stored_config(self) -> ProjectConfig | None:
        return load_config(self.config_path) if self.config_path.is_file() else None

    def _set_up(
        self, config: ProjectConfig, named: Mapping[str, StepClass]
    ) -> dict[str, list[ProcessingStep]]:
        config = config.in_our_names([*registered_steps(), *named])
        for name in named:
            if name not in config.sections:
                known = ", ".join(config.sections) or "none"
                raise ConfigError(f"{config.where}: section {name} is missing; sections: {known}")
        config.check_known([*registered_steps(), *named])
        steps: dict[str, list[ProcessingStep]] = {}
        for section, values in config.sections.items():
            if section not in named and not has_step(section):
                continue
            cls = named.get(section) or find_step(section, config.where)
            if cls.__name__ in steps:
                raise ConfigError(
                    f"{config.where}: section {section}: there is another section of a step named "
                    f"{cls.__name__}; keep one, with a list of mappings under it"
                )
            steps[cls.__name__] = [
                cls(
                    {cls.__name__: part},
                    project_location=self.project_location,
                    debug=self.debug,
                    overwrite=self.overwrite,
                    project=self,
                    filehandler=self.filehandler,
                    from_project=True,
                    executor=self.executor,
                    memory_limit=self.memory_limit,
                    where=config.where,
                )
                for part in sections_of(section, values, config.where)
            ]
            outputs = [step.output_path for step in steps[cls.__name__]]
            if len(set(outputs)) < len(outputs):
                raise ConfigError(
                    f"{config.where}: section {section}: it holds {len(outputs)} mappings, but the "
                    f"step has one output, {outputs[0]}; give it one mapping"
                )
        _refuse_shared_outputs(steps, config.where)
        return steps

    def _first(self, section: str, cls: StepClass | None) -> ProcessingStep | None:
        found = self.steps.get(cls.__name__ if cls is not None else section)
        return found[0] if found else None

    def _store_config(self, given: ProjectConfig, source: Any) -> None:
        """Keep a copy of the config; another one replaces it only when that is permitted."""
        if self._has_config(given):
            return
        with self._writing("storing the config"):
            if self._has_config(given):  # another process was faster
                return
            if isinstance(source, Mapping):
                import yaml

                content = yaml.safe_dump(given.sections, sort_keys=False, allow_unicode=True)
            else:
                content = Path(source).read_text(encoding="utf-8")
            with committed(self.config_path) as file:
                file.write(content.encode())
            logger.info("config stored in %s", self.config_path)

    def _has_config(self, given: ProjectConfig) -> bool:
        """Whether the folder has this very config; refuse one that must not replace it."""
        stored = self._stored_config()
        if stored is None or stored.sections == given.sections:
            return stored is not None
        before, after = (_without_run_keys(config.sections) for config in (stored, given))
        differs = changes(before, after)
        if differs and not self.overwrite:
            listed = "\n".join(f"  {line}" for line in differs)
            raise ProjectError(
                f"{self.project_location} has another config:\n{listed}\n"
                "Pass overwrite=True to replace it, or no config_path to use the one there"
            )
        return False

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        """Hold the lock and write the log."""
        with writing(self.filehandler, doing, self.debug):
            self._notes.hand_over()
            yield

    def _write_notes(self) -> None:
        """Log what was noted at the setting up, where the project itself has written nothing."""
        if self._notes.records:
            with self._writing("writing the log"):
                pass

    # Running

    def _step(self, section: str, found: ProcessingStep | None) -> ProcessingStep:
        if found is None:
            known = ", ".join(self.steps) or "none"
            raise ConfigError(
                f"{self._loaded.where}: section {section} is missing, so the step is not set up; "
                f"steps of the config: {known}"
            )
        return found

    def extract(
        self,
        partial: bool = False,
        n_cells: int | None = None,
        seed: int = 42,
        overwrite: bool | None = None,
        output_folder_name: str | None = None,
    ) -> Path:
        """Cut out each cell's picture; see `HDF5CellExtraction.process`.

        Returns
        -------
        pathlib.Path
            The `.h5sc` file.
        """
        step = self._step("HDF5CellExtraction", self.extraction_f)
        self._write_notes()
        path: Path = step.process(partial, n_cells, seed, output_folder_name, overwrite=overwrite)
        self._last_extraction = path
        return path

    def aggregate(self, overwrite: bool | None = None) -> None:
        """Take statistics of each cell's pixels, into tables of `sdata`; see `Aggregation`."""
        found = self._step("Aggregation", self.aggregation_f)
        self._process_all(found.name, overwrite=overwrite)

    def featurize(
        self,
        n_cells: int = 0,
        data_type: str = "complete",
        partial_seed: int | None = None,
        overwrite: bool | None = None,
    ) -> None:
        """Let models make numbers of each cell, into tables of `sdata`.

        Parameters
        ----------
        n_cells, data_type, partial_seed, overwrite
            See `Featurization.process`.
        """
        found = self._step("Featurization", self.featurization_f)
        self._process_all(found.name, n_cells, data_type, partial_seed, overwrite=overwrite)

    def cluster_pixels(self, overwrite: bool | None = None) -> None:
        """Cluster all pixels, into labels and tables of `sdata`; see `PixelClustering`."""
        found = self._step("PixelClustering", self.pixel_clustering_f)
        self._process_all(found.name, overwrite=overwrite)

    def _process_all(self, section: str, *args: Any, **kwargs: Any) -> None:
        """Run all mappings of a section, after a check of each: a mistake costs no work."""
        self._write_notes()
        for step in self.steps[section]:
            with step.named_errors():
                step.check((), *args, **kwargs)
        for step in self.steps[section]:
            with step.named_errors():
                step.process(*args, **kwargs)

    def run(self, steps: Iterable[str] | str | None = None) -> None:
        """Run steps (default: all of the config), those that others need first.

        All of them are checked before the first one runs.

        Raises
        ------
        ConfigError
            A step that is not in the config; the message lists those that are.
        MissingInputError
            What a step needs is absent or stale; the message names the call to make.
        """
        chosen = self.steps if steps is None else [steps] if isinstance(steps, str) else steps
        wanted = list(chosen)
        if unknown := [name for name in wanted if name not in self.steps]:
            known = ", ".join(self.steps) or "none"
            raise ConfigError(f"unknown step {', '.join(unknown)}; steps of the config: {known}")
        self._write_notes()
        order = [step for name in _ordered(wanted, self.steps) for step in self.steps[name]]
        for position, step in enumerate(order):
            with step.named_errors():
                self._check_needs(step, wanted)
                step.check(order[:position])
        for step in order:
            with step.named_errors():
                step.process()

    def _check_needs(self, step: ProcessingStep, wanted: list[str]) -> None:
        """Refuse to run a step whose prerequisite is neither complete nor run before it."""
        for needed in step.needs():
            if needed in wanted:
                continue
            other = self._step(needed, self._first(needed, None))
            state = other.status()[0]
            if state.state != "complete":
                raise MissingInputError(
                    f"{step.name} needs {needed}, which is {state.state}; "
                    f"{other.how_to_go_on(state.output)}"
                )

    def status(self) -> list[StepStatus]:
        """How far each step is: absent, interrupted (k of n units), complete, stale."""
        return [
            status for steps in self.steps.values() for step in steps for status in step.status()
        ]

    # Looking

    @property
    def sdata(self) -> SpatialData:
        """The project's store as a SpatialData object."""
        return self.filehandler.sdata

    @property
    def h5sc(self) -> AnnData:
        """The extracted pictures, of the last `extract` of this object or of all cells; lazy.

        Raises
        ------
        IncompleteOutputError, MissingInputError
            There are none, or not all: the message says how to go on.
        """
        from scportrait_like.io.h5sc import read_h5sc

        step = self._step("HDF5CellExtraction", self.extraction_f)
        path = self._last_extraction or step.output_path / names.H5SC_FILE
        return read_h5sc(path, step.how_to_go_on(path.parent.name))

    def __repr__(self) -> str:
        elements = ", ".join(self.filehandler.element_names()) or "no elements"
        lines = [f"Project {self.project_location} ({elements})"]
        return "\n".join([*lines, *(f"  {status}" for status in self.status())])


def _refuse_classes(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(
                f"{name}={value!r}: this package does not segment or select; make masks elsewhere "
                "and load them with load_labels"
            )


def _refuse_shared_outputs(steps: Mapping[str, list[ProcessingStep]], where: str) -> None:
    """Refuse steps that would write to the same place, and replace each other's output."""
    owners: dict[str, str] = {}
    for step in (step for listed in steps.values() for step in listed):
        label = f"{step.name} {step.config.name}" if step.config.name else step.name
        for place in step.outputs():
            if place in owners:
                raise ConfigError(
                    f"{where}: sections {owners[place]} and {label} would both write {place}; give "
                    "each names of its own (name, table_name)"
                )
            owners[place] = label


def _check_resources(executor: Executor | str | None, memory_limit: int | str | None) -> None:
    if isinstance(executor, str):
        check_executor_name(executor, "Project")
    try:
        parse_size(memory_limit)
    except ValueError as error:
        raise ConfigError(f"memory_limit {memory_limit!r} is not allowed: {error}") from None


def _named_classes(**given: Any) -> dict[str, StepClass]:
    for argument, cls in given.items():
        if cls is not None and not (isinstance(cls, type) and issubclass(cls, ProcessingStep)):
            raise InputError(f"{argument}={cls!r} is not allowed: give a class of a ProcessingStep")
    return {cls.__name__: cls for cls in given.values() if cls is not None}


def _without_run_keys(sections: Mapping[str, Any]) -> dict[str, Any]:
    def strip(values: Any) -> Any:
        if isinstance(values, Mapping):
            return {key: value for key, value in values.items() if key not in RUN_KEYS}
        return [strip(part) for part in values] if isinstance(values, list) else values

    return {name: strip(values) for name, values in sections.items()}


def _ordered(wanted: list[str], steps: Mapping[str, list[ProcessingStep]]) -> list[str]:
    """Wanted steps, each after those that it needs; else in the order given."""
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ConfigError(f"steps need each other: {' -> '.join([*above, name])}")
        for step in steps[name]:
            for needed in step.needs():
                if needed in wanted:
                    visit(needed, (*above, name))
        if name not in done:
            done.append(name)

    for name in wanted:
        visit(name, ())
    return done
