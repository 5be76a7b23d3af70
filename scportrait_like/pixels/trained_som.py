"""A trained self-organising map: what remains of a training, and its JSON file."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError, MissingInputError, ModelError
from scportrait_like.pixels.prepared import Percentiles, Preparation, check_known
from scportrait_like.run.durable import write_json

if TYPE_CHECKING:
    import pandas as pd

FORMAT: Final = "scportrait-like self-organising map"
VERSION: Final = 1

# Models of flowsom whose `predict` gives a code that is nearest in the Euclidean distance; which
# one of several at (nearly) the same distance is theirs to say.
EUCLIDEAN: Final = frozenset(
    {
        "flowsom.models.som_estimator:SOMEstimator",
        "flowsom.models.batch.som_estimator:BatchSOMEstimator",
    }
)

_MAPPINGS: Final = ("parameters", "settings", "versions", "sample")

# Rows that `predict` sees at once: flowsom makes a matrix of rows x nodes.
_ROWS: Final = 1 << 16

# flowsom's models change themselves while they predict, and numba's own pool of threads ends the
# process when two threads ask it at once.
numba_lock: Final = threading.RLock()


@dataclass(frozen=True)
class TrainedSom:
    """A self-organising map whose nodes are grouped to metaclusters.

    Attributes
    ----------
    channels
        Names (c,), in the order of the columns of `codes`.
    codes
        (K, c) float64: the nodes; node ``x * ydim + y`` lies at (x, y) of the grid.
    metaclusters
        (K,) int64, from 1: the metacluster of each node.
    xdim, ydim
        Edges of the grid; ``K == xdim * ydim``.
    cluster_model
        What assigns rows to nodes, as ``"module:Class"``.
    estimator
        flowsom's estimator around it, as ``"module:Class"``.
    parameters
        Plain parameters of the cluster model, JSON.
    settings
        What it was trained with, JSON.
    versions
        Of the packages that trained it.
    sample
        How many pixels were there and how many were drawn, JSON; see
        `scportrait_like.pixels.sampling.Sample.counts`.
    preparation, percentiles
        How the pixels were prepared, JSON; None: they were taken as they are.
    cluster_class
        The class itself, pickled by value, where it cannot be imported by its name elsewhere. It
        stays within a run and is not saved.
    """

    channels: tuple[str, ...]
    codes: NDArray[np.float64]
    metaclusters: NDArray[np.int64]
    xdim: int
    ydim: int
    cluster_model: str
    estimator: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    sample: Mapping[str, Any] = field(default_factory=dict)
    preparation: Mapping[str, Any] | None = None
    percentiles: Mapping[str, Any] | None = None
    cluster_class: bytes | None = None

    @property
    def n_nodes(self) -> int:
        """Clusters: nodes of the grid."""
        return len(self.codes)

    @property
    def n_metaclusters(self) -> int:
        """The highest metacluster."""
        return int(self.metaclusters.max())

    @property
    def is_euclidean(self) -> bool:
        """Whether a row belongs to the code that is nearest in the Euclidean distance."""
        return self.cluster_model in EUCLIDEAN

    @property
    def mapping(self) -> pd.Series[int]:
        """Metacluster of each cluster: a Series "metaclustering", index and values from 1."""
        import pandas as pd

        index = np.arange(1, self.n_nodes + 1)
        return pd.Series(self.metaclusters, index=index, name="metaclustering", dtype=np.int64)

    def prepared_by(self) -> tuple[Preparation | None, Percentiles | None]:
        """How pixels are prepared for it, and by which percentiles; None: they are as they are.

        Raises
        ------
        InputError
            They do not belong together, or not to the channels.
        """
        if self.preparation is None:
            if self.percentiles is not None:
                raise InputError("it has percentiles, but no preparation that they are of")
            return None, None
        how = Preparation.from_json(self.preparation)
        if self.percentiles is None:
            known = Percentiles(None, None, None)
        else:
            known = Percentiles.from_json(self.percentiles)
        check_known(how, known, len(self.channels))
        return how, known

    def predict(self, rows: NDArray[np.float64]) -> NDArray[np.int64]:
        """Ask the cluster model itself.

        Parameters
        ----------
        rows
            (m, c) float64, finite.

        Returns
        -------
        ndarray
            (m,) int64: nodes, from 0.

        Raises
        ------
        ModelError
            The cluster model cannot be built, or gives something else than nodes.
        """
        rows = np.ascontiguousarray(rows, np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self.channels):
            raise InputError(
                f"rows must have the shape (m, {len(self.channels)}), one column a channel, "
                f"not {rows.shape}"
            )
        found = np.empty(len(rows), np.int64)
        with numba_lock:
            model = self._model()
            for first in range(0, len(rows), _ROWS):
                part = slice(first, first + _ROWS)
                found[part] = model.predict(rows[part])
        if len(found) and (found.min() < 0 or found.max() >= self.n_nodes):
            raise ModelError(
                f"{self.cluster_model} gave clusters {found.min()} to {found.max()}; the map has "
                f"the nodes 0 to {self.n_nodes - 1}"
            )
        return found

    def _model(self) -> Any:
        """Build the cluster model of the codes; the same object each time."""
        if "_built" not in self.__dict__:
            if self.cluster_class is not None:
                import cloudpickle

                kind = cloudpickle.loads(self.cluster_class)
            else:
                kind = _class_named(self.cluster_model)
            model = kind(**self.parameters)
            model.codes = self.codes.copy()
            model._is_fitted = True
            self.__dict__["_built"] = model
        return self.__dict__["_built"]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_built"}

    def as_json(self) -> dict[str, Any]:
        """Return all of it but `cluster_class` as plain JSON; floats keep every bit."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "channels": list(self.channels),
            "xdim": self.xdim,
            "ydim": self.ydim,
            "codes": self.codes.tolist(),
            "metaclusters": self.metaclusters.tolist(),
            "cluster_model": self.cluster_model,
            "estimator": self.estimator,
            "parameters": dict(self.parameters),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "sample": dict(self.sample),
            "preparation": None if self.preparation is None else dict(self.preparation),
            "percentiles": None if self.percentiles is None else dict(self.percentiles),
        }

    @classmethod
    def of_json(
        cls, content: Any, where: str = "the map", cluster_class: bytes | None = None
    ) -> TrainedSom:
        """Make it of what `as_json` returned, and the class that is not saved.

        Raises
        ------
        InputError
            It is something else, of a later version, or parts are missing or do not fit.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(
                f"{where} is not a self-organising map that this package saved; give the "
                "model.json of a project's pixel clustering"
            )
        if content.get("version") != VERSION:
            raise InputError(
                f"{where} has the format version {content.get('version')}, this package reads "
                f"{VERSION}: it was saved by another version of the package"
            )
        names = ("xdim", "ydim", "cluster_model", "estimator", "preparation", "percentiles")
        try:
            parts: dict[str, Any] = {name: content[name] for name in names}
            parts |= {name: dict(content[name]) for name in _MAPPINGS}
            parts["channels"] = tuple(content["channels"])
            parts["codes"] = np.array(content["codes"], np.float64)
            parts["metaclusters"] = np.array(content["metaclusters"], np.int64)
        except KeyError as error:
            raise InputError(f"{where} is damaged: it has no {error}") from None
        except (TypeError, ValueError) as error:
            raise InputError(f"{where} is damaged: {error}") from None
        found = cls(**parts, cluster_class=cluster_class)
        found._check(where)
        return found

    def save(self, path: Path | str) -> None:
        """Write one JSON file, whole or not at all."""
        write_json(Path(path), self.as_json())

    @classmethod
    def load(cls, path: Path | str) -> TrainedSom:
        """Read the file that `save` wrote.

        Raises
        ------
        MissingInputError
            There is no such file.
        InputError
            It is no JSON, or not a saved map, or damaged.
        """
        try:
            content = json.loads(Path(path).read_bytes())
        except (FileNotFoundError, IsADirectoryError):
            raise MissingInputError(f"there is no file {path} with a saved map") from None
        except ValueError as error:
            raise InputError(f"{path} is not a saved map, or it is cut short: {error}") from None
        return cls.of_json(content, str(path))

    def _check(self, where: str) -> None:
        """Raise `InputError` if the parts do not fit each other."""
        edges: tuple[Any, ...] = (self.xdim, self.ydim)
        names: tuple[Any, ...] = (*self.channels, self.cluster_model, self.estimator)
        prepared: tuple[Any, ...] = (self.preparation, self.percentiles)
        faults = {
            "channels and classes are not all names": not all(
                isinstance(name, str) for name in names
            ),
            "channels are named twice": len(set(self.channels)) < len(self.channels),
            "xdim and ydim are not whole numbers above 0": not all(
                isinstance(edge, int) and edge > 0 for edge in edges
            ),
            "its preparation is not a mapping": not all(
                part is None or isinstance(part, dict) for part in prepared
            ),
        }
        for fault, is_so in faults.items():
            if is_so:
                raise InputError(f"{where} is damaged: {fault}")
        shape = (self.xdim * self.ydim, len(self.channels))
        if self.codes.shape != shape or self.metaclusters.shape != shape[:1]:
            raise InputError(
                f"{where} is damaged: a grid of {self.xdim} x {self.ydim} nodes and {shape[1]} "
                f"channels has codes of the shape {shape}, not {self.codes.shape}, and "
                f"{shape[0]} metaclusters, not {self.metaclusters.shape}"
            )
        if not np.isfinite(self.codes).all():
            raise InputError(f"{where} is damaged: its codes are not all finite numbers")
        if self.metaclusters.min() < 1:
            raise InputError(f"{where} is damaged: metaclusters count from 1")
        try:
            self.prepared_by()
        except InputError as error:
            raise InputError(f"{where} is damaged: {error}") from None


def name_of(kind: Any) -> str:
    """``"module:Class"`` of a class, or of a function."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _class_named(name: str) -> type:
    """Import a cluster model by its ``"module:Class"``."""
    from sklearn.base import BaseEstimator

    module, _, inner = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in inner.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(
            f"the map was trained with the cluster model {name}, which cannot be imported here "
            f"({error}); install the package that it is of, or train the map anew"
        ) from error
    # A file names it: nothing but a model is called.
    if not (isinstance(found, type) and issubclass(found, BaseEstimator)):
        raise ModelError(f"the saved map names {name} as its cluster model, which is none")
    return found
