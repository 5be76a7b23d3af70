"""Functions as models: looked up by name, their parameters checked before any work."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from scportrait_like.errors import ConfigError, InputError
from scportrait_like.identity import digest
from scportrait_like.models._adapters import Model

# What stood in the file when the code of a function, or a class, was first looked at; by its id,
# which is its own as long as it is kept here. Each import makes new ones.
_first_texts: dict[int, tuple[Any, str]] = {}
# What a model is called with, and no kwarg of the user's can be.
_OURS = ("batch", "mask", "embedding_dimension")


@dataclass(frozen=True)
class FunctionModel:
    """A function of the user's: an `Adapter`.

    Attributes
    ----------
    name
        ``module:function``, or the function's own name.
    function
        It, or None: it is imported by name.
    kwargs
        For each call.
    dimension
        The default of its ``embedding_dimension``, if that is a number.
    wants_mask
        Whether it has a parameter ``mask``.
    identity
        Name, kwargs, and the content of the module's file.
    """

    name: str
    function: Callable[..., Any] | None
    kwargs: Mapping[str, Any] = field(repr=False)
    dimension: int | None
    wants_mask: bool
    identity: str
    on_gpu: bool = False

    @classmethod
    def of(cls, given: Callable[..., Any] | str, kwargs: Mapping[str, Any]) -> FunctionModel:
        """Look at a function, or at the one of this name.

        Raises
        ------
        ConfigError
            There is no such module or function.
        InputError
            It cannot be called as models are.
        """
        if isinstance(given, str):
            name, function, kept = given, import_function(given), None
        else:
            name, function, kept = name_of(given), given, given
        parameters = parameters_of(function, name)
        check_parameters(parameters, kwargs, name)
        default = getattr(parameters.get("embedding_dimension"), "default", None)
        texts = [_text_of(_inner(function))]
        if isinstance(given, str):
            _refuse_edited(function, texts[0], name)
            texts.append(_text_of(sys.modules[given.partition(":")[0]]))
        return cls(
            name,
            kept,
            dict(kwargs),
            default if isinstance(default, int) else None,
            "mask" in parameters,
            digest(name, kwargs, texts),
        )

    def load(self) -> Model:
        """Return the function, with its kwargs."""
        function = import_function(self.name) if self.function is None else self.function
        return partial(function, **self.kwargs)


def import_function(place: str) -> Callable[..., Any]:
    """Import ``module:function``.

    Raises
    ------
    ConfigError
        There is no such module or function.
    """
    module, _, attribute = place.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise ConfigError(
            f"model {place!r}: the module {module!r} cannot be imported "
            f"({type(error).__name__}: {error}). A module beside the project or the config is not "
            "found by itself: install it, or name its folder in PYTHONPATH"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(
                f"model {place!r}: the module {module!r} has no {attribute!r}; write the model as "
                "module:function"
            )
        found = getattr(found, part)
    if not callable(found) or isinstance(found, type):
        kind = "a class" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise ConfigError(
            f"model {place!r} is {kind}, not a function that can be called on batches"
        )
    function: Callable[..., Any] = found
    return function


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called in messages."""
    inner = function.func if isinstance(function, partial) else function
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    module = getattr(inner, "__module__", None)
    return name if module in (None, "__main__", "builtins") else f"{module}.{name}"


Parameters = Mapping[str, inspect.Parameter]


def parameters_of(function: Callable[..., Any], name: str) -> Parameters:
    """Parameters of a function.

    Raises
    ------
    InputError
        It does not tell them, as some compiled ones.
    """
    if isinstance(function, type):
        raise InputError(f"model {name}: a function is needed, not a class")
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise InputError(
            f"model {name}: its parameters cannot be read; wrap it in a function of your own, "
            "def model(batch, embedding_dimension)"
        ) from error


def _takes_any(parameters: Parameters) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_parameters(parameters: Parameters, kwargs: Mapping[str, Any], name: str) -> None:
    """Check that a function takes a batch, ``embedding_dimension`` and the user's kwargs.

    Raises
    ------
    InputError
        It does not; the message names the function and its parameters.
    """
    taken = f"its parameters are ({', '.join(map(str, parameters.values()))})"
    first = next(iter(parameters.values()), None)
    by_position = (
        first is not None
        and first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD, first.VAR_POSITIONAL)
        and first.name not in ("mask", "embedding_dimension")
    )
    if first is None or not by_position:
        raise InputError(f"model {name}: its first parameter must be the batch of windows; {taken}")
    if not _by_name(parameters.get("embedding_dimension")) and not _takes_any(parameters):
        raise InputError(
            f"model {name}: it must have the parameter 'embedding_dimension', the numbers wanted a "
            f"window; {taken}"
        )
    own = {first.name, *_OURS}
    for key in kwargs:
        if key in own:
            raise InputError(f"model {name}: {key!r} cannot be among model_kwargs: it is given")
        if not _by_name(parameters.get(key)) and not _takes_any(parameters):
            raise InputError(f"model {name}: it takes no {key!r} of model_kwargs; {taken}")
    missing = [
        p.name
        for p in list(parameters.values())[1:]
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in {*kwargs, "mask", "embedding_dimension"}
    ]
    if missing:
        raise InputError(f"model {name}: give {', '.join(missing)} in model_kwargs; {taken}")


def _by_name(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and parameter.kind in (
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.KEYWORD_ONLY,
    )


def _inner(function: Callable[..., Any]) -> Any:
    """What has the code that runs: behind decorators and partials, or the class of an object."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, partial):
        inner = inspect.unwrap(inner.func)
    return inner if hasattr(inner, "__code__") else type(inner)


def _text_of(thing: Any) -> str | None:
    """Content of the file that something stands in; None where there is no file."""
    try:
        return Path(inspect.getfile(thing)).read_text(errors="replace")
    except (TypeError, OSError):
        return None


def _refuse_edited(function: Callable[..., Any], text: str | None, name: str) -> None:
    """Raise `ConfigError` if the file has changed since the import: the old code would run."""
    if text is None:
        return
    inner = _inner(function)
    code = getattr(inner, "__code__", None)
    anchor = inner if code is None else code
    _, first = _first_texts.setdefault(id(anchor), (anchor, text))
    loader = getattr(getattr(sys.modules.get(inner.__module__), "__spec__", None), "loader", None)
    try:
        # What an import hook has rewritten (jaxtyping's, pytest's) does not stand in the file.
        rewritten = type(loader) is not SourceFileLoader
        there = code is None or rewritten or code in _codes_of(text, code.co_filename)
    except (SyntaxError, ValueError):
        there = False
    if not there or first != text:
        raise ConfigError(
            f"model {name}: its file has changed since this process imported it, and the old code "
            "would run: start Python anew, or importlib.reload the module"
        )


def _codes_of(text: str, file: str) -> Iterator[CodeType]:
    """All functions' code in a module's text; equal if names, constants and lines are."""
    found = [compile(text, file, "exec", dont_inherit=True)]
    while found:
        code = found.pop()
        yield code
        found += [each for each in code.co_consts if isinstance(each, CodeType)]
