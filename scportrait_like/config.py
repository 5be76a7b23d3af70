"""Config files: the base of the steps' models, and the loader.

Each step's own model stands in the step's file and derives from `StepConfig`. A mistake of any kind
is one `ConfigError` that names file, section, key, value and what is allowed.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from scportrait_like import names
from scportrait_like.errors import ConfigError

logger = logging.getLogger(__name__)

# Keys that never change a result. They may differ between a run and its resume.
RUN_KEYS: Final = frozenset(
    {
        "threads",
        "executor",
        "cache",
        "memory_limit",
        "target_ram_utilization",
        "max_inflight_result_batches",
        "flush_every",
        "max_batch_size",
        "debug",
        "accept_changed_model",
    }
)

# Sections of scPortrait's steps that a step of ours does instead, with its own settings.
INSTEAD: Final = {"CellFeaturizer": "Featurization"}

# Share of the machine's or container's memory that is taken where nobody says how much.
DEFAULT_SHARE: Final = 0.85

_UNITS: Final = {"": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", re.IGNORECASE)


def parse_size(value: Any) -> int | None:
    """Bytes from a number or a text such as ``"4GB"`` or ``"512 MiB"``; None stays None."""
    if value is None or value == "None":
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        size = int(value)
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        number, unit, binary = match.groups()
        power = _UNITS[unit.upper()] if unit else 0
        size = int(float(number) * (1024 if binary else 1000) ** power)
    else:
        raise ValueError("must be a number of bytes or a text such as '4GB'")
    if size <= 0:
        raise ValueError("must be above zero")
    return size


ByteSize = Annotated[int | None, BeforeValidator(parse_size)]


def _to_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# A list of strings; a single one is taken too.
Strings = Annotated[list[str], BeforeValidator(_to_list)]


def _to_folder(value: str | None) -> str | None:
    if value is not None and (not value or "/" in value or value.startswith(".")):
        raise ValueError("must be a plain name: it becomes that of a folder")
    return value


FolderName = Annotated[str | None, AfterValidator(_to_folder)]


class StepConfig(BaseModel):
    """What every section may hold: the run keys, and what is read and written.

    Attributes
    ----------
    threads
        Workers; default: the cores granted to this process.
    executor
        ``inline``, ``threads``, ``processes`` or ``dask``.
    cache
        Folder for the run's finished units until the output is complete; default: beside it.
    memory_limit
        Bytes that the whole process tree may take (``"4GB"``).
    target_ram_utilization
        Share of the machine's or container's memory where `memory_limit` is not given.
    max_inflight_result_batches
        At most so many units at once; default: calibrated.
    flush_every
        Finished units between two lines of progress in the log, with the output flushed to the
        disk.
    max_batch_size
        Cells worked on at once inside a unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # Keys that older config files carry and that mean nothing here.
    ignored_keys: ClassVar[tuple[str, ...]] = ("overwrite_run_path",)
    ignored_prefixes: ClassVar[tuple[str, ...]] = ("hdf5_rdcc_",)

    name: FolderName = None
    threads: int | None = Field(None, ge=1)
    executor: str | None = None
    cache: str | None = None
    memory_limit: ByteSize = None
    target_ram_utilization: float = Field(DEFAULT_SHARE, gt=0, le=1)
    max_inflight_result_batches: int | None = Field(None, ge=1)
    flush_every: int | None = Field(None, ge=1)
    max_batch_size: int = Field(1000, ge=1)
    debug: bool = False

    image: str = names.INPUT_IMAGE
    labels: str | None = None
    channels: Strings | None = None
    table_name: str | None = None
    instance_key: str = names.INSTANCE_KEY
    region_key: str = names.REGION_KEY

    def result_keys(self) -> dict[str, Any]:
        """The keys that can change a result, for the fingerprint."""
        return self.model_dump(mode="json", exclude=set(RUN_KEYS))


Model = TypeVar("Model", bound=StepConfig)


