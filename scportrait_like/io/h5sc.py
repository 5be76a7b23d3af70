"""The `.h5sc` file: an AnnData HDF5 file with each cell's pictures, as scPortrait reads it.

``obsm/single_cell_images`` is (N, masks + channels, size, size) float16, masks first, chunks of one
picture. Workers compress; here finished chunks are only placed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.errors import IncompleteOutputError, MissingInputError
from scportrait_like.raster.chunkcodecs import CODECS
from scportrait_like.run.durable import sync_file
from scportrait_like.run.unitfile import UnitReader

if TYPE_CHECKING:
    from anndata import AnnData

_OFF: Final = "None"  # how "no normalisation" and "no compression" are written


@dataclass(frozen=True)
class H5scFacts:
    """What an `.h5sc` file says of itself.

    Attributes
    ----------
    n_cells, size
        Rows, and the edge of a picture in pixels.
    masks, channels
        Names of the planes: masks first.
    normalisation_range
        The two quantiles, or None.
    codec
        Name in `CODECS`.
    """

    n_cells: int
    size: int
    masks: tuple[str, ...]
    channels: tuple[str, ...]
    normalisation_range: tuple[float, float] | None
    codec: str

    @property
    def planes(self) -> tuple[str, ...]:
        """Names of all planes."""
        return self.masks + self.channels

    @property
    def mapping(self) -> list[str]:
        """Kind of each plane."""
        return ["mask"] * len(self.masks) + ["image_channel"] * len(self.channels)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers under the names that the file gives them."""
        return {
            "n_cells": self.n_cells,
            "n_channels": len(self.planes),
            "n_masks": len(self.masks),
            "n_image_channels": len(self.channels),
            "image_size": self.size,
        }


class H5scWriter:
    """Writes an `.h5sc` file: first all that is small, then chunk by chunk.

    Parameters
    ----------
    path
        A new file.
    facts
        What it says of itself.
    ids
        The cells' ids (n_cells), in the order of the rows.
    """

    def __init__(self, path: Path, facts: H5scFacts, ids: NDArray[np.int64]) -> None:
        self._path, self._file = path, _create(path)
        self._codec = CODECS[facts.codec]
        _write_frames(self._file, facts, ids)
        images = _create_images(self._file, facts)
        self._place = images.id.write_direct_chunk
        self._raw_mask = 1 if self._codec.h5py_filter else 0
        self._raw_size = 2 * facts.size * facts.size
        self._planes = len(facts.planes)

    def add(self, rows: NDArray[np.int64], result: UnitReader) -> None:
        """Place the chunks of one unit, whose cells have these rows."""
        for plane in range(self._planes):
            done, number = 0, 0
            while f"sizes.{plane}.{number}" in result:
                sizes = result[f"sizes.{plane}.{number}"]
                batch = rows[done : done + len(sizes)]
                self._place_batch(plane, batch, sizes, result[f"chunks.{plane}.{number}"])
                done, number = done + len(sizes), number + 1

    def _place_batch(
        self,
        plane: int,
        rows: NDArray[np.int64],
        sizes: NDArray[np.int32],
        stream: NDArray[np.uint8],
    ) -> None:
        place, view, start = self._place, stream.data, 0
        for row, size in zip(rows.tolist(), sizes.tolist(), strict=True):
            stop = start + (size or self._raw_size)
            place((row, plane, 0, 0), view[start:stop], 0 if size else self._raw_mask)
            start = stop

    def flush(self) -> None:
        """Bring the chunks placed so far to the disk.

        HDF5's own flush would also end its block of free space for metadata, and so move what comes
        after: the bytes of the file would depend on when it was called.
        """
        sync_file(self._path)

    def close(self) -> None:
        """Complete the file."""
        self._file.close()


def _create(path: Path) -> Any:
    """Create an HDF5 file that any HDF5 since 1.10 reads, and that holds no clock times."""
    import h5py

    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    file = h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_EXCL, creation, access)
    return h5py.File(file)


def _group(parent: Any, name: str, **attributes: Any) -> Any:
    import h5py

    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    group = h5py.Group(h5py.h5g.create(parent.id, name.encode(), gcpl=creation))
    _encode(group, "dict", "0.1.0")
    group.attrs.update(attributes)
    return group


def _encode(item: Any, kind: str, version: str) -> None:
    item.attrs["encoding-type"] = kind
    item.attrs["encoding-version"] = version


def _dataset(parent: Any, name: str, values: Any, kind: str) -> None:
    data = parent.create_dataset(name, data=values, track_times=False)
    _encode(data, kind, "0.2.0")


