"""Statistics of pixels over labels: `RasterAggregator`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.raster.aggregate import aggregate
from scportrait_like.raster.index import check_ids_dtype
from scportrait_like.raster.sources import Source, source_of
from scportrait_like.raster.statistics import resolve_statistics
from scportrait_like.run.executors import check_executor_name

if TYPE_CHECKING:
    import pandas as pd

    from scportrait_like.raster.aggregated import Aggregated
    from scportrait_like.run.runner import RunReport

logger = logging.getLogger(__name__)

_DEFAULT_STATISTICS = ("sum", "mean", "count", "var", "kurtosis", "skew")


class RasterAggregator:
    """Statistics of an image's pixels over the labels of a mask, each chunk decoded once.

    Parameters
    ----------
    mask_dask_array
        (z, y, x), any integer dtype: the id of each pixel's label, up to 2^63 - 1; 0 is the
        background, which is a label too unless `index` leaves it out. A dask array; numpy and zarr
        arrays are taken too. Arrays that zarr holds are read by the workers themselves.
    image_dask_array
        (c, z, y, x), any real dtype, with chunks of its own; None where only pixels are counted.
    instance_key
        Name of the column with the labels.
    instance_size_key
        Name of the column with the pixels of each label, in `aggregate_area`.
    run_on_gpu
        Accepted; there are no kernels for the GPU yet, the CPU is used.
    executor
        A `concurrent.futures.Executor`, the name of one (``inline``, ``threads``, ``processes``,
        ``dask``), or None: an active dask client, else threads.
    memory_limit
        Bytes (or "4GB") for the process tree; None: `scportrait_like.settings.memory_limit`.

    Attributes
    ----------
    report
        What the last run did: seconds, peak memory, chunks decoded; None before.

    Raises
    ------
    InputError
        The mask does not hold whole numbers, or the image no real ones.
    ShapeError
        Not three and four axes, or shapes that differ.

    Notes
    -----
    All methods return frames with a row a label: in the order of `index` where given, else by
    ascending label. Labels of `index` that the mask does not hold have count 0, sum 0, and NaN
    elsewhere. A NaN among the pixels of a label makes its statistics in that channel NaN. Figures
    are float64; sums of whole numbers are exact up to 2^53.
    """

    def __init__(
        self,
        mask_dask_array: Any,
        image_dask_array: Any = None,
        instance_key: str = "cell_ID",
        instance_size_key: str = "shapeSize",
        run_on_gpu: bool = True,
        *,
        executor: Executor | str | None = None,
        memory_limit: int | str | None = None,
    ) -> None:
        self._mask = source_of(mask_dask_array)
        self._image = None if image_dask_array is None else source_of(image_dask_array)
        _check_arrays(self._mask, self._image)
        if isinstance(executor, str):
            check_executor_name(executor, "RasterAggregator")
        self.instance_key, self.instance_size_key = instance_key, instance_size_key
        self._executor, self._memory_limit = executor, memory_limit
        self.report: RunReport | None = None
        if run_on_gpu:
            logger.info("run_on_gpu: there are no kernels for the GPU yet; the CPU is used")

    def aggregate_stats(
        self,
        stats_funcs: str | Sequence[str] = _DEFAULT_STATISTICS,
        index: npt.ArrayLike | None = None,
    ) -> list[pd.DataFrame]:
        """All statistics asked for, in one pass.

        Parameters
        ----------
        stats_funcs
            Any of count, sum, mean, var (of the population), skew, kurtosis (Fisher's), min, max,
            median, and quantiles such as ``q0.25`` (linear interpolation).
        index
            Labels that are wanted, in the order wanted.

        Returns
        -------
        list of pandas.DataFrame
            One a statistic, in the order asked for. Columns 0 to c - 1, the channels, and the
            labels; "count" has one column 0, and the labels.

        Raises
        ------
        InputError
            An unknown statistic (the message lists the known ones), or labels twice or below 0.
        """
        wanted = [stats_funcs] if isinstance(stats_funcs, str) else list(stats_funcs)
        of_channels = [name for name, one in resolve_statistics(wanted).items() if one.per_channel]
        if of_channels and self._image is None:
            raise InputError(
                f"{', '.join(of_channels)} look at an image: pass image_dask_array, or ask for "
                "count, aggregate_area() or center_of_mass() only"
            )
        found = self._aggregate(tuple(dict.fromkeys(wanted)), index)
        return [self._frame(found, found.values[name], index) for name in wanted]

    def aggregate_sum(self, index: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Sum of each label's pixels, by channel."""
        return self.aggregate_stats("sum", index)[0]

    def aggregate_mean(self, index: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Mean of each label's pixels, by channel."""
        return self.aggregate_stats("mean", index)[0]

    def aggregate_var(self, index: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Population variance of each label's pixels, by channel."""
        return self.aggregate_stats("var", index)[0]

    def aggregate_skew(self, index: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Skewness of each label's pixels, by channel; 0 where they are all equal."""
        return self.aggregate_stats("skew", index)[0]

    def aggregate_kurtosis(self, index: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Fisher's kurtosis of each label's pixels, by channel; 0 where they are all equal."""
        return self.aggregate_stats("kurtosis", index)[0]

    def aggregate_min(self, index: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Smallest of each label's pixels, by channel."""
        return self.aggregate_stats("min", index)[0]

    def aggregate_max(self, index: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Largest of each label's pixels, by channel."""
        return self.aggregate_stats("max", index)[0]

    def aggregate_area(self, index: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Pixels of each label.

        Returns
        -------
        pandas.DataFrame
            Columns `instance_key` and `instance_size_key`.
        """
        import pandas as pd

        found = self._aggregate((), index, with_image=False)
        ids = self._ids(found, index)
        return pd.DataFrame({self.instance_key: ids, self.instance_size_key: found.count})

    def center_of_mass(self, index: npt.ArrayLike | None = None) -> pd.DataFrame:
        """Mean pixel coordinates of each label.

        Returns
        -------
        pandas.DataFrame
            Columns 0, 1, 2 (z, y, x, the first pixel's being 0), and `instance_key`.
        """
        found = self._aggregate((), index, with_image=False)
        return self._frame(found, found.centroid, index)

    def _aggregate(
        self, statistics: tuple[str, ...], index: npt.ArrayLike | None, with_image: bool = True
    ) -> Aggregated:
        found = aggregate(
            self._mask,
            self._image if with_image and statistics != ("count",) else None,
            statistics,
            index=index,
            what="mask_dask_array",
            executor=self._executor,
            memory_limit=self._memory_limit,
        )
        self.report = found.report
        for note in found.notes:
            warnings.warn(note, RuntimeWarning, stacklevel=3)
        return found

    def _ids(self, found: Aggregated, index: npt.ArrayLike | None) -> npt.NDArray[Any]:
        """Labels in the dtype of the mask, or of `index`."""
        dtype = self._mask.dtype if index is None else np.asarray(index).dtype
        return found.ids.astype(dtype if dtype.kind in "iu" else np.int64)

    def _frame(
        self, found: Aggregated, values: npt.NDArray[np.float64], index: npt.ArrayLike | None
    ) -> pd.DataFrame:
        import pandas as pd

        frame = pd.DataFrame(values, copy=True)
        frame[self.instance_key] = self._ids(found, index)
        return frame


def _check_arrays(mask: Source, image: Source | None) -> None:
    check_ids_dtype(mask.dtype, "mask_dask_array")
    if len(mask.shape) != 3:
        raise ShapeError(
            f"mask_dask_array has the shape {mask.shape}, but (z, y, x) is wanted; for a plane "
            "pass mask[None]"
        )
    if image is None:
        return
    if len(image.shape) != 4:
        raise ShapeError(
            f"image_dask_array has the shape {image.shape}, but (c, z, y, x) is wanted; for planes "
            "pass image[:, None]"
        )
    if image.shape[1:] != mask.shape:
        raise ShapeError(
            f"image_dask_array is {image.shape[1:]} (z, y, x), but mask_dask_array is "
            f"{mask.shape}; both must show the same pixels"
        )
    if image.dtype.kind not in "iufb":
        raise InputError(f"image_dask_array holds {image.dtype}, but real numbers are wanted")