def parse_section(model: type[Model], section: str, values: Any, where: str = "config") -> Model:
    """Validate one section against its step's model.

    Parameters
    ----------
    model
        The step's config model.
    section
        Name of the section, for the messages.
    values
        The mapping under that name; None is an empty section.
    where
        Name of the file, for the messages.

    Raises
    ------
    ConfigError
        Names file, section, key, value and what is allowed, one line a mistake.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where}: section {section}: expected keys and values, got {type(values).__name__} "
            f"{values!r}"
        )
    kept = dict(values)
    for key in list(kept):
        if key in model.ignored_keys or str(key).startswith(model.ignored_prefixes):
            kept.pop(key)
            logger.info("%s: section %s: key %s is accepted and not needed", where, section, key)
    try:
        return model.model_validate(kept)
    except ValidationError as error:
        lines = [_explain(model, section, problem, where) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def sections_of(section: str, values: Any, where: str) -> list[Any]:
    """Mappings under one name: a single one, or a list of them with distinct ``name``."""
    if not isinstance(values, list):
        return [values]
    labels = [part.get("name") if isinstance(part, Mapping) else None for part in values]
    if None in labels or len({str(label) for label in labels}) < len(labels) or not labels:
        raise ConfigError(
            f"{where}: section {section}: a list holds one mapping or more, each with a name of "
            f"its own; names: {', '.join(map(str, labels)) or 'none'}"
        )
    return values


def _explain(model: type[StepConfig], section: str, problem: Any, where: str) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "(the whole section)"
    start = f"{where}: section {section}: key {key}"
    if problem["type"] == "extra_forbidden":
        known = sorted(model.model_fields)
        return f"{start}: unknown key{_suggest(key, known)}; known keys: {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    value = f"{problem['input']!r} ({type(problem['input']).__name__})"
    return f"{start}: {value} is not allowed: {message[0].lower()}{message[1:]}"


def _suggest(word: str, known: Iterable[str], cutoff: float = 0.75) -> str:
    plain = {name.lower().replace("_", ""): name for name in known}
    close = difflib.get_close_matches(word.lower().replace("_", ""), plain, n=1, cutoff=cutoff)
    return f" (did you mean {plain[close[0]]}?)" if close else ""


@dataclass(frozen=True)
class ProjectConfig:
    """The sections of a config file, as read.

    Attributes
    ----------
    sections
        Name of each section and what stands under it, in the file's order.
    where
        Name of the file, for messages.
    """

    sections: dict[str, Any] = field(default_factory=dict)
    where: str = "config"

    def in_our_names(self, steps: Iterable[str]) -> ProjectConfig:
        """Put sections of ours in the places of scPortrait's whose work they do.

        Where the config has the section itself, or no such step is known, nothing changes.

        Parameters
        ----------
        steps
            Names of steps that can be set up.
        """
        steps, sections = list(steps), {}
        for name, values in self.sections.items():
            ours = INSTEAD.get(name)
            if ours is None or name in steps or ours not in steps or ours in self.sections:
                sections[name] = values
                continue
            logger.info(
                "%s: section %s: step %s does it, with its default settings; keys of the section "
                "are not needed",
                self.where,
                name,
                ours,
            )
            sections[ours] = None
        return ProjectConfig(sections, self.where)

    def check_known(self, steps: Iterable[str]) -> None:
        """Refuse a section whose name is a misspelt step; note those that belong to nobody here."""
        steps = list(steps)
        for name, values in self.sections.items():
            if name in steps or ":" in name:
                continue
            # Strict, since other packages' steps are named alike (TimecourseHDF5CellExtraction).
            if hint := _suggest(name, steps, cutoff=0.85):
                raise ConfigError(
                    f"{self.where}: unknown step {name}{hint}; known steps: {', '.join(steps)}"
                )
            kind = "section" if isinstance(values, (Mapping, list)) else "key"
            logger.info("%s: %s %s belongs to no step here; left alone", self.where, kind, name)


def load_config(source: Path | str | Mapping[str, Any]) -> ProjectConfig:
    """Read a config from a YAML file or a mapping.

    Raises
    ------
    ConfigError
        The file is missing or not YAML (the message holds the line), or not a mapping; or a
        mapping holds what YAML cannot.
    """
    if isinstance(source, Mapping):
        return ProjectConfig({str(key): _plain(part, str(key)) for key, part in source.items()})
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigError(
            f"config: expected the path of a YAML file or a mapping, got {type(source).__name__}"
        )
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the config file cannot be read: {error}") from error
    return ProjectConfig(parse_yaml(text, str(path)), str(path))


def _plain(value: Any, where: str) -> Any:
    """Turn a value of a mapping into what it is when read back from YAML."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, f"{where}[{number}]") for number, part in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(
        f"config: {where}: a {type(value).__name__} is not allowed: a config holds text, numbers, "
        "true, false, null, lists and mappings"
    )


def _refuse_twice(node: Any, where: str) -> None:
    """Refuse a mapping with a key given twice, where YAML would keep the last."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key.value, str):
            continue
        if key.value in seen:
            line = key.start_mark.line + 1
            raise ConfigError(f"{where}, line {line}: key {key.value} stands twice")
        seen.add(key.value)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Sections of a YAML text; a syntax error or a key that stands twice names its line."""
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that refuses a key given twice."""

        def compose_mapping_node(self, anchor: Any) -> Any:
            # Here, not where it is constructed: merged keys (<<) may be given again.
            node = super().compose_mapping_node(anchor)
            _refuse_twice(node, where)
            return node

    try:
        content = yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{where}{place}: not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{where}, line {line}: not valid YAML: character {chr(int(error.character))!r}"
        ) from None
    except ConfigError:
        raise
    except ValueError as error:  # what looks like a date or a number and is none
        raise ConfigError(f"{where}: not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{where}: expected sections (one name of a step a section), "
            f"got {type(content).__name__}"
        )
    return {str(key): value for key, value in content.items()}