def _strings(parent: Any, name: str, values: list[str]) -> None:
    import h5py

    data = parent.create_dataset(
        name, (len(values),), h5py.string_dtype("utf-8"), track_times=False
    )
    data[:] = values
    _encode(data, "string-array", "0.2.0")


def _frame(parent: Any, name: str, length: int, columns: list[str]) -> Any:
    import h5py

    group = _group(parent, name)
    _encode(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", columns, dtype=h5py.string_dtype("utf-8"))
    _strings(group, "_index", [str(row) for row in range(length)])
    return group


def _categories(parent: Any, name: str, values: list[str]) -> None:
    group = _group(parent, name)
    _encode(group, "categorical", "0.2.0")
    group.attrs["ordered"] = False
    known = sorted(set(values))
    _strings(group, "categories", known)
    _dataset(group, "codes", np.array([known.index(v) for v in values], np.int8), "array")


def _write_frames(file: Any, facts: H5scFacts, ids: NDArray[np.int64]) -> None:
    _encode(file, "anndata", "0.1.0")
    for name in ("layers", "obsp", "varm", "varp", "obsm"):
        _group(file, name)
    obs = _frame(file, "obs", len(ids), [names.INSTANCE_KEY])
    _dataset(obs, names.INSTANCE_KEY, ids.astype(np.uint64), "array")
    var = _frame(file, "var", len(facts.planes), ["channels", "channel_mapping"])
    _strings(var, "channels", list(facts.planes))
    _categories(var, "channel_mapping", facts.mapping)
    uns = _group(_group(file, "uns"), names.IMAGES_KEY)
    _strings(uns, "channel_names", list(facts.planes))
    _strings(uns, "channel_mapping", facts.mapping)
    for name, value in facts.counts.items():
        _dataset(uns, name, np.int64(value), "numeric-scalar")
    _dataset(
        uns, "normalization", np.bool_(facts.normalisation_range is not None), "numeric-scalar"
    )
    lower, upper = facts.normalisation_range or (_OFF, _OFF)
    for name, limit in (("lower", lower), ("upper", upper)):
        kind = "string" if isinstance(limit, str) else "numeric-scalar"
        _dataset(uns, f"normalization_range_{name}", limit, kind)
    _dataset(uns, "compression", _compression(facts), "string")


def _compression(facts: H5scFacts) -> str:
    return str(CODECS[facts.codec].h5py_filter.get("compression", _OFF))


def _create_images(file: Any, facts: H5scFacts) -> Any:
    import h5py

    shape = (facts.n_cells, len(facts.planes), facts.size, facts.size)
    images = file["obsm"].create_dataset(
        names.IMAGES_KEY,
        shape,
        np.float16,
        chunks=(1, 1, facts.size, facts.size) if facts.n_cells else None,
        track_times=False,
        **(CODECS[facts.codec].h5py_filter if facts.n_cells else {}),
    )
    _encode(images, "array", "0.2.0")
    for name, value in facts.counts.items():
        images.attrs[name] = value
    for name, values in (("channel_names", facts.planes), ("channel_mapping", facts.mapping)):
        encoded = [value.encode() for value in values]
        width = max(map(len, encoded))
        images.attrs.create(name, encoded, dtype=h5py.string_dtype("utf-8", width))
    images.attrs["compression"] = _compression(facts)
    images.attrs["normalization"] = facts.normalisation_range is not None
    images.attrs["normalization_range"] = facts.normalisation_range or (_OFF, _OFF)
    return images


def read_h5sc(path: Path | str, resume: str = "run the extraction again") -> AnnData:
    """Open an `.h5sc` file; the pictures stay on disk until they are indexed.

    Parameters
    ----------
    path
        An `.h5sc` file of this package or of scPortrait.
    resume
        What to do where the file is incomplete, for the message.

    Returns
    -------
    anndata.AnnData
        ``obsm["single_cell_images"]`` is an open `h5py.Dataset` (N, masks + channels, size, size)
        float16.

    Raises
    ------
    MissingInputError
        No such file.
    IncompleteOutputError
        The file is cut short, or is no `.h5sc`; the message says how to resume.
    """
    import anndata
    import h5py

    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"{path} is not there; {resume}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise IncompleteOutputError(
            f"{path} is incomplete or damaged ({error}); {resume}"
        ) from error
    try:
        images = file["obsm"][names.IMAGES_KEY]
        frames = {name: anndata.io.read_elem(file[name]) for name in ("obs", "var", "uns")}
    except KeyError as error:
        file.close()
        raise IncompleteOutputError(f"{path} is no .h5sc file: {error}; {resume}") from error
    data = anndata.AnnData(**frames)
    data.obsm[names.IMAGES_KEY] = images
    return data
