"""The stage of a run that trains a self-organising map with flowsom.

flowsom is imported where it trains or where its own names must be looked up, and nowhere else: it
takes seconds.
"""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError, ModelError
from scportrait_like.pixels.images import PixelImage
from scportrait_like.pixels.sampling import Sample, sample_of, text_of
from scportrait_like.pixels.som_settings import SomSettings
from scportrait_like.pixels.stages import PixelTask, Stage
from scportrait_like.pixels.trained_som import EUCLIDEAN, TrainedSom, name_of, numba_lock
from scportrait_like.raster.reading import Reading
from scportrait_like.run.memory import release_freed
from scportrait_like.run.plan import Unit
from scportrait_like.run.unitfile import UnitWriter

if TYPE_CHECKING:
    import anndata as ad
    import flowsom

__all__ = [
    "TRAIN",
    "SomSettings",
    "Train",
    "check_sample",
    "coordinates",
    "flowsom_in",
    "sample_table",
    "train",
    "trained_in",
    "training_stage",
]

TRAIN: Final = "train"

# Rows on which a cluster model is compared with what is rebuilt of its codes.
_COMPARED: Final = 4096


def training_stage(settings: SomSettings, keep: bool = False) -> Stage:
    """Stage that trains on the sample that `sampling_stages` have drawn.

    Parameters
    ----------
    settings
        Of the map.
    keep
        Whether flowsom's own object is wanted too, for `flowsom_in`.
    """
    return Stage(TRAIN, Train(settings, keep), tiled=False)


@dataclass(frozen=True)
class Train:
    """The work of the stage; leaves ``map``, and with `keep` also ``flowsom``."""

    settings: SomSettings
    keep: bool

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Train."""
        release_freed()  # what the tiles were read into
        sample = sample_of(task)
        reading.check()
        reading.lap("sample")
        trained, found = train(sample, self.settings, task.images)
        reading.lap("train")
        out.put("map", _bytes(json.dumps(trained.as_json()).encode()))
        if trained.cluster_class is not None:
            out.put("class", _bytes(trained.cluster_class))
        if self.keep:
            out.put("flowsom", _bytes(_packed(found)))
        # Else assignment, which holds whole tiles, would stand on top of what training took.
        del sample, found
        gc.collect()
        release_freed()


def trained_in(task: PixelTask) -> TrainedSom:
    """Map that the stage has left; what the pixels were prepared with is for the caller to add."""
    left = task.left(TRAIN)
    kind = left["class"].tobytes() if "class" in left else None
    return TrainedSom.of_json(json.loads(text_of(left["map"])), cluster_class=kind)


def flowsom_in(task: PixelTask) -> flowsom.FlowSOM:
    """Return flowsom's own object, where the stage was asked to keep it."""
    return _unpacked(task.left(TRAIN)["flowsom"].tobytes())


def train(
    sample: Sample, settings: SomSettings, images: Sequence[PixelImage]
) -> tuple[TrainedSom, flowsom.FlowSOM]:
    """Train a map.

    Parameters
    ----------
    sample
        Its rows are trained on as they are, in their order.
    settings
        Of the map.
    images
        That the sample is of, for their names and shapes.

    Raises
    ------
    InputError
        The sample has fewer pixels than the map has nodes, or a channel with a single value.
    ModelError
        flowsom failed, or its cluster model is more than its codes.
    """
    check_sample(sample, settings)
    import flowsom

    estimator, arguments = settings.unpacked()
    table = sample_table(sample, settings, images)
    try:
        with _undisturbed(settings.seed):
            found = flowsom.FlowSOM(
                table,
                n_clusters=settings.n_clusters,
                model=estimator,
                xdim=settings.xdim,
                ydim=settings.ydim,
                seed=settings.seed,
                **arguments,
            )
    except Exception as error:
        raise ModelError(
            f"flowsom failed to train a map of {settings.xdim} x {settings.ydim} nodes on "
            f"{len(sample.rows)} pixels: {type(error).__name__}: {error}"
        ) from error
    return _trained(found, sample, settings), found


def check_sample(sample: Sample, settings: SomSettings) -> None:
    """Raise `InputError` if a map cannot be trained on a sample."""
    n_nodes = settings.xdim * settings.ydim
    if len(sample.rows) < n_nodes:
        raise InputError(
            f"{len(sample.rows)} pixels were sampled, fewer than the {n_nodes} nodes of a map of "
            f"{settings.xdim} x {settings.ydim}: raise fraction or max_samples, or lower xdim and "
            "ydim"
        )
    constant = sample.rows.min(axis=0) == sample.rows.max(axis=0)
    if constant.any():
        listed = ", ".join(
            f"{settings.channels[column]} ({sample.rows[0, column]:g})"
            for column in np.flatnonzero(constant)
        )
        raise InputError(
            f"these channels have a single value in all {len(sample.rows)} sampled pixels and tell "
            f"nothing apart: {listed}; leave them out: name the others in channels"
        )


