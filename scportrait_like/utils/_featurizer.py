"""Windows of instances, and what is made of them: `Featurizer`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError
from scportrait_like.io.instances_zarr import check_may_write, lazy_rows, write_instances
from scportrait_like.models import resolve_model
from scportrait_like.raster.fitting import fit_model
from scportrait_like.raster.heads import ModelHead
from scportrait_like.raster.instance_statistics import (
    ExtentHead,
    FunctionHead,
    QuantileHead,
    WindowHead,
    channel_means,
    pixel_means,
    principal_axes,
)
from scportrait_like.raster.lazy_instances import Made
from scportrait_like.run.executors import check_executor_name
from scportrait_like.utils._rasters import PathOrName, Rasters, free_path

if TYPE_CHECKING:
    import dask.array as da
    import pandas as pd

logger = logging.getLogger(__name__)

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_DECILES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Featurizer:
    """Windows around the labels of a mask, and what models and functions make of them.

    The window of a label is the square of `diameter` pixels in (y, x), with all of z, that begins
    ``diameter // 2`` before the label's centroid, rounded half to even. It is 0 beyond the image,
    and with `remove_background` where other labels are.

    Parameters
    ----------
    mask_dask_array
        (z, y, x), any integer dtype: the id of each pixel's label, up to 2^63 - 1; 0 is the
        background. A dask array; numpy and zarr arrays are taken too. Arrays that zarr holds are
        read by the workers themselves.
    image_dask_array
        (c, z, y, x), any real dtype, with chunks of its own; None where only the mask is looked at.
    run_on_gpu
        Accepted; there are no kernels for the GPU yet, the CPU is used. Models choose their device
        by themselves.
    executor
        A `concurrent.futures.Executor`, the name of one (``inline``, ``threads``, ``processes``,
        ``dask``), or None: an active dask client, else threads. For what is not lazy.
    memory_limit
        Bytes (or "4GB") for the process tree; None: `scportrait_like.settings.memory_limit`.

    Raises
    ------
    InputError
        The mask does not hold whole numbers, or the image no real ones.
    ShapeError
        Not three and four axes, or shapes that differ.

    Notes
    -----
    Ids are returned in the dtype of the mask, ascending, and rows are in their order. The mask is
    looked through once, at the first call.

    Without a `zarr_output_path` arrays are lazy: any dask scheduler computes them. All that is
    computed at once decodes each chunk once, and slices read only the tiles that hold their labels.
    A scheduler keeps what a tile left until the rows of all of its labels are made: where the ids
    of neighbours are far apart that can be most of the image's cells. With a `zarr_output_path` the
    work is done in the call, within the memory limit, and the arrays show what was written.

    Parameters that all methods share: `diameter` in pixels (None: twice `depth`); `depth` is not
    needed else; `batch_size` is how many labels models and functions get at once, and the length
    of a lazy array's chunks (None: they follow the tiles); `store_intermediate` is accepted,
    nothing intermediate is stored; `overwrite` replaces zarr arrays that are there, which otherwise
    are refused before any work (`ElementExistsError`).
    """

    def __init__(
        self,
        mask_dask_array: Any,
        image_dask_array: Any = None,
        run_on_gpu: bool = True,
        *,
        executor: Executor | str | None = None,
        memory_limit: int | str | None = None,
    ) -> None:
        if isinstance(executor, str):
            check_executor_name(executor, "Featurizer")
        self._rasters = Rasters(mask_dask_array, image_dask_array, executor, memory_limit)
        if run_on_gpu:
            logger.info("run_on_gpu: there are no kernels for the GPU yet; the CPU is used")

    def extract_instances(
        self,
        diameter: int | None,
        depth: int | None = None,
        remove_background: bool = True,
        extract_mask: bool = False,
        extract_image: bool = True,
        zarr_output_path: PathOrName | None = None,
        name_instances_image: str = "image.zarr",
        name_instances_mask: str = "mask.zarr",
        batch_size: int | None = None,
        overwrite: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """Windows of the image, of the mask, or of both.

        Parameters
        ----------
        diameter, depth, batch_size, overwrite
            See the class.
        remove_background
            Whether pixels of other labels are 0, in the image and in the mask.
        extract_mask, extract_image
            What is wanted.
        zarr_output_path
            A folder, in which the zarr arrays are written; None: lazy arrays.
        name_instances_image, name_instances_mask
            Of the arrays in there.

        Returns
        -------
        instance_ids : (i,)
        array
            The image's windows (i, c, z, y, x) in its dtype, or the mask's (i, 1, z, y, x) in its
            dtype; with both the pair (mask, image).
        """
        if not (extract_mask or extract_image):
            raise InputError("extract_mask=False and extract_image=False: nothing is asked for")
        if extract_image:
            self._rasters.needed_image("extract_instances with extract_image=True")
        run = self._rasters.run(
            WindowHead(extract_image, labels=extract_mask),
            diameter,
            depth,
            batch_size,
            with_image=extract_image,
            remove_background=remove_background,
            keep_labels=extract_mask,
        )
        wanted = {"labels": name_instances_mask} if extract_mask else {}
        if extract_image:
            wanted["image"] = name_instances_image
        if zarr_output_path is None:
            window = run.labels.shape[0], run.size, run.size
            made = {"labels": Made((1, *window), run.labels.dtype.newbyteorder("="))}
            if run.image is not None:
                made["image"] = Made((len(run.taken), *window), run.image.dtype.newbyteorder("="))
            arrays = self._rasters.lazy(run, {name: made[name] for name in wanted})
        else:
            paths = {name: Path(zarr_output_path) / end for name, end in wanted.items()}
            if len(set(paths.values())) < len(paths):
                raise InputError(
                    f"name_instances_image and name_instances_mask are both {name_instances_mask}: "
                    "each array needs a name of its own"
                )
            for path in paths.values():
                check_may_write(path, overwrite)
            Path(zarr_output_path).mkdir(parents=True, exist_ok=True)
            write_instances(
                run, self._rasters.found, paths.get("image"), paths.get("labels"), overwrite
            )
            arrays = {name: lazy_rows(path) for name, path in paths.items()}
        both = tuple(arrays[name] for name in wanted)
        return self._rasters.ids, both if len(both) == 2 else both[0]

    def featurize(
        self,
        embedding_dimension: int | None,
        diameter: int | None,
        depth: int | None = None,
        remove_background: bool = True,
        zarr_output_path: PathOrName | None = None,
        store_intermediate: bool = False,
        model: Callable[..., Any] | str = channel_means,
        batch_size: int | None = None,
        model_kwargs: Mapping[str, Any] = _NOTHING,
        dtype: npt.DTypeLike = np.float32,
        *,
        overwrite: bool = False,
    ) -> tuple[npt.NDArray[Any], da.Array]:
        """Embeddings of the windows by a model.

        Parameters
        ----------
        embedding_dimension
            Numbers that the model makes of a window, d; None: it knows.
        diameter, depth, batch_size, store_intermediate, overwrite
            See the class.
        remove_background
            Whether the model sees pixels of its own label only.
        zarr_output_path
            The zarr array that is written; None: a lazy array.
        model
            Called as ``model(batch, embedding_dimension=d, **model_kwargs)`` with windows
            (b, c, z, y, x) in the image's dtype; returns (b, d). A function with a parameter
            ``mask`` also gets (b, 1, z, y, x) bool: where the label is. A function, or the name of
            a model, see `scportrait_like.models`. Default: the mean of each channel over the
            window, cut to d columns, or with zeros behind them. One that needs fitting is fitted in
            the call, on a sample.
        model_kwargs
            For each call of the model.
        dtype
            Of the embeddings.

        Returns
        -------
        instance_ids : (i,)
        embeddings : (i, d)

        Raises
        ------
        InputError, ConfigError
            There is no such model, or it cannot be called as models are.
        ModelError
            The model failed, or what it returned does not fit; where the array is lazy, when it is
            computed.
        """
        numbers = np.dtype(dtype)
        if numbers.kind not in "biuf":
            raise InputError(f"dtype={numbers} is not allowed: embeddings are real numbers")
        image = self._rasters.needed_image("featurize")
        spec = resolve_model(model, model_kwargs, embedding_dimension)
        dimension = spec.dimension(image.shape[0], 1)
        path = free_path(zarr_output_path, overwrite)
        run = self._rasters.run(
            WindowHead(), diameter, depth, batch_size, remove_background=remove_background
        )
        spec = fit_model(spec, [(run, self._rasters.found)])
        run = replace(run, head=ModelHead(spec, dimension, numbers.name))
        made = Made((dimension,), numbers)
        return self._rasters.ids, self._rasters.rows(run, "embedding", made, path, overwrite)

    def calculate_instance_statistics(
        self,
        depth: int | None,
        statistic_dimension: int,
        diameter: int | None = None,
        zarr_output_path: PathOrName | None = None,
        store_intermediate: bool = False,
        fn: Callable[..., Any] | None = None,
        batch_size: int | None = None,
        extract_image: bool = True,
        fn_kwargs: Mapping[str, Any] = _NOTHING,
        overwrite: bool = False,
    ) -> tuple[npt.NDArray[Any], da.Array]:
        """Numbers that a function makes of each label.

        Parameters
        ----------
        depth, diameter, batch_size, store_intermediate, overwrite
            See the class.
        statistic_dimension
            Numbers that it makes, s.
        zarr_output_path
            The zarr array that is written; None: a lazy array.
        fn
            ``fn(pixels, **fn_kwargs)`` gets the label's pixels inside its window (c, N), in the
            image's dtype, and returns (c, s). Without `extract_image` it gets the mask's window
            (z, y, x), in the mask's dtype, other labels 0, and returns (s,). Default: the mean of
            each channel (c, 1). For processes it must pickle.
        extract_image
            Whether it looks at the image.
        fn_kwargs
            For each call.

        Returns
        -------
        instance_ids : (i,)
        statistics : (i, c, s), or (i, s) without `extract_image`
            float64. NaN where none of the label's pixels lies in its window; `fn` is not asked.

        Raises
        ------
        ModelError
            `fn` failed, or what it returned does not fit; where the array is lazy, when it is
            computed.
        """
        if isinstance(statistic_dimension, bool) or statistic_dimension < 1:
            raise InputError(f"statistic_dimension={statistic_dimension!r} must be 1 or more")
        shape: tuple[int, ...] = (statistic_dimension,)
        if extract_image:
            image = self._rasters.needed_image(
                "calculate_instance_statistics with extract_image=True"
            )
            shape = image.shape[0], statistic_dimension
        elif fn is None:
            raise InputError("extract_image=False: give fn, a function of the mask's window")
        path = free_path(zarr_output_path, overwrite)
        run = self._rasters.run(
            FunctionHead(fn or pixel_means, statistic_dimension, extract_image, dict(fn_kwargs)),
            diameter,
            depth,
            batch_size,
            with_image=extract_image,
            keep_labels=not extract_image,
        )
        made = Made(shape, np.dtype(np.float64))
        return self._rasters.ids, self._rasters.rows(run, "statistic", made, path, overwrite)

    def quantiles(
        self,
        diameter: int | None,
        q: float | Sequence[float] = _DECILES,
        zarr_output_path: PathOrName | None = None,
        store_intermediate: bool = False,
        depth: int | None = None,
        batch_size: int | None = None,
        instance_key: str = "cell_ID",
        overwrite: bool = False,
    ) -> list[pd.DataFrame] | tuple[npt.NDArray[Any], da.Array]:
        """Quantiles of each label's pixels inside its window, by channel.

        Parameters
        ----------
        diameter, depth, batch_size, store_intermediate, overwrite
            See the class.
        q
            From 0 to 1; the default are the nine deciles.
        zarr_output_path
            The zarr array that is written; None: frames are returned.
        instance_key
            Name of the column with the labels.

        Returns
        -------
        list of pandas.DataFrame
            One a quantile. Columns 0 to c - 1, the channels, and the labels. float64, interpolated
            linearly, as `numpy.quantile` does. With a `zarr_output_path` instead the pair
            (instance_ids, array (i, c, q)).
        """
        image = self._rasters.needed_image("quantiles")
        ranks = tuple(float(each) for each in np.atleast_1d(q))
        path = free_path(zarr_output_path, overwrite)
        run = self._rasters.run(QuantileHead(ranks), diameter, depth, batch_size)
        made = Made((image.shape[0], len(ranks)), np.dtype(np.float64))
        if path is not None:
            return self._rasters.ids, self._rasters.rows(run, "statistic", made, path, overwrite)
        found = self._rasters.collected(run, "statistic", made)
        return [self._rasters.frame(found[:, :, i], instance_key) for i in range(len(ranks))]

    def radii_and_principal_axes(
        self,
        diameter: int | None,
        calculate_axes: bool = True,
        depth: int | None = None,
        batch_size: int | None = None,
        instance_key: str = "cell_ID",
    ) -> pd.DataFrame:
        """How far, and along which axes, each label spreads.

        A label is seen as the coordinates (z, y, x) of its pixels inside its window. Its axes are
        their principal components; its radii are the standard deviations along them, in pixels:
        square roots of the eigenvalues of the coordinates' sample covariance (divisor n - 1). They
        are `components_` and the square root of `explained_variance_` of scikit-learn's `PCA`. A
        full ball of radius r has radii r / sqrt(5), a disk r / 2.

        Parameters
        ----------
        diameter, depth, batch_size
            See the class.
        calculate_axes
            Whether axes are wanted.
        instance_key
            Name of the column with the labels.

        Returns
        -------
        pandas.DataFrame
            Columns 0 to 2: the radii, descending; 0 where a label is flat, as in a plane. Columns 3
            to 11, if `calculate_axes`: the axes in that order, unit vectors (z, y, x), whose
            coordinate of largest magnitude is positive. Where radii are equal the axes are
            arbitrary. Then the labels. NaN where none of the label's pixels lies in its window.
        """
        run = self._rasters.run(ExtentHead(), diameter, depth, batch_size, with_image=False)
        found = self._rasters.collected(run, "covariance", Made((3, 3), np.dtype(np.float64)))
        variances, axes = principal_axes(found)
        columns = [np.sqrt(variances)]
        if calculate_axes:
            columns.append(axes.reshape(-1, 9))
        return self._rasters.frame(np.concatenate(columns, axis=1), instance_key)
