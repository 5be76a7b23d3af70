"""The exceptions of the package.

::

    ScportraitLikeError
    ├── ConfigError(ValueError)             a config file, section, key or value is wrong
    ├── InputError(ValueError)              an image, mask or argument is wrong
    │   └── ShapeError(AssertionError)      shapes do not fit each other
    ├── MissingExtraError(ImportError)      an optional dependency is absent
    ├── ProjectError                        the project folder
    │   ├── ProjectLockedError              another process works in it
    │   ├── ElementExistsError              replacing needs overwrite=True
    │   ├── MissingInputError(KeyError)     an element or a prerequisite is not there
    │   └── StoreError                      the SpatialData store cannot be read or written
    └── RunError                            a run
        ├── StaleRunError                   what lies there was made from other inputs
        ├── IncompleteOutputError           an output is cut short
        ├── WorkerDiedError                 a worker process was killed; ``units`` were in its hands
        ├── ModelError                      a model failed, or gave something else than it should
        ├── DiskFullError(OSError)          no space left
        └── MemoryBudgetError(MemoryError)  the granted memory cannot hold the least that is needed

Each takes one message, and keyword details that become attributes; all of them pickle in both
directions, since a worker's exception that does not would break its pool.
"""

from __future__ import annotations

from errno import ENOSPC
from typing import Any


class ScportraitLikeError(Exception):
    """Base of all exceptions of this package.

    Parameters
    ----------
    message
        What is wrong, where, and what to do.
    **details
        Kept as attributes of the same name.
    """

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message)
        # In __dict__ they are pickled; but OSError and ImportError read some from elsewhere.
        self.__dict__.update(details)
        for name, value in details.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # tblib, which dask installs, rebuilds an exception that lacks this by a __new__ that
        # Python refuses for MemoryError.
        return type(self), self.args, self.__dict__

    def __str__(self) -> str:
        # KeyError would show the repr of its message.
        return str(self.args[0]) if self.args else ""


class ConfigError(ScportraitLikeError, ValueError):
    """A config file, section, key or value is wrong."""


class InputError(ScportraitLikeError, ValueError):
    """An image, a mask or an argument is wrong."""


class ShapeError(InputError, AssertionError):
    """Shapes do not fit each other."""


class MissingExtraError(ScportraitLikeError, ImportError):
    """An optional dependency is absent; the message names the extra that brings it."""


class ProjectError(ScportraitLikeError):
    """Something about the project folder."""


class ProjectLockedError(ProjectError):
    """Another process works in the project folder."""


class ElementExistsError(ProjectError):
    """What is there differs, and replacing it needs ``overwrite=True``."""


class MissingInputError(ProjectError, KeyError):
    """An element or a prerequisite is not there; the message names the call that makes it."""


class StoreError(ProjectError):
    """The SpatialData store cannot be read or written."""


class RunError(ScportraitLikeError):
    """A run failed."""


class StaleRunError(RunError):
    """What lies there was made from other inputs; ``changes`` lists what differs."""

    changes: tuple[str, ...] = ()


class IncompleteOutputError(RunError):
    """An output is cut short or was never finished."""


class WorkerDiedError(RunError):
    """A worker process was killed; ``units`` were started and not finished."""

    units: tuple[str, ...] = ()


class ModelError(RunError):
    """A model failed on a batch, or what it returned does not fit."""


class DiskFullError(RunError, OSError):
    """No space left on the device."""

    errno = ENOSPC


class MemoryBudgetError(RunError, MemoryError):
    """The granted memory cannot hold the least that is needed."""
