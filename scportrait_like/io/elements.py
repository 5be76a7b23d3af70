"""Elements of a SpatialData object: looked up, and placed in memory and in its store alike.

spatialdata's own ``write_element`` cannot replace an element of an open store, and a process killed
inside it leaves a store that cannot be read. So what is placed here is written beside the store and
renamed into it (`scportrait_like.filehandler`).
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scportrait_like import names
from scportrait_like.errors import ElementExistsError, InputError, MissingInputError, StoreError
from scportrait_like.filehandler import FileHandler, check_name
from scportrait_like.io import zarr_metadata as meta
from scportrait_like.io.twins import quiet_spatialdata
from scportrait_like.run.lock import project_lock

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from xarray import DataArray

logger = logging.getLogger(__name__)


def raster(sdata: SpatialData, name: str, kind: str | None = None) -> Any:
    """An image or labels element, single-scale or multi-scale.

    Parameters
    ----------
    sdata
        Where it is looked up.
    name
        Its name.
    kind
        ``images`` or ``labels``; None: either.

    Raises
    ------
    MissingInputError
        If there is no such element; the message lists those that are there.
    """
    kinds = meta.RASTERS if kind is None else (kind,)
    for group in kinds:
        if name in getattr(sdata, group):
            return getattr(sdata, group)[name]
    listed = (f"{group}: {', '.join(getattr(sdata, group)) or 'none'}" for group in meta.RASTERS)
    other = element_kind(sdata, name)
    found = f"{name!r} is one of its {other}, and " if other else ""
    raise MissingInputError(
        f"{found}the SpatialData object has no {' or '.join(kinds)} element {name!r}; it has "
        f"{'; '.join(listed)}.",
        name=name,
    )


def full_resolution(element: Any) -> DataArray:
    """The finest level of an image or labels element: ([c,] [z,] y, x)."""
    if not hasattr(element, "children"):
        return element  # type: ignore[no-any-return]
    finest: DataArray = next(iter(element["scale0"].data_vars.values()))
    return finest


def element_kind(sdata: SpatialData, name: str) -> str | None:
    """``images``, ``labels``, ``points``, ``shapes`` or ``tables``; None if it is not there."""
    return next((kind for kind, found, _ in sdata.gen_elements() if found == name), None)


def check_may_place(sdata: SpatialData, name: str, kind: str, overwrite: bool) -> None:
    """Refuse what `place_element` would refuse, before any work is done.

    Raises
    ------
    InputError
        If the name is none, or that of an element of another kind.
    ElementExistsError
        If an element is there, in memory or in the store, and may not be replaced.
    StoreError
        If the object's store is gone, or in an older format.
    """
    check_name(name)
    handler = _handler(sdata)
    here = {found: kind for kind, found, _ in sdata.gen_elements()}
    stored = handler.element_names() if handler is not None else {}
    for found, there in [*here.items(), *stored.items()]:
        if found.lower() == name.lower() and (found != name or there != kind):
            raise InputError(
                f"{name!r} cannot name one of the {kind}: {found!r} is one of the {there} of the "
                "SpatialData object or its store. Choose another name."
            )
    if overwrite or name not in here | stored:
        return
    message = f"the SpatialData object has {name!r} among its {kind}"
    if name not in here:
        message = (
            f"the store {sdata.path} has {name!r} among its {kind}, which the SpatialData object "
            "does not have; read the store again (spatialdata.read_zarr)"
        )
    raise ElementExistsError(f"{message}; overwrite=True replaces it.", name=name)


def place_element(sdata: SpatialData, name: str, element: Any, overwrite: bool) -> None:
    """Put an element into a SpatialData object and, where it is backed by a store, into that.

    In the store the element appears, or replaces another, in one step: a reader and a process that
    is killed see the old or the new one. An image or labels are in the object as they lie in the
    store, so what they were computed from can go. The other elements are not touched.

    Parameters
    ----------
    sdata
        Changed in place. A store that is not on a local disk is left to spatialdata, which cannot
        replace an element there.
    name
        The element's name.
    element
        As spatialdata's models have parsed it; lazy pixels are computed chunk by chunk.
    overwrite
        Whether an element of that name and kind may be replaced.

    Raises
    ------
    InputError, ElementExistsError, StoreError
        See `check_may_place`.
    ProjectLockedError
        The store is that of a project in which another process works.
    DiskFullError
        No space left; what was there is unharmed.
    """
    from spatialdata.models import get_model

    model = get_model(element).__name__
    kind = next(kind for kind in meta.KINDS if model.lower().startswith(kind.rstrip("s")))
    check_may_place(sdata, name, kind, overwrite)
    handler = _handler(sdata)
    if handler is not None:
        with _writing(handler, name):
            handler.write_element(name, element, overwrite=overwrite)
        element = _as_stored(handler.path, kind, name, element)
    with quiet_spatialdata():
        sdata[name] = element
        if handler is None and sdata.is_backed():
            _write_remote(sdata, name)


def _handler(sdata: SpatialData) -> FileHandler | None:
    """The door to an object's store; None without a store, or if that is not on a local disk."""
    if sdata.path is None or "://" in str(sdata.path):
        return None
    path = Path(sdata.path).absolute()
    handler = FileHandler(path.parent, path.name)
    root = meta.read_root(path)
    if root is None:
        raise StoreError(
            f"{path}, the store of the SpatialData object, is gone. Write the object again "
            "(sdata.write), or work in memory: sdata.path = None.",
            path=str(path),
        )
    if root["zarr_format"] != 3:
        raise StoreError(
            f"{path} is in an older format (zarr {root['zarr_format']}) that can be read only. "
            "Write the object to a new place (sdata.write), or work in memory: sdata.path = None.",
            path=str(path),
        )
    return handler


@contextmanager
def _writing(handler: FileHandler, name: str) -> Iterator[None]:
    """Be the only one who writes to a store, and repair what killed processes left in it.

    A project's store is under the project's lock. Any other one is locked by its own folder, which
    leaves nothing behind in places that are not ours; a second writer waits.
    """
    if handler.path.name == names.STORE:
        with project_lock(handler.directory, f"writing {name}"):
            handler.repair()
            yield
        return
    folder = os.open(handler.path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        handler.repair()
        yield
    finally:
        os.close(folder)


def _as_stored(path: Path, kind: str, name: str, element: Any) -> Any:
    """An element of pixels read back lazily; tables are in memory in any case."""
    if kind not in meta.RASTERS:
        return element
    import spatialdata

    with quiet_spatialdata():
        # That another element there is damaged is not this one's concern.
        return spatialdata.read_zarr(path, selection=(kind,), on_bad_files="warn")[name]


def _write_remote(sdata: SpatialData, name: str) -> None:
    try:
        sdata.write_element(name)
    except (ValueError, TypeError, OSError) as error:
        raise StoreError(
            f"{name!r} is in the SpatialData object, but could not be written to its store "
            f"{sdata.path}, which is not on a local disk: {error}. Write the object to a local "
            "folder (sdata.write), or work in memory: sdata.path = None.",
            path=str(sdata.path),
        ) from error
