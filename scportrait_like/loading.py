"""Bringing inputs into a project: idempotent, and nothing replaced unless permitted."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from scportrait_like import names
from scportrait_like.errors import ElementExistsError, ShapeError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.copying import RasterInput, copy_raster, same_pixels
from scportrait_like.io.indexes import element_identity, labels_index, store_index
from scportrait_like.raster.index import CellIndex, check_labels
from scportrait_like.raster.sources import ZarrSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loader:
    """Loads inputs into one store; the caller holds the project's lock.

    Attributes
    ----------
    filehandler
        Of the project.
    budget
        Bytes for the process tree.
    overwrite
        Whether another input of the same name may be replaced.
    """

    filehandler: FileHandler
    budget: int
    overwrite: bool

    def image(self, name: str, given: RasterInput) -> bool:
        """Load an image; False where the same lies there."""
        if self._is_loaded(name, given):
            return False
        masks = [n for n in names.LABELS_OF_KIND.values() if n in self.filehandler]
        for mask in masks:
            self._check_shape(given, mask, given.source.shape[1:])
        copy_raster(self.filehandler, name, given, self.budget, self.overwrite)
        return True

    def labels(self, name: str, given: RasterInput, image: str = names.INPUT_IMAGE) -> bool:
        """Load a mask, its cell index and its centers; False where the same lies there."""
        check_labels(given.source.dtype, given.source.shape, given.what)
        fresh = not self._is_loaded(name, given)
        if fresh:
            if image in self.filehandler:
                self._check_shape(given, image, given.source.shape)
            index = copy_raster(self.filehandler, name, given, self.budget, self.overwrite)
            if index is not None:
                store_index(self.filehandler, name, index)
        self._centers(name)
        return fresh

    def raster(self, name: str, given: RasterInput) -> None:
        """Load an image or labels that no step of ours reads."""
        if not self._is_loaded(name, given):
            copy_raster(self.filehandler, name, given, self.budget, self.overwrite)

    def other(self, name: str, element: Any, identity: str) -> None:
        """Load an element that is no raster, as spatialdata writes it."""
        if name in self.filehandler:
            if self.filehandler.revision(name) == identity:
                logger.info("%s is loaded already; nothing to do", name)
                return
            if not self.overwrite:
                raise ElementExistsError(
                    f"{name} is in the project and differs from the one given; pass overwrite=True "
                    "to replace it, or keep_all=False to leave it out"
                )
        attributes = {names.REVISION: identity}
        self.filehandler.write_element(name, element, self.overwrite, attributes)

    def _is_loaded(self, name: str, given: RasterInput) -> bool:
        if name not in self.filehandler:
            return False
        if self.filehandler.revision(name) == given.revision:
            logger.info("%s: %s is loaded already; nothing to do", name, given.what)
            return True
        if self._holds(name, given):
            # A file that was copied or touched, or a dask graph whose names are drawn at random.
            logger.info("%s holds the pixels of %s already; nothing to do", name, given.what)
            return True
        if not self.overwrite:
            source = self.filehandler.attributes(name).get("source", "elsewhere")
            raise ElementExistsError(
                f"{name} of the project was loaded from {source}, and {given.what} differs from it "
                "(in its pixels, channel names or coordinate systems); pass overwrite=True to "
                "replace it"
            )
        return False

    def _holds(self, name: str, given: RasterInput) -> bool:
        """Whether what lies there has the same pixels, channel names and coordinate systems."""
        there = self.filehandler.attributes(name)
        if there.get("frame", given.frame) != given.frame:
            return False
        if given.is_image and self.filehandler.channel_names(name) != list(given.channel_names):
            return False
        logger.info("%s is there; comparing it with %s", name, given.what)
        return same_pixels(self.filehandler.array_path(name), given, self.budget)

    def _check_shape(self, given: RasterInput, other: str, shape: tuple[int, ...]) -> None:
        there = ZarrSource.open(self.filehandler.array_path(other)).shape[-2:]
        if tuple(shape) == there:
            return
        message = (
            f"{given.what} is {tuple(shape)} (y, x), but {other} of the project is {there}; image "
            "and mask must show the same pixels"
        )
        if given.is_image and self.overwrite:
            logger.warning("%s. Load masks that fit it", message)
            return
        raise ShapeError(message)

    def _centers(self, labels: str) -> None:
        """Write the centroids as points, as scPortrait has them."""
        name, revision = names.CENTERS_PREFIX + labels, element_identity(self.filehandler, labels)
        if name in self.filehandler and self.filehandler.revision(name) == revision:
            return
        points = centers(labels_index(self.filehandler, labels, self.budget))
        attributes = {names.REVISION: revision}
        self.filehandler.write_element(name, points, overwrite=True, attributes=attributes)


def centers(index: CellIndex) -> Any:
    """Centroids as a points element: columns x, y in pixels, indexed by the cells' ids (uint64)."""
    import dask.dataframe
    import pandas as pd
    from spatialdata.models import PointsModel

    frame = pd.DataFrame(
        {"x": index.centroid[:, 1], "y": index.centroid[:, 0]},
        index=pd.Index(index.ids.astype(np.uint64)),
    )
    parts = max(1, len(frame) // 1_000_000)
    from_pandas: Any = dask.dataframe.from_pandas
    return PointsModel.parse(from_pandas(frame, npartitions=parts, sort=False))