def sample_table(sample: Sample, settings: SomSettings, images: Sequence[PixelImage]) -> ad.AnnData:
    """Sample as a table: X float64, where each pixel lies, its image, an id from 1."""
    import anndata as ad
    import pandas as pd

    names = [image.name for image in images]
    ids = np.arange(1, len(sample.rows) + 1)
    obs = pd.DataFrame(
        {
            settings.instance_key: ids,
            settings.region_key: pd.Categorical.from_codes(sample.image, pd.Index(names)),
        },
        index=ids.astype(str),
    )
    table = ad.AnnData(sample.rows, obs, pd.DataFrame(index=list(settings.channels)))
    table.obsm[settings.spatial_key] = coordinates(sample, images)
    return table


def coordinates(sample: Sample, images: Sequence[PixelImage]) -> NDArray[np.int64]:
    """Where sampled pixels lie: (n, 2 or 3), ([z,] y, x) in pixels; a plane's z is 0."""
    axes = max(len(image.shape) for image in images)
    found = np.zeros((len(sample.rows), axes), np.int64)
    for number, image in enumerate(images):
        mine = sample.image == number
        places = np.unravel_index(sample.position[mine], image.shape)
        found[mine, axes - len(places) :] = np.stack(places, axis=1)
    return found


def _trained(found: flowsom.FlowSOM, sample: Sample, settings: SomSettings) -> TrainedSom:
    """What remains of a training."""
    import cloudpickle

    codes = np.array(found.model.codes, np.float64)
    model = found.model.cluster_model
    kind = type(model)
    shape = (settings.xdim * settings.ydim, len(settings.channels))
    if codes.shape != shape or not np.isfinite(codes).all():
        raise ModelError(
            f"{name_of(kind)} gave codes of the shape {codes.shape}, or not all finite; "
            f"{shape} finite numbers were expected"
        )
    metaclusters = found.mudata["cluster_data"].obs["metaclustering"].to_numpy(np.int64) + 1
    trained = TrainedSom(
        settings.channels,
        codes,
        metaclusters,
        settings.xdim,
        settings.ydim,
        name_of(kind),
        name_of(type(found.model)),
        _plain_parameters(model),
        settings.described(),
        {name: version(name) for name in ("flowsom", "numpy", "numba", "scikit-learn")},
        sample.counts,
        cluster_class=None if name_of(kind) in EUCLIDEAN else cloudpickle.dumps(kind),
    )
    if not trained.is_euclidean:  # what flowsom's own two keep is known
        _check_rebuilt(trained, model, sample.rows)
    return trained


def _plain_parameters(model: Any) -> dict[str, Any]:
    """Parameters of a cluster model that JSON can keep; the codes are kept elsewhere."""
    plain = {}
    for name, value in model.get_params(deep=False).items():
        value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        if name == "codes":
            continue
        try:
            plain[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            continue
    return plain


def _check_rebuilt(trained: TrainedSom, model: Any, rows: NDArray[np.float64]) -> None:
    """Raise `ModelError` if a cluster model predicts by more than its codes and parameters."""
    import copy

    # As the rows that it was trained on lie: for others numba compiles the model anew.
    some = np.ascontiguousarray(rows[:: max(1, len(rows) // _COMPARED)])
    with numba_lock:
        wanted = copy.deepcopy(model).predict(some)
    try:
        found = trained.predict(some)
    except Exception as error:
        raise ModelError(
            f"the cluster model {trained.cluster_model} cannot be built of its codes and plain "
            f"parameters: {type(error).__name__}: {error}"
        ) from error
    if not np.array_equal(found, wanted):
        raise ModelError(
            f"the cluster model {trained.cluster_model} predicts by more than its codes and plain "
            "parameters; only models that keep what they learned in `codes` can be applied"
        )


@contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """Let flowsom train alone, leave numpy's own random numbers as they were, and be quiet."""
    from loguru import logger

    with numba_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        state = np.random.get_state()  # noqa: NPY002 - flowsom seeds it
        # Models that take no seed of their own draw from here.
        np.random.seed(seed)  # noqa: NPY002
        logger.disable("flowsom")
        try:
            yield
        finally:
            logger.enable("flowsom")
            np.random.set_state(state)  # noqa: NPY002


def _packed(found: flowsom.FlowSOM) -> bytes:
    """Pickle flowsom's object; a MuData does not pickle, its parts do."""
    import cloudpickle

    fields = {name: value for name, value in vars(found).items() if name != "mudata"}
    packed: bytes = cloudpickle.dumps((fields, dict(found.mudata.mod.items())))
    return packed


def _unpacked(packed: bytes) -> flowsom.FlowSOM:
    import anndata as ad
    import cloudpickle
    import flowsom
    from mudata import MuData

    fields, tables = cloudpickle.loads(packed)
    found: Any = object.__new__(flowsom.FlowSOM)
    vars(found).update(fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        found.mudata = MuData({name: ad.AnnData() for name in tables})
    for name, table in tables.items():
        found.mudata.mod[name] = table
    return found


def _bytes(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8)
