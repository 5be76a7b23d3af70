"""What a self-organising map is trained with, checked before any work."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from scportrait_like.errors import InputError
from scportrait_like.pixels.trained_som import name_of

# flowsom's estimators by name.
ESTIMATORS: Final = {
    "default": "flowsom.models.flowsom_estimator:FlowSOMEstimator",
    "batch": "flowsom.models.batch_flowsom_estimator:BatchFlowSOMEstimator",
}

# What both of them take: to know it without an import that takes seconds.
_TAKEN: Final = frozenset(
    {
        *("rlen", "mst", "alpha", "mad_allowed"),
        *("init", "initf", "map", "codes", "importance"),
        *("K", "H", "resample_proportion", "linkage", "z_score", "z_cap", "cluster"),
    }
)
# flowsom makes a matrix of nodes x nodes in float64, and looks at every node for every pixel.
MOST_NODES: Final = 10_000

# What has a name of its own here, and what to use.
_OURS: Final = {
    "cols_to_use": "channels",
    "inp": "the image",
    "n_clusters": "n_clusters",
    "xdim": "xdim",
    "ydim": "ydim",
    "seed": "random_state",
    "model": "model",
}


@dataclass(frozen=True)
class SomSettings:
    """Settings of a map; small, and it pickles. Make it with `of`.

    Attributes
    ----------
    channels
        Names, in the order of the columns of a row.
    n_clusters
        Metaclusters.
    xdim, ydim
        Edges of the grid of nodes.
    seed
        Of all that is random in the training.
    estimator
        flowsom's estimator, as ``"module:Class"``.
    arguments
        More arguments for flowsom as plain JSON, as far as that can tell them.
    pickled
        Estimator (None: by its name) and arguments themselves; None: there are no more arguments.
    instance_key, region_key, spatial_key
        Names in the table of the sample that flowsom's object holds.
    """

    channels: tuple[str, ...]
    n_clusters: int
    xdim: int
    ydim: int
    seed: int
    estimator: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pickled: bytes | None = None
    instance_key: str = "cell_ID"
    region_key: str = "fov_labels"
    spatial_key: str = "spatial"

    @classmethod
    def of(
        cls,
        channels: Sequence[str],
        *,
        n_clusters: int = 5,
        xdim: int = 10,
        ydim: int = 10,
        seed: int = 100,
        model: str | type | None = None,
        arguments: Mapping[str, Any] | None = None,
        instance_key: str = "cell_ID",
        region_key: str = "fov_labels",
        spatial_key: str = "spatial",
    ) -> SomSettings:
        """Check settings.

        Parameters
        ----------
        channels
            Names.
        n_clusters, xdim, ydim, seed
            See the attributes.
        model
            A name of `ESTIMATORS`, a class, or None: flowsom's default.
        arguments
            More for ``flowsom.FlowSOM`` and, through it, the estimator's parts.
        instance_key, region_key, spatial_key
            See the attributes.

        Raises
        ------
        InputError
            Numbers out of their range, fewer nodes than metaclusters, an unknown estimator, an
            argument that flowsom does not take.
        """
        if not channels:
            raise InputError("a map needs one channel at least")
        numbers = {
            name: _whole(name, value, low, high)
            for name, value, low, high in (
                ("n_clusters", n_clusters, 1, 1 << 16),
                ("xdim", xdim, 1, MOST_NODES),
                ("ydim", ydim, 1, MOST_NODES),
                ("random_state", seed, 0, (1 << 32) - 1),
            )
        }
        if instance_key == region_key:
            raise InputError(
                f"instance_key and region_key need names of their own, not {region_key!r}"
            )
        seed = numbers.pop("random_state")
        _check_nodes(**numbers)
        given = dict(arguments or {})
        kind, estimator = _estimator(model)
        _check_arguments(given, kind, estimator, len(channels), numbers["xdim"] * numbers["ydim"])
        pickled = None
        if given or kind is not None:
            import cloudpickle

            pickled = cloudpickle.dumps((kind, given))
        described = {name: _plain(value) for name, value in sorted(given.items())}
        return cls(
            tuple(channels),
            **numbers,
            seed=seed,
            estimator=estimator,
            arguments=described,
            pickled=pickled,
            instance_key=instance_key,
            region_key=region_key,
            spatial_key=spatial_key,
        )

    def described(self) -> dict[str, Any]:
        """What determines the map, beside the sample, as plain JSON."""
        return {
            "n_clusters": self.n_clusters,
            "xdim": self.xdim,
            "ydim": self.ydim,
            "seed": self.seed,
            "estimator": self.estimator,
            "arguments": dict(self.arguments),
        }

    def unpacked(self) -> tuple[type, dict[str, Any]]:
        """Estimator and further arguments; flowsom is imported."""
        kind, arguments = None, {}
        if self.pickled is not None:
            import cloudpickle

            kind, arguments = cloudpickle.loads(self.pickled)
        return kind or _flowsom_estimator(self.estimator), arguments


def _whole(name: str, value: Any, low: int, high: int) -> int:
    """Return a whole number between two others."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise InputError(f"{name} must be a whole number, not {value!r}")
    if not low <= value <= high:
        raise InputError(f"{name} must be from {low} to {high}, not {value}")
    return int(value)


