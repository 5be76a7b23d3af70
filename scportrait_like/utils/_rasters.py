"""A mask and an image whose instances are looked at: found once, then run over lazily or now."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError
from scportrait_like.io.instances_zarr import check_may_write, lazy_rows, write_rows
from scportrait_like.raster.instance_runs import (
    Found,
    InstanceRun,
    check_rasters,
    window_edge,
)
from scportrait_like.raster.instance_statistics import WindowHead
from scportrait_like.raster.instances import Head
from scportrait_like.raster.lazy_instances import Made, lazy_arrays
from scportrait_like.raster.sources import Source, source_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dask.array as da
    import pandas as pd

PathOrName = str | PathLike[str]
_WHAT: Final = "mask_dask_array"


@dataclass(frozen=True)
class Rasters:
    """What a user handed in.

    Attributes
    ----------
    mask, image
        Array-likes (z, y, x) and (c, z, y, x), or None.
    executor, memory_limit
        As everywhere.
    """

    mask: Any
    image: Any
    executor: Executor | str | None
    memory_limit: int | str | None

    def __post_init__(self) -> None:
        check_rasters(*self._sources, 1, _WHAT)

    @cached_property
    def _sources(self) -> tuple[Source, Source | None]:
        return source_of(self.mask), None if self.image is None else source_of(self.image)

    @cached_property
    def found(self) -> Found:
        """The labels of the mask."""
        return self.run(WindowHead(), 1, None, None).find()

    @property
    def ids(self) -> npt.NDArray[Any]:
        """Ids of the labels, ascending, in the mask's dtype."""
        return self.found.ids.astype(self._sources[0].dtype.newbyteorder("="))

    def needed_image(self, what: str) -> Source:
        """Return the image; without one this is an `InputError`."""
        image = self._sources[1]
        if image is None:
            raise InputError(f"{what} looks at an image: pass image_dask_array to Featurizer")
        return image

    def run(
        self,
        head: Head,
        diameter: int | None,
        depth: int | None,
        batch_size: int | None,
        *,
        with_image: bool = True,
        remove_background: bool = True,
        keep_labels: bool = False,
    ) -> InstanceRun:
        """A run over windows of `diameter`, or twice `depth`."""
        labels, image = self._sources
        return InstanceRun(
            labels,
            image if with_image else None,
            window_edge(diameter, depth),
            head,
            remove_background=remove_background,
            keep_labels=keep_labels,
            batch_size=batch_size,
            what=_WHAT,
            executor=self.executor,
            memory_limit=self.memory_limit,
        )

    def lazy(self, run: InstanceRun, made: Mapping[str, Made]) -> dict[str, da.Array]:
        """What the head makes of each label, as lazy arrays."""
        return lazy_arrays(run, self.found, made, self._token)

    def rows(
        self, run: InstanceRun, name: str, made: Made, path: Path | None, overwrite: bool
    ) -> da.Array:
        """What the head makes of each label: lazy, or computed and written."""
        if path is None:
            return self.lazy(run, {name: made})[name]
        write_rows(path, self.collected(run, name, made), overwrite)
        return lazy_rows(path)

    def collected(self, run: InstanceRun, name: str, made: Made) -> npt.NDArray[Any]:
        """What the head makes of each label, computed."""
        if not len(self.found.ids):
            return np.zeros((0, *made.shape), made.dtype)
        return run.collect(self.found)[name]

    def frame(self, values: npt.NDArray[np.float64], instance_key: str) -> pd.DataFrame:
        """Frame with a row a label, and the labels behind the values."""
        import pandas as pd

        frame = pd.DataFrame(values, copy=True)
        frame[instance_key] = self.ids
        return frame

    @cached_property
    def _token(self) -> str:
        """The same for the same pixels. Dask arrays know a name; sources tell when they changed."""
        from dask.base import tokenize

        both = zip((self.mask, self.image), self._sources, strict=True)
        token: str = tokenize(
            *(given if hasattr(given, "__dask_graph__") else source for given, source in both)
        )
        return token


def free_path(path: PathOrName | None, overwrite: bool) -> Path | None:
    """Path of a zarr array that may be written; refused before any work."""
    if path is None:
        return None
    check_may_write(Path(path), overwrite)
    return Path(path)
