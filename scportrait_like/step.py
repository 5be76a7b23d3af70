"""Processing steps: the base class.

A step of your own is one class in one file::

    class CountBright(ProcessingStep):
        Config = CountBrightConfig          # derives from StepConfig
        folder = "count_bright"

        def process(self, overwrite=None):
            return self.execute({}, overwrite)

        def inputs(self): ...               # elements that are read
        def plan(self, call): ...           # units of work
        def task(self, plan, run): ...      # what a worker does with one
        def sink(self, plan, output, call): ...   # makes the output of what they found

Name it in the config by its entry point (group ``scportrait_like.steps``) or as ``module:Class``.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, ClassVar

from scportrait_like import names
from scportrait_like.config import ProjectConfig, StepConfig, load_config, parse_section
from scportrait_like.errors import ConfigError, ProjectError, ScportraitLikeError
from scportrait_like.filehandler import FileHandler
from scportrait_like.identity import digest
from scportrait_like.io.indexes import element_identity
from scportrait_like.io.placement import (
    clear_leftovers,
    flush_tree,
    place_folder,
    scratch_folder,
)
from scportrait_like.run.durable import write_json
from scportrait_like.run.executors import check_executor_name
from scportrait_like.run.memory import SCARCE, granted_cores, memory_budget, tune_allocator
from scportrait_like.run.plan import Plan, Sink, Task
from scportrait_like.run.rundir import (
    Fingerprint,
    RunDirectory,
    read_fingerprint,
    refuse_stale,
)
from scportrait_like.run.runner import Resources, RunReport, run_units
from scportrait_like.step_state import StepState, titled
from scportrait_like.writing import writing

logger = logging.getLogger(__name__)


class ProcessingStep(StepState):
    """One step of a project: it plans units, the runner runs them, its sink writes the output.

    Parameters
    ----------
    config
        The step's section as a mapping, a mapping or YAML file that holds it under the class's
        name, or the validated model.
    directory
        Folder of the step's outputs; default: `folder` in the project.
    project_location
        The project folder; default: the parent of `directory`.
    debug
        Log everything, to stderr too.
    overwrite
        Permit replacing an output whose settings or inputs have changed.
    project
        The project that the step belongs to, or None.
    filehandler
        The project's store; default: the one in `project_location`.
    from_project
        Accepted; a step behaves alike with and without.
    executor
        A `concurrent.futures.Executor`, or the name of one; it goes before the config's.
    memory_limit
        Bytes for the whole process tree, where the config does not say.
    where
        Name of the config file, for messages.
    """

    Config: ClassVar[type[StepConfig]] = StepConfig
    folder: ClassVar[str]
    # What long work is given to when nobody chose: our kernels hold no GIL.
    prefers: ClassVar[str] = "threads"
    # Raise it when the same settings and inputs give another result than before.
    result_version: ClassVar[int] = 1
    # Whether a run may put images or labels into the store, which steps after it may read.
    makes_rasters: ClassVar[bool] = True

    def __init__(
        self,
        config: Mapping[str, Any] | StepConfig | str | Path,
        directory: str | Path | None = None,
        project_location: str | Path | None = None,
        debug: bool = False,
        overwrite: bool = False,
        project: Any = None,
        filehandler: FileHandler | None = None,
        from_project: bool = False,
        *,
        executor: Executor | str | None = None,
        memory_limit: int | str | None = None,
        where: str = "config",
    ) -> None:
        if project_location is None:
            if directory is None:
                raise ProjectError(f"{self.name}: give directory or project_location")
            project_location = Path(directory).parent
        # Absolute: a worker elsewhere has another working directory.
        self.project_location = Path(project_location).expanduser().absolute()
        self.directory = self.project_location / self.folder
        if directory is not None:
            self.directory = Path(directory).expanduser().absolute()
        self.config = self._parse(config, where)
        self.debug = debug or self.config.debug
        self.overwrite = overwrite
        self.project = project
        self.filehandler = filehandler or FileHandler(self.project_location)
        self.executor = executor
        self.memory_limit = memory_limit
        self.report: RunReport | None = None
        check_executor_name(self.config.executor, f"{where}: section {self.title}")

    @property
    def output_path(self) -> Path:
        """Folder of the output of a call without arguments."""
        return self.directory / self.output_name({})

    def _parse(self, config: Mapping[str, Any] | StepConfig | str | Path, where: str) -> StepConfig:
        if isinstance(config, StepConfig):
            return config
        loaded = load_config(config)
        if isinstance(config, Mapping):
            loaded = ProjectConfig(loaded.sections, where)
        section = loaded.sections
        if self.name in section:
            section = section[self.name]
        elif not isinstance(config, Mapping):
            raise ConfigError(f"{loaded.where}: section {self.name} is missing")
        parsed: Any = section
        given = parsed.get("name") if isinstance(parsed, Mapping) else None
        return parse_section(self.Config, titled(self.name, given), section, loaded.where)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step: the same as `process`."""
        return self.process(*args, **kwargs)

    def needs(self) -> tuple[str, ...]:
        """Names of the steps whose output this one reads."""
        return ()

    def check(self, before: Sequence[ProcessingStep] = (), *args: Any, **kwargs: Any) -> None:
        """Refuse what could not be done; a project asks all its steps before the first one runs.

        Parameters
        ----------
        before
            Steps that will run before this one: what they make may be absent yet.
        *args, **kwargs
            Those of `process`.
        """

    # What a step is made of

    @abstractmethod
    def process(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step; arguments that can change the result go into `execute`'s `call`."""

    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Names of the store's elements that are read."""

    @abstractmethod
    def plan(self, call: Mapping[str, Any]) -> Plan:
        """Cut the work into units. Called once a run; a resumed run reads the stored plan."""

    @abstractmethod
    def task(self, plan: Plan, run: RunDirectory) -> Task:
        """Return what a worker does with a unit."""

    @abstractmethod
    def sink(self, plan: Plan, output: Path, call: Mapping[str, Any]) -> Sink:
        """Return what makes the output, in a folder of its own, of the finished units."""

    def outputs(self) -> list[str]:
        """All that a call without arguments writes, to be told apart from other steps'."""
        return [str(self.output_path)]

    # Running

    def execute(self, call: Mapping[str, Any], overwrite: bool | None = None) -> Path:
        """Run, resume, or find complete what a call asks for.

        Parameters
        ----------
        call
            Arguments of the call that can change the result, as plain JSON.
        overwrite
            True throws away what lies there, also a complete or resumable run; False refuses to
            replace what was made from other settings or inputs; None does as the step was told.

        Returns
        -------
        pathlib.Path
            Folder of the complete output.
        """
        output = self.directory / self.output_name(call)
        with writing(self.filehandler, self.title, self.debug):
            fingerprint = self.fingerprint(call)
            run = self._run_directory(output)
            clear_leftovers(output)
            if not overwrite and self._is_complete(output, run, fingerprint, call, overwrite):
                logger.info("%s: %s is complete; nothing to do", self.title, output)
                return output
            self._open(run, fingerprint, call, overwrite)
            self._work(run, output, fingerprint, call)
        return output

    def fingerprint(self, call: Mapping[str, Any]) -> Fingerprint:
        """Everything that can change the result of a call."""
        return {
            "step": self.name,
            "version": self.result_version,
            "config": self.config.result_keys(),
            "inputs": {name: element_identity(self.filehandler, name) for name in self.inputs()},
            "call": dict(call),
        }

    def _is_complete(
        self,
        output: Path,
        run: RunDirectory,
        fingerprint: Fingerprint,
        call: Mapping[str, Any],
        overwrite: bool | None,
    ) -> bool:
        made = read_fingerprint(output)
        if made is None:
            if output.exists() and not self._may_replace(overwrite):
                raise ProjectError(
                    f"{output} is there, but was not made by this package; to replace it: "
                    f"{self.replacing(call)}"
                )
            return False
        if made == fingerprint and not self.missing(call):
            # Killed between the output's appearance and the run's removal, or before any result.
            if run.fingerprint() == made or not run.finished():
                run.remove()
            return True
        # Whoever began this very run was permitted to replace the output.
        begun = run.fingerprint() == fingerprint
        if made == fingerprint or begun or self._may_replace(overwrite):
            return False
        raise refuse_stale(str(output), self.differences(made, fingerprint), self.replacing(call))

    def _may_replace(self, overwrite: bool | None) -> bool:
        return self.overwrite if overwrite is None else overwrite

    def _open(
        self,
        run: RunDirectory,
        fingerprint: Fingerprint,
        call: Mapping[str, Any],
        overwrite: bool | None,
    ) -> None:
        """Open the run for going on, or anew."""
        there = run.fingerprint()
        if there is not None and not overwrite:
            if there == fingerprint:
                logger.info("%s: going on with %s", self.title, run.path)
                run.clean()
                return
            # A run without a finished unit is nobody's loss, nor one that would be refused again.
            if run.finished() and not run.refused() and not self._may_replace(overwrite):
                raise refuse_stale(
                    f"the interrupted run {run.path}",
                    self.differences(there, fingerprint),
                    self.replacing(call),
                )
        self.directory.mkdir(parents=True, exist_ok=True)
        run.start(fingerprint, self._cache(run))

    def _cache(self, run: RunDirectory) -> Path | None:
        if self.config.cache is None:
            return None
        cache = Path(self.config.cache) / f"scportrait_like-{digest(str(run.path.resolve()))}"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"section {self.title}: key cache: {self.config.cache!r} cannot be used: {error}"
            ) from error
        return cache

    def _work(
        self, run: RunDirectory, output: Path, fingerprint: Fingerprint, call: Mapping[str, Any]
    ) -> None:
        resources = self.resources()
        tune_allocator(resources.budget < SCARCE)  # for the plan too: it may read a mask
        if not run.has_plan():
            try:
                plan = self.plan(call)
            except ScportraitLikeError:
                run.remove()  # what cannot be planned was never begun
                raise
            plan.save(run.plan_path)
        plan = run.plan()
        task = self.task(plan, run)
        run.output_path.mkdir()
        sink = self.sink(plan, run.output_path, call)
        self.report = run_units(run, plan, task, sink, resources, self.title)
        write_json(run.output_path / names.RUN_FILE, fingerprint)
        flush_tree(run.output_path)
        with scratch_folder(output) as scratch:
            place_folder(run.output_path, output, scratch)
        run.remove()

    def budget(self) -> int:
        """Bytes that the process tree may take."""
        limit = self.config.memory_limit or self.memory_limit
        return memory_budget(limit, self.config.target_ram_utilization)

    def resources(self) -> Resources:
        """What the run may use, from the config and the step's arguments."""
        config = self.config
        cores = granted_cores()
        if config.threads is not None and config.threads > cores:
            logger.warning(
                "section %s: threads: %d reduced to %d, the cores of this machine",
                self.title,
                config.threads,
                cores,
            )
        return Resources(
            executor=self.executor or config.executor,
            prefers=self.prefers,
            workers=min(config.threads or cores, cores),
            budget=self.budget(),
            batch_size=config.max_batch_size,
            at_most=config.max_inflight_result_batches,
            flush_every=config.flush_every,
        )