def _check_nodes(n_clusters: int, xdim: int, ydim: int) -> None:
    if xdim * ydim < 2:
        raise InputError("a map needs two nodes at least: raise xdim or ydim")
    if xdim * ydim > MOST_NODES:
        raise InputError(
            f"a map of {xdim} x {ydim} (xdim x ydim) has {xdim * ydim:,} nodes, and flowsom's "
            f"memory grows with their square: {MOST_NODES:,} are allowed"
        )
    if n_clusters > xdim * ydim:
        raise InputError(
            f"{n_clusters} metaclusters (n_clusters) cannot be made of {xdim * ydim} nodes "
            f"(xdim * ydim = {xdim} x {ydim}): lower n_clusters, or raise xdim and ydim"
        )


def _estimator(model: str | type | None) -> tuple[type | None, str]:
    """Class, where it is not one of flowsom's, and name of an estimator."""
    if model is None:
        return None, ESTIMATORS["default"]
    if isinstance(model, str):
        if model not in ESTIMATORS:
            raise InputError(f"the estimator is one of {', '.join(ESTIMATORS)}, not {model!r}")
        return None, ESTIMATORS[model]
    if not isinstance(model, type):
        raise InputError(
            f"model must be a class, such as flowsom.models.BatchFlowSOMEstimator, not {model!r}"
        )
    name = name_of(model)
    return (None if name in ESTIMATORS.values() else model), name


def _flowsom_estimator(name: str) -> type:
    import flowsom

    found: type = getattr(flowsom.models, name.partition(":")[2])
    return found


def _check_arguments(
    given: Mapping[str, Any], kind: type | None, estimator: str, n_channels: int, n_nodes: int
) -> None:
    """Raise `InputError` at the arguments that flowsom would not take, or would drop unseen."""
    for name in given:
        if name in _OURS:
            raise InputError(f"flowsom's argument {name} is not passed on: use {_OURS[name]}")
    if kind is None and given.get("mst", 1) != 1:
        raise InputError(
            f"mst={given['mst']!r} is not allowed: flowsom's estimators only train with mst=1, "
            "leave it out"
        )
    if kind is not None or not _TAKEN.issuperset(given):
        _check_names(given, kind or _flowsom_estimator(estimator))
    if given.get("importance") is not None:
        importance = np.asarray(given["importance"])
        fits = importance.shape == (n_channels,) and importance.dtype.kind in "iuf"
        if not fits or not np.isfinite(importance).all():
            raise InputError(
                f"importance must be {n_channels} finite numbers, one a channel, not "
                f"{given['importance']!r}"
            )
    if given.get("codes") is not None and np.shape(given["codes"]) != (n_nodes, n_channels):
        raise InputError(
            f"codes to begin with must have the shape ({n_nodes}, {n_channels}): nodes x channels, "
            f"not {np.shape(given['codes'])}"
        )


def _check_names(given: Mapping[str, Any], estimator: type) -> None:
    """Flowsom drops arguments that none of its parts knows; here they are refused."""
    import flowsom

    taken: set[str] = set()
    own = inspect.signature(estimator).parameters
    parts: list[Any] = [flowsom.FlowSOM, estimator]
    for part in ("cluster_model", "metacluster_model"):
        known = own.get(part)
        default = known.default if known is not None else inspect.Parameter.empty
        found = given.get(part, default)
        if found is inspect.Parameter.empty:
            return  # an estimator of another build: what it takes is its own
        parts.append(found)
    for part in parts:
        taken.update(inspect.signature(part).parameters)
    unknown = sorted(set(given) - (taken - {"kwargs"}))
    if unknown:
        known_names = ", ".join(sorted(taken - {"kwargs"} - set(_OURS)))
        raise InputError(f"flowsom does not know {', '.join(unknown)}; it takes {known_names}")


def _plain(value: Any) -> Any:
    """Value as plain JSON, or what tells it apart."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return name_of(value) if inspect.isroutine(value) or inspect.isclass(value) else repr(value)
