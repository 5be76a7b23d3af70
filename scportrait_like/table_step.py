"""Steps whose output is a table in the project's store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from scportrait_like import names
from scportrait_like.errors import ElementExistsError
from scportrait_like.identity import digest
from scportrait_like.io.inputs_of_steps import check_elements
from scportrait_like.io.tables import check_keys
from scportrait_like.step import ProcessingStep


class TableStep(ProcessingStep):
    """A step whose sink places a table that annotates a mask; its folder holds the ledger.

    The table and the folder appear one after the other, each complete. A table says which call of
    which step it is of, so a folder without its table is not complete.
    """

    @abstractmethod
    def table_of(self, call: Mapping[str, Any]) -> str:
        """Name of a call's table in the project's store."""

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
        """Our own attributes of a call's table."""
        return {names.REVISION: self._revision(call), names.MADE_BY: self._made_by(call)}

    def _made_by(self, call: Mapping[str, Any]) -> str:
        return f"{self.folder}/{self.output_name(call)}"

    def _revision(self, call: Mapping[str, Any]) -> str:
        return digest(self.fingerprint(call))

    def outputs(self) -> list[str]:
        """The folder, and the table."""
        return [*super().outputs(), f"table {self.table_of({})}"]

    def missing(self, call: Mapping[str, Any]) -> list[str]:
        """The table, where the store does not hold the one of this very call."""
        name, there = self.table_of(call), self.filehandler
        if name not in there:
            return [f"table {name} is not in the store"]
        if there.revision(name) != self._revision(call):
            return [f"table {name} is another one"]
        return []

    def check_table(
        self, call: Mapping[str, Any], overwrite: bool | None, columns: Iterable[str] = ()
    ) -> None:
        """Refuse names that the end of the run could not write, before it begins.

        Raises
        ------
        InputError
            Names, of the table or its columns, that a table cannot have.
        ElementExistsError
            Something else than this step's table has that name.
        """
        config, there, name = self.config, self.filehandler, self.table_of(call)
        check_keys([config.region_key, config.instance_key, *columns])
        there.check_may_write(name, "tables", overwrite=True)
        if name not in there or self._may_replace(overwrite):
            return
        if there.attributes(name).get(names.MADE_BY) != self._made_by(call):
            raise ElementExistsError(
                f"{there.path} has {name!r} already, and this step did not make it: give another "
                f"table_name in the config, or replace it with {self.repeat(call)}"
            )
