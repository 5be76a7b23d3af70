"""Every exception of the package pickles both ways: one that does not breaks a pool of workers."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import tblib.pickling_support

from scportrait_like import errors

# Dask brings it: it changes how every exception is pickled.
tblib.pickling_support.install()

ALL = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, errors.ScportraitLikeError)
]
# Details that the package gives, and names that built-in exceptions use for something of their own.
DETAILS: list[dict[str, Any]] = [
    {},
    {"units": ("tile-000001",), "changes": ("a: 1 -> 2",)},
    {"path": "/some/where", "name": "cells"},
]


def raise_it(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("details", DETAILS, ids=lambda d: "-".join(d) or "plain")
def test_pickles(cls: type[Exception], details: dict[str, Any]) -> None:
    error = cls("mask x: 'quoted' and\nof two lines", **details)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        for back in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
            assert type(back) is cls
            assert str(back) == str(error) == "mask x: 'quoted' and\nof two lines"
            assert back.args == error.args
            assert all(getattr(back, key) == value for key, value in details.items())


@pytest.fixture(scope="module")
def pool() -> Any:
    from loky.process_executor import ProcessPoolExecutor

    pool = ProcessPoolExecutor(1)
    yield pool
    pool.shutdown(kill_workers=True)


@pytest.mark.parametrize("cls", ALL)
def test_through_a_worker(pool: Any, cls: type[Exception]) -> None:
    details = DETAILS[1]
    with pytest.raises(cls, match="as it was") as caught:
        pool.submit(raise_it, cls("as it was", **details)).result()
    assert type(caught.value) is cls
    assert all(getattr(caught.value, key) == value for key, value in details.items())


def test_families() -> None:
    assert issubclass(errors.ShapeError, ValueError)
    assert issubclass(errors.ShapeError, AssertionError)
    assert issubclass(errors.DiskFullError, OSError)
    assert issubclass(errors.MissingInputError, KeyError)
    assert issubclass(errors.WorkerDiedError, errors.RunError)


def test_the_tree_in_the_docstring() -> None:
    """It names every class once, with its base among the built-in ones."""
    lines = [line for line in (errors.__doc__ or "").splitlines() if "──" in line]
    drawn = {line.split("── ")[1].split()[0].split("(")[0] for line in lines}
    assert drawn == {cls.__name__ for cls in ALL} - {"ScportraitLikeError"}
