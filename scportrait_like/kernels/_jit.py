"""The one door to numba: how every kernel of this package is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

# No fastmath: images are promised to the last bit. The numpy error model divides without a branch.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def jit(function: F) -> F:
    """Compile ``function`` on its first call, without the GIL, and keep it in numba's cache.

    Kernels that are used together stand in one file: numba looks only at a function's own file
    when it decides whether a cached version is stale.
    """
    return _compiled(function, {})


def jit_any_order(function: F) -> F:
    """Compile like `jit`, but let sums run in any order: several numbers at once, ten times faster.

    The order is the same in every run on a machine; on other machines last bits may differ.
    """
    return _compiled(function, {"fastmath": {"reassoc"}})


def _compiled(function: F, more: dict[str, Any]) -> F:
    options = {**_OPTIONS, **more}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no folder can be written for the cache: compile in each process
        return cast(F, numba.njit(**options)(function))
