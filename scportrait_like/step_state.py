"""What a step is called, how far it is, and what a user is told of it. Nothing here writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scportrait_like.config import StepConfig
from scportrait_like.errors import MissingInputError, ScportraitLikeError
from scportrait_like.run.rundir import Fingerprint, RunDirectory, changes, read_fingerprint
from scportrait_like.status import StepStatus


class StepState(ABC):
    """The part of `ProcessingStep` that looks."""

    config: StepConfig
    directory: Path
    project: Any

    @abstractmethod
    def fingerprint(self, call: Mapping[str, Any]) -> Fingerprint:
        """Everything that can change the result of a call."""

    @property
    def name(self) -> str:
        """Name of the step: its section in the config."""
        return type(self).__name__

    @property
    def title(self) -> str:
        """What messages call its section: that of a list with the name of the mapping."""
        given = self.config.name if "name" in self.config.model_fields_set else None
        return titled(self.name, given)

    def output_name(self, call: Mapping[str, Any]) -> str:
        """Name of the folder of a call's output."""
        return "data"

    def missing(self, call: Mapping[str, Any]) -> list[str]:
        """What the sink of a call puts elsewhere than into its folder, and is not in its place."""
        return []

    def repeat(self, call: Mapping[str, Any], overwrite: bool = True) -> str:
        """How a user writes the call, for messages."""
        return f"{self.name}.process({'overwrite=True' if overwrite else ''})"

    def replacing(self, call: Mapping[str, Any]) -> str:
        """How a user makes a call anew, for messages, and nothing else that is still good."""
        beside = len(getattr(self.project, "steps", {}).get(self.name, ())) > 1
        again = self.repeat(call, overwrite=not beside)
        if beside and again.startswith("project."):  # which runs the other mappings too
            return again.replace("project.", "Project(..., overwrite=True).", 1)
        return self.repeat(call)

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Name the mapping of a list in errors, where they do not say it by themselves."""
        try:
            yield
        except ScportraitLikeError as error:
            if self.title != self.name and self.title not in str(error):
                error.args = (f"section {self.title}: {error}", *error.args[1:])
            raise

    def _run_directory(self, output: Path) -> RunDirectory:
        return RunDirectory(output.with_name(f".{output.name}.run"))

    def status(self) -> list[StepStatus]:
        """How far each output of this step is, the one of a call without arguments first."""
        first = self.output_name({})
        found = {first}
        if self.directory.is_dir():
            for entry in self.directory.iterdir():
                made = read_fingerprint(entry)
                # The other mappings of a section that is a list keep theirs here too.
                if made is None or made.get("config", {}).get("name") != self.config.name:
                    continue
                is_run = entry.name.startswith(".") and entry.name.endswith(".run")
                found.add(entry.name[1:-4] if is_run else entry.name)
        return [
            self._status(name) for name in sorted(found, key=lambda name: (name != first, name))
        ]

    def differences(self, made: Fingerprint, now: Fingerprint) -> list[str]:
        """List what differs between two fingerprints, one line a key, for messages."""
        return changes(made, now)

    def how_to_go_on(self, output: str) -> str:
        """Tell a user who misses an output what state it is in, and the call to make."""
        status = self._status(output)
        path = self.directory / output
        made = self._run_directory(path).fingerprint() or read_fingerprint(path) or {}
        call = made.get("call", {})
        again = self.repeat(call, overwrite=False)
        if status.state == "interrupted":
            return f"its run was interrupted ({status}): run {again} again, it goes on"
        # What was only taken out of the store is made anew without anybody's permission.
        moved = status.state == "stale" and not self.differences(made, self._now(made))
        if status.state == "absent" or moved:
            return f"run {again}"
        return f"make it anew with {self.replacing(call)}"

    def _status(self, output: str) -> StepStatus:
        path = self.directory / output
        run = self._run_directory(path)
        made, started = read_fingerprint(path), run.fingerprint()
        if made is None and started is None:
            return StepStatus(self.name, output, "absent")
        differs = self.differences(made, self._now(made)) if made is not None else []
        if made is not None and not differs:
            differs = self.missing(made["call"])
        if made is not None and not differs:
            return StepStatus(self.name, output, "complete")
        if started is not None:
            stale = self.differences(started, self._now(started))
            state = "stale" if stale else "interrupted"
            return StepStatus(self.name, output, state, *run.progress(), changes=tuple(stale))
        return StepStatus(self.name, output, "stale", changes=tuple(differs))

    def _now(self, made: Fingerprint) -> Fingerprint:
        """Fingerprint that the same call would have now; a missing input shows as None."""
        call = made.get("call", {})
        try:
            return self.fingerprint(call)
        except MissingInputError:
            now = dict.fromkeys(made.get("inputs", {}))
            return {**made, "config": self.config.result_keys(), "inputs": now}


def titled(step: str, mapping: Any) -> str:
    """What messages call the section of a step; that of a list with the name of the mapping."""
    return f"{step} ({mapping})" if mapping else step
