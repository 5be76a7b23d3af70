"""Steps whose output is a table in the project's store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from scportrait_like import names
from scportrait_like.errors import ElementExistsError, InputError, MissingInputError
from scportrait_like.identity import digest
from scportrait_like.io.inputs_of_steps import check_elements
from scportrait_like.io.tables import check_keys
from scportrait_like.step import ProcessingStep


@dataclass(frozen=True)
class Placed:
    """An element that a sink places in the store.

    Attributes
    ----------
    name
        Of the element.
    kind
        ``tables``, ``labels``, ...
    key
        Of the section, that names it.
    """

    name: str
    kind: str = "tables"
    key: str = "table_name"

    def __str__(self) -> str:
        return f"{'table' if self.kind == 'tables' else self.kind} {self.name}"


class TableStep(ProcessingStep):
    """A step whose sink places a table that annotates a mask; its folder holds the ledger.

    The table (and what else it places) and the folder appear one after the other, each complete.
    An element says which call of which step it is of, so a folder without it is not complete.
    """

    makes_rasters: ClassVar[bool] = False

    @abstractmethod
    def table_of(self, call: Mapping[str, Any]) -> str:
        """Name of a call's table in the project's store."""

    def placed(self, call: Mapping[str, Any]) -> list[Placed]:
        """All that the sink of a call places in the store."""
        return [Placed(self.table_of(call))]

    @property
    def labels(self) -> str:
        """Name of the mask: the one asked for, else that of the cytosol, else of the nucleus."""
        if self.config.labels is not None:
            return self.config.labels
        there = names.SEG_NUCLEUS in self.filehandler and names.SEG_CYTOSOL not in self.filehandler
        return names.SEG_NUCLEUS if there else names.SEG_CYTOSOL

    def image_and_labels(self) -> tuple[str, str]:
        """Names of the image and of the mask, which must be there."""
        there = self.config.labels is not None or self.labels in self.filehandler
        check_elements(self.filehandler, self.config.image, [self.labels] if there else [])
        return self.config.image, self.labels

    def table_attributes(self, call: Mapping[str, Any]) -> dict[str, str]:
        """Our own attributes of what a call places."""
        return {names.REVISION: self._revision(call), names.MADE_BY: self._made_by(call)}

    def _made_by(self, call: Mapping[str, Any]) -> str:
        return f"{self.folder}/{self.output_name(call)}"

    def _revision(self, call: Mapping[str, Any]) -> str:
        return digest(self.fingerprint(call))

    def outputs(self) -> list[str]:
        """The folder, and what is placed."""
        return [*super().outputs(), *map(str, self.placed({}))]

    def missing(self, call: Mapping[str, Any]) -> list[str]:
        """What the store does not hold as this very call has placed it."""
        there, lacking = self.filehandler, []
        for each in self.placed(call):
            if each.name not in there:
                lacking.append(f"{each} is not in the store")
            elif there.revision(each.name) != self._revision(call):
                lacking.append(f"{each} is another one")
        return lacking

    def check(self, before: Sequence[ProcessingStep] = (), *args: Any, **kwargs: Any) -> None:
        """Refuse a table that could not be written, and inputs that are not there.

        Raises
        ------
        InputError, ElementExistsError
            See `check_table`.
        MissingInputError
            An element is absent, and no step that runs before may make it.
        """
        self.check_table({}, kwargs.get("overwrite"))
        with self.absent_yet(before):
            self.inputs()

    @contextmanager
    def absent_yet(self, before: Sequence[ProcessingStep]) -> Iterator[None]:
        """Let pass that an element is absent, where steps that run before may make it."""
        try:
            yield
        except MissingInputError:
            if not any(step.makes_rasters for step in before):
                raise

    def check_table(
        self, call: Mapping[str, Any], overwrite: bool | None, columns: Iterable[str] = ()
    ) -> None:
        """Refuse names that the end of the run could not write, before it begins.

        Raises
        ------
        InputError
            Names, of the table or its columns, that a table cannot have.
        ElementExistsError
            Something that this step did not make has the name of what it places.
        """
        config, there = self.config, self.filehandler
        check_keys([config.region_key, config.instance_key, *columns])
        self._check_names(self.placed(call))
        for each in self.placed(call):
            there.check_may_write(each.name, each.kind, overwrite=True)
            if each.name not in there:
                continue
            made_by = there.attributes(each.name).get(names.MADE_BY)
            if each.kind != "tables" and made_by is None:  # an image or a mask of the user's
                raise ElementExistsError(
                    f"section {self.title}: {there.path} has {each.name!r} among its {each.kind}, "
                    f"and no step made it: it is never replaced. Give another {each.key}"
                )
            if made_by != self._made_by(call) and not self._may_replace(overwrite):
                raise ElementExistsError(
                    f"{there.path} has {each.name!r} already, and this step did not make it: give "
                    f"another {each.key} in the config, or replace it with {self.replacing(call)}"
                )

    def _check_names(self, placed: Sequence[Placed]) -> None:
        """Refuse elements of one name, or of names that differ in upper case only."""
        owners: dict[str, Placed] = {}
        for each in placed:
            other = owners.setdefault(each.name.lower(), each)
            if other is not each:
                raise InputError(
                    f"section {self.title}: keys {other.key} and {each.key}: {other} and {each} "
                    "need names that differ in more than upper case"
                )
