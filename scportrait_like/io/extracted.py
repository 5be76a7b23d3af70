"""The extraction that another step reads: where it lies, and whether it is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from scportrait_like import names
from scportrait_like.errors import MissingInputError
from scportrait_like.identity import digest, files_identity
from scportrait_like.run.rundir import read_fingerprint
from scportrait_like.status import StepStatus

COMPLETE: Final = "complete"


class ExtractionStep(Protocol):
    """What is asked of the project's step that extracts."""

    directory: Path

    def status(self) -> Sequence[StepStatus]:
        """How far its outputs are."""

    def how_to_go_on(self, output: str) -> str:
        """Tell the call to make for an output."""

    def repeat(self, call: Mapping[str, Any], overwrite: bool = True) -> str:
        """How a user writes a call."""


@dataclass(frozen=True)
class Extracted:
    """The pictures of all cells, or of a partial extraction.

    Attributes
    ----------
    location
        The project folder.
    step
        The project's step that makes them; None where there is none.
    pick
        (n_cells, seed) of a partial extraction, or None.
    """

    location: Path
    step: ExtractionStep | None
    pick: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        """The `.h5sc` file."""
        folder = self.location / names.EXTRACTION_DIR if self.step is None else self.step.directory
        name = names.EXTRACTION_DATA
        return folder / (names.partial(name, *self.pick) if self.pick else name) / names.H5SC_FILE

    @property
    def name(self) -> str:
        """What it is called in fingerprints."""
        return f"{names.EXTRACTION_DIR}/{self.path.parent.name}"

    def identity(self) -> str:
        """What it was made of, or, if another package made it, the identity of its file.

        Raises
        ------
        MissingInputError
            It is not there.
        """
        made = read_fingerprint(self.path.parent)
        if made is not None:
            return digest(made)
        if not self.path.is_file():
            raise MissingInputError(f"{self.path} is not there; {self._how('absent')}")
        return files_identity(self.path)

    @property
    def foreign(self) -> bool:
        """Whether another package made it, so that nothing tells of what."""
        return self.path.is_file() and read_fingerprint(self.path.parent) is None

    def state(self) -> str:
        """How far it is: absent, interrupted, complete or stale."""
        state = COMPLETE if self.path.is_file() else "absent"
        if self.step is None or self.foreign:
            return state
        states = {status.output: status.state for status in self.step.status()}
        return states.get(self.path.parent.name, state)

    def check(self, reader: str) -> None:
        """Refuse to read it before it is complete.

        Parameters
        ----------
        reader
            Name of the step that reads it.

        Raises
        ------
        MissingInputError
            It is absent, interrupted or stale; the message names the call to make.
        """
        state = self.state()
        if state != COMPLETE:
            raise MissingInputError(
                f"{reader} reads the pictures {self.path}, whose extraction is {state}; "
                f"{self._how(state)}"
            )

    def _how(self, state: str) -> str:
        if self.step is None:
            return "run project.extract() before, with its section in the config"
        if state == "absent" and self.pick:  # of which nothing there tells the call
            n_cells, seed = self.pick
            call = {"partial": True, "n_cells": n_cells, "seed": seed}
            return f"run {self.step.repeat(call, overwrite=False)}"
        return self.step.how_to_go_on(self.path.parent.name)
