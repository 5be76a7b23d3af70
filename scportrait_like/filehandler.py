"""The one door to the project's SpatialData store.

Reading needs no lock and writes nothing. Writing replaces whole elements, each in one atomic step
(`scportrait_like.io.placement`); it is done by one process at a time, under the project's lock.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scportrait_like import names
from scportrait_like.errors import (
    ElementExistsError,
    InputError,
    MissingInputError,
    StoreError,
)
from scportrait_like.io import placement, store_update
from scportrait_like.io import zarr_metadata as meta
from scportrait_like.run.durable import disk_errors

if TYPE_CHECKING:
    import numpy as np
    import zarr
    from spatialdata import SpatialData

    from scportrait_like.io.pyramids import RasterWriter

logger = logging.getLogger(__name__)

# What spatialdata and its readers raise on a damaged element.
_READ_ERRORS: Final = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AssertionError,
    AttributeError,
)
_patching = threading.Lock()


class FileHandler:
    """Reads and writes the elements of a project's SpatialData store.

    Parameters
    ----------
    directory
        The project's folder. Neither it nor the store need exist; nothing is created by opening.
    store
        The store's name within it, where it is not a project's.

    Attributes
    ----------
    path
        The store.
    """

    def __init__(self, directory: str | os.PathLike[str], store: str = names.STORE) -> None:
        self.directory = Path(directory)
        self.path = self.directory / store
        self._sdata: SpatialData | None = None
        self._sdata_stamp: tuple[int, int] | None = None

    # Reading, from the JSON files only

    def element_names(self) -> dict[str, str]:
        """The elements that are complete: name to kind (``images``, ``labels``, ``points``, ...).

        Raises
        ------
        StoreError
            If something else than a SpatialData store lies there.
        """
        return meta.element_kinds(self.path) if meta.read_root(self.path) else {}

    def __contains__(self, name: object) -> bool:
        return name in self.element_names()

    def element_path(self, name: str) -> Path:
        """The folder of an element.

        Raises
        ------
        MissingInputError
            If there is no such element.
        """
        kinds = self.element_names()
        if name not in kinds:
            message = f"{self.path} has no element {name!r}; it has: {', '.join(kinds) or 'none'}."
            if placement.leftovers(self._target()):
                message += " A write is under way, or was interrupted: the next load repairs it."
            raise MissingInputError(message, name=name)
        return self.path / kinds[name] / name

    def metadata(self, name: str) -> meta.Json:
        """All attributes of an element's zarr group."""
        node = meta.read_node(self.element_path(name))
        attributes: meta.Json = node["attributes"] if node else {}
        return attributes

    def attributes(self, name: str) -> meta.Json:
        """Our own attributes of an element, as given when it was written; else empty."""
        return dict(self.metadata(name).get(names.ATTRS_KEY, {}))

    def revision(self, name: str) -> str | None:
        """The revision given to an element when it was written; None for foreign elements."""
        return self.attributes(name).get(names.REVISION)

    def level_paths(self, name: str) -> list[Path]:
        """The zarr arrays of a raster element, finest first."""
        folder = self.element_path(name)
        paths = meta.dataset_paths(self.metadata(name))
        if not paths:
            raise InputError(f"{folder} is not a raster element: {folder.parent.name}.")
        return [folder / path for path in paths]

    def array_path(self, name: str) -> Path:
        """The zarr array of a raster element's finest level."""
        return self.level_paths(name)[0]

    def open_array(self, name: str, level: int = 0) -> zarr.Array[Any]:
        """Open a level of a raster element for reading: (c, [z,] y, x) or ([z,] y, x)."""
        import zarr

        return zarr.open_array(self.level_paths(name)[level], mode="r")

    def channel_names(self, name: str) -> list[str]:
        """The channel names of an image; numbers where it has none."""
        labels = meta.channel_labels(self.metadata(name))
        if labels is None:
            array = meta.read_node(self.array_path(name)) or {}
            labels = [str(channel) for channel in range(array["shape"][0])]
        return labels

    def transforms(self, name: str) -> dict[str, meta.Json]:
        """The encoded (NGFF) transformation to each coordinate system, by the system's name."""
        return meta.coordinate_transforms(self.metadata(name))

    # Reading, by spatialdata

    @property
    def sdata(self) -> SpatialData:
        """The store as spatialdata reads it; empty where there is none yet.

        Kept until the store changes. A store whose consolidated metadata are out of date (a
        process was killed) is read without them.

        Raises
        ------
        StoreError
            If it cannot be read.
        """
        stamp = self._stamp()
        if self._sdata is None or stamp != self._sdata_stamp:
            self._sdata, self._sdata_stamp = self._read(), stamp
        return self._sdata

    def _stamp(self) -> tuple[int, int] | None:
        """Changes with each change of the store: its root's zarr.json is replaced each time."""
        for file in ("zarr.json", ".zgroup"):
            try:
                found = (self.path / file).stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            return found.st_ino, found.st_mtime_ns
        return None

    def _read(self) -> SpatialData:
        import spatialdata

        from scportrait_like.io.twins import quiet_spatialdata

        root = meta.read_root(self.path)
        if root is None:
            return spatialdata.SpatialData()
        listed = meta.listed_elements(root)
        here = {f"{kind}/{name}" for name, kind in meta.element_kinds(self.path).items()}
        with quiet_spatialdata():
            try:
                if root["zarr_format"] == 2 or listed is None or listed == here:
                    return spatialdata.read_zarr(self.path)
                return _read_as_it_lies(self.path)
            except _READ_ERRORS as error:
                raise StoreError(
                    f"{self.path} cannot be read: {type(error).__name__}: {error}. Elements: "
                    f"{', '.join(sorted(here)) or 'none'}.",
                    path=str(self.path),
                ) from error

    # Writing

    def repair(self) -> list[str]:
        """Finish or clear what killed processes left; the caller holds the project's lock.

        Returns
        -------
        list of str
            What was done, for the log; empty if all was well.
        """
        target = self._target()
        with placement.write_errors(target):
            done = [f"removed {path}" for path in placement.clear_leftovers(target)]
            root = meta.read_root(target)
            ours = root is not None and root["zarr_format"] == 3
            if ours and store_update.outdated_lists(target):
                with placement.scratch_folder(target) as scratch:
                    store_update.sync_lists(target, scratch)
                done.append(f"brought the lists of elements in {target} up to date")
        for line in done:
            logger.info("Repair: %s", line)
        return done

    def write_element(
        self,
        name: str,
        element: Any,
        overwrite: bool = False,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an element (image, labels, points, shapes or table), as spatialdata writes it.

        Parameters
        ----------
        name
            The element's name.
        element
            What spatialdata takes: in memory or lazy.
        overwrite
            Whether an element of the same name and kind may be replaced.
        attributes
            Our own attributes, such as ``{"revision": ...}``.

        Raises
        ------
        ElementExistsError
            If it is there and may not be replaced.
        DiskFullError
            If no space is left; what was there is unharmed.
        """
        from scportrait_like.io.twins import write_store

        self.check_may_write(name, None, overwrite)
        with self._scratch() as scratch:
            kind = write_store(scratch / "store", name, element)
            self.check_may_write(name, kind, overwrite)
            self._place(scratch, kind, name, attributes)

    @contextmanager
    def raster_writer(
        self,
        name: str,
        kind: str,
        shape: Sequence[int],
        dtype: np.typing.DTypeLike,
        *,
        chunks: Sequence[int] | None = None,
        channel_names: Sequence[str] | None = None,
        transforms: Mapping[str, Any] | None = None,
        pyramid: bool = True,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> Iterator[RasterWriter]:
        """Write an image or labels of any size by chunks, in bounded memory.

        On a clean exit the element appears in the store (its pyramid is built then, unless
        `RasterWriter.build_pyramid` was called); on an exception nothing is left.

        Parameters
        ----------
        name
            The element's name.
        kind, shape, dtype, chunks, channel_names, pyramid
            See `scportrait_like.io.pyramids.plan_raster`.
        transforms
            A spatialdata transformation for each coordinate system; None is Identity to "global".
        attributes, overwrite
            As in `write_element`.

        Raises
        ------
        InputError, ElementExistsError, DiskFullError
        """
        from scportrait_like.io.pyramids import plan_raster
        from scportrait_like.io.twins import write_twin

        plan = plan_raster(kind, shape, dtype, chunks, channel_names, pyramid)
        self.check_may_write(name, kind, overwrite)
        with self._scratch() as scratch:
            writer = write_twin(scratch / "store", name, plan, transforms)
            yield writer
            writer.finish()
            self.check_may_write(name, kind, overwrite)
            self._place(scratch, kind, name, attributes)

    def delete_element(self, name: str) -> None:
        """Remove an element.

        Raises
        ------
        MissingInputError
            If there is no such element.
        """
        kind = self.element_path(name).parent.name
        target = self._target()
        self._check_format(target)
        with placement.write_errors(target), placement.scratch_folder(target) as scratch:
            store_update.remove_element(scratch, target, kind, name)
        self._sdata = None

    def _target(self) -> Path:
        """The store itself, where the project's folder holds a link to it."""
        return Path(os.path.realpath(self.path))

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A scratch folder beside the store; what the block raises on a full disk is explained.

        The block may fail to read files of the user's, which is not ours to explain.
        """
        target = self._target()
        with disk_errors(self.path), ExitStack() as stack:
            with placement.write_errors(self.path):
                scratch = stack.enter_context(placement.scratch_folder(target))
            yield scratch

    def _place(
        self, scratch: Path, kind: str, name: str, attributes: Mapping[str, Any] | None
    ) -> None:
        store, target = scratch / "store", self._target()
        with placement.write_errors(self.path):
            store_update.place_element(scratch, store, target, kind, name, attributes or {})
        self._sdata = None

    def check_may_write(self, name: str, kind: str | None, overwrite: bool) -> None:
        """Refuse names that spatialdata refuses, and to replace what may not be replaced.

        Raises
        ------
        InputError, ElementExistsError, StoreError
        """
        check_name(name)
        self._check_format(self.path)
        for other, there in self.element_names().items():
            if other != name and other.lower() == name.lower():
                raise InputError(f"Element {name!r} differs from {other!r} in upper case only.")
            if other == name and kind not in (None, there):
                raise InputError(f"{name!r} names one of the {there}: choose another name.")
            if other == name and not overwrite:
                raise ElementExistsError(
                    f"{self.path} has an element {name!r} ({there}); pass overwrite=True to "
                    "replace it.",
                    name=name,
                )

    @staticmethod
    def _check_format(store: Path) -> None:
        root = meta.read_root(store)
        if root is not None and root["zarr_format"] != 3:
            raise StoreError(
                f"{store} is in an older format (zarr {root['zarr_format']}) that can be read "
                "only. Convert it: spatialdata.read_zarr(old).write(new)."
            )


def check_name(name: str) -> None:
    """Refuse element names that spatialdata refuses, and those that readers would not see.

    Raises
    ------
    InputError
        If the name is not made of letters, digits, "_", "-" and ".", or starts with "__" or ".".
    """
    allowed = bool(name) and all(char.isalnum() or char in "_-." for char in name)
    if not allowed or name.startswith(("__", ".")):
        raise InputError(
            f"{name!r} cannot name an element: only letters, digits, '_', '-' and '.', and no "
            "'__' or '.' at the start."
        )


def _read_as_it_lies(path: Path) -> SpatialData:
    """Read a store without its consolidated metadata, leaving out what cannot be read."""
    from unittest.mock import patch

    import spatialdata
    from zarr.storage import LocalStore

    # spatialdata has no argument for it. Should another thread open a store meanwhile, it reads
    # without consolidated metadata too, which costs it nothing but time.
    with (
        _patching,
        patch.object(LocalStore, "supports_consolidated_metadata", False),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        sdata = spatialdata.read_zarr(path, on_bad_files="warn")
    kinds = tuple(f"{kind}/" for kind in meta.KINDS)
    for warning in caught:
        if str(warning.message).startswith(kinds):
            logger.warning("%s: an element cannot be read: %s", path, warning.message)
    return sdata
