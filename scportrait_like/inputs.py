"""Inputs of a project: what `Project` inherits to load images and masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scportrait_like import names
from scportrait_like.errors import InputError
from scportrait_like.filehandler import FileHandler
from scportrait_like.loading import Loader
from scportrait_like.run.memory import memory_budget

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from spatialdata import SpatialData


class Inputs:
    """Loaders of a project: idempotent, by chunks, and nothing replaced unless permitted.

    The same source again is a logged no-op, in another process too; another one raises
    `ElementExistsError` unless ``overwrite`` (of the call, else of the project) is True. What was
    killed is completed by the same call.
    """

    filehandler: FileHandler
    overwrite: bool
    memory_limit: int | str | None

    if TYPE_CHECKING:

        def _writing(self, doing: str) -> AbstractContextManager[None]:
            """Hold the lock."""

    @contextmanager
    def _loader(self, overwrite: bool | None) -> Iterator[Loader]:
        permitted = self.overwrite if overwrite is None else overwrite
        with self._writing("loading"):
            yield Loader(self.filehandler, memory_budget(self.memory_limit), permitted)

    def load_input_from_array(
        self,
        array: Any,
        channel_names: Sequence[str] | None = None,
        overwrite: bool | None = None,
        remap: Sequence[int] | None = None,
    ) -> None:
        """Load an image from an array.

        Parameters
        ----------
        array
            (c, y, x), or (y, x) for one channel; its dtype is kept.
        channel_names
            One a channel, all different; default ``channel_0``, ...
        overwrite
            Replace another image. The same image is never loaded twice.
        remap
            New order of the channels, as positions in `array`.
        """
        from scportrait_like.io.loaders import array_input, image_input

        given = image_input(*array_input(array), channel_names, remap)
        with self._loader(overwrite) as loader:
            loader.image(names.INPUT_IMAGE, given)

    def load_input_from_dask(
        self,
        dask_array: Any,
        channel_names: Sequence[str],
        overwrite: bool | None = None,
        remap: Sequence[int] | None = None,
    ) -> None:
        """Load an image from a dask array (c, y, x) region by region; see the loader of arrays."""
        from scportrait_like.io.loaders import dask_input, image_input

        if channel_names is None:
            raise InputError("channel_names are needed: one a channel of the dask array")
        given = image_input(*dask_input(dask_array), channel_names, remap)
        with self._loader(overwrite) as loader:
            loader.image(names.INPUT_IMAGE, given)

    def load_input_from_tif_files(
        self,
        file_paths: str | Path | Sequence[str | Path],
        channel_names: Sequence[str] | None = None,
        crop: Sequence[tuple[int | None, int | None]] | None = None,
        overwrite: bool | None = None,
        remap: Sequence[int] | None = None,
        cache: str | None = None,
    ) -> None:
        """Load an image from one multi-channel (OME-)TIFF, or from one file a channel.

        Parameters
        ----------
        file_paths
            One path, or one a channel.
        channel_names
            Default: those of the OME metadata, else the files' names.
        crop
            ``[(y0, y1), (x0, x1)]`` as in slices; None keeps the whole image.
        overwrite, remap
            See `load_input_from_array`.
        cache
            Accepted and not needed.
        """
        from scportrait_like.io.tiff import tiff_input

        given = tiff_input(file_paths, channel_names, crop, remap)
        with self._loader(overwrite) as loader:
            loader.image(names.INPUT_IMAGE, given)

    def load_input_from_omezarr(
        self,
        ome_zarr_path: str | Path,
        overwrite: bool | None = None,
        channel_names: Sequence[str] | None = None,
        remap: Sequence[int] | None = None,
    ) -> None:
        """Load an image from an OME-Zarr (NGFF 0.4 or 0.5); see `load_input_from_array`."""
        from scportrait_like.io.loaders import omezarr_input

        given = omezarr_input(ome_zarr_path, channel_names, remap)
        with self._loader(overwrite) as loader:
            loader.image(names.INPUT_IMAGE, given)

    def load_input_from_sdata(
        self,
        sdata_path: str | Path | SpatialData,
        input_image_name: str,
        nucleus_segmentation_name: str | None = None,
        cytosol_segmentation_name: str | None = None,
        cell_id_identifier: str | None = None,
        overwrite: bool | None = None,
        keep_all: bool = True,
        remove_duplicates: bool = True,
    ) -> None:
        """Load image and masks from a SpatialData store or object.

        Parameters
        ----------
        sdata_path
            The store's path, or an object.
        input_image_name
            Its image, single- or multi-scale.
        nucleus_segmentation_name, cytosol_segmentation_name
            Its masks.
        cell_id_identifier
            Column with the cells' ids, of the tables that annotate the masks.
        overwrite
            Replace other inputs.
        keep_all
            Take the other elements along, under their names.
        remove_duplicates
            Do not keep image and masks under their old names as well.
        """
        from scportrait_like.io.copying import RasterInput
        from scportrait_like.io.spatial import spatial_input

        masks = {
            names.SEG_NUCLEUS: nucleus_segmentation_name,
            names.SEG_CYTOSOL: cytosol_segmentation_name,
        }
        given = spatial_input(
            sdata_path,
            input_image_name,
            {target: name for target, name in masks.items() if name is not None},
            cell_id_identifier,
            keep_all,
            remove_duplicates,
        )
        with self._loader(overwrite) as loader:
            loader.image(names.INPUT_IMAGE, given.image)
            for name, mask in given.masks.items():
                loader.labels(name, mask)
            for name, element in given.others.items():
                if isinstance(element, RasterInput):
                    loader.raster(name, element)
                else:
                    loader.other(name, element, given.identities[name])

    def load_labels(
        self, source: Any, kind: str = "cytosol", overwrite: bool | None = None
    ) -> None:
        """Load a mask that was made elsewhere.

        Parameters
        ----------
        source
            (y, x) of any integer dtype: the id of each pixel's cell, 0 for background. An array, a
            dask array, or the path of a TIFF or a zarr.
        kind
            ``cytosol`` or ``nucleus``.
        overwrite
            Replace another mask.

        Raises
        ------
        InputError
            No mask: floats, negative ids, ids above 2^63 - 1, no label at all.
        ShapeError
            Its shape is not that of the project's image.
        """
        from scportrait_like.io.loaders import mask_input

        if kind not in names.LABELS_OF_KIND:
            raise InputError(f"kind {kind!r} is not allowed: cytosol or nucleus")
        given = mask_input(source)
        with self._loader(overwrite) as loader:
            loader.labels(names.LABELS_OF_KIND[kind], given)
