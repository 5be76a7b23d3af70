"""Models called on batches, and what they return checked."""

from __future__ import annotations

import sysconfig
import traceback
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scportrait_like.errors import ModelError, ScportraitLikeError
from scportrait_like.models import _loading
from scportrait_like.models._adapters import Model
from scportrait_like.models._spec import ModelSpec

# Where others' code lies.
_INSTALLED: Final = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")})


def embed(
    model: ModelSpec,
    batch: NDArray[Any],
    mask: NDArray[Any] | None,
    ids: NDArray[Any],
    dimension: int,
    dtype: DTypeLike = "float32",
) -> NDArray[Any]:
    """Call a model on a batch of windows, and check what it returns.

    A model on a GPU is called in one thread of the process, whichever thread this is.

    Parameters
    ----------
    model
        It is loaded if this process has not done so.
    batch : (b, c, z, y, x)
    mask : (b, m, z, y, x) bool
        Needed if the model wants it.
    ids : (b,)
        Of the cells, for messages.
    dimension
        Numbers that it must give a window, d.
    dtype
        Of the result.

    Returns
    -------
    (b, d), a copy of its own.

    Raises
    ------
    ModelError
        The model raised something, or returned another shape, no numbers, NaN or infinity.
    """

    def work() -> NDArray[Any]:
        loaded = _load(model)
        more = {"mask": mask} if model.wants_mask else {}
        try:
            return np.asarray(loaded(batch, embedding_dimension=dimension, **more))
        except Exception as error:
            raise ModelError(
                f"{_which(model, ids)}: it failed on windows {batch.shape} of {batch.dtype}"
                f"{_place(error)}: {type(error).__name__}: {error}"
            ) from error

    found = _loading.gpu_thread.call(work) if model.on_gpu else work()
    return _checked(found, model, ids, dimension, np.dtype(dtype))


def _load(model: ModelSpec) -> Model:
    try:
        return model.load()
    except ScportraitLikeError:
        raise
    except Exception as error:
        raise ModelError(
            f"model {model.name}: it cannot be loaded{_place(error)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _checked(
    found: NDArray[Any], model: ModelSpec, ids: NDArray[Any], dimension: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    wanted = (len(ids), dimension)
    if found.shape != wanted:
        raise ModelError(
            f"{_which(model, ids)}: it returned the shape {found.shape}, wanted is {wanted} = "
            "(windows, embedding_dimension)"
        )
    if found.dtype.kind not in "biuf":
        raise ModelError(
            f"{_which(model, ids)}: it returned {found.dtype}, wanted are real numbers ({dtype})"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        cast = found.astype(dtype)  # always a copy: it may be a view of the batch
    if dtype.kind != "f" or not model.may_be_nan:
        _check_finite(found, "NaN or infinity", model, ids)
        _check_finite(cast, f"values that are infinite as {dtype}", model, ids)
    return cast


def _check_finite(found: NDArray[Any], what: str, model: ModelSpec, ids: NDArray[Any]) -> None:
    if found.dtype.kind != "f":
        return
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        first = ", ".join(str(label) for label in ids[bad[:5]].tolist())
        raise ModelError(
            f"{_which(model, ids)}: it returned {what} in {len(bad)} of {len(ids)} rows "
            f"(instances {first}{', ...' * (len(bad) > 5)}); it must return finite numbers (see "
            "np.nan_to_num)"
        )


def _which(model: ModelSpec, ids: NDArray[Any]) -> str:
    if not len(ids):
        return f"model {model.name}, a batch without instances"
    return f"model {model.name}, batch of {len(ids)} instances ({ids[0]} to {ids[-1]})"


def _place(error: BaseException) -> str:
    """Where an exception arose, if not here: in the user's code, if it came through that."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    if not frames:
        return ""
    own = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)]
    place = (own or frames)[-1]
    return f" ({place.filename}:{place.lineno})"
