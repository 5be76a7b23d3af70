"""A synthetic tissue that is computed by regions; made by :func:`scportrait_like.datasets.tissue`.

Importing this module is cheap: numba and dask are imported where used.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError

if TYPE_CHECKING:
    import dask.array as da

Region = tuple[int, int, int, int]
"""y0, y1, x0, x1 in pixels, half open."""

Ids = Literal["grid", "sparse"]

MARKERS = (
    "DNA", "CD45", "CD3", "CD20", "CD68", "PanCK", "Vimentin", "SMA", "CD4", "CD8", "CD31", "ECAD",
    "HLADR", "Ki67", "CD14", "CD163", "Collagen1", "Fibronectin", "GLUT1", "H3K27me3", "IDO", "PD1",
)  # fmt: skip
"""Names of the first channels of a synthetic tissue; further ones are called ``marker_22`` etc."""

# Where in a cell a marker sits; all that are not named here lie in the cytoplasm.
_NUCLEAR = frozenset({"DNA", "Ki67", "H3K27me3"})
_MEMBRANE = frozenset({"CD45", "CD3", "CD20", "CD4", "CD8", "ECAD", "HLADR", "GLUT1", "PD1"})

_N_TYPES = 6
_BACKGROUND = 300.0  # counts
_BRIGHT = 5000.0  # counts of a cell that expresses a marker strongly


@dataclass(frozen=True)
class Tissue:
    """A synthetic tissue section; made by
    :func:`scportrait_like.datasets.tissue`, which explains the parameters.

    It holds no pixels. Any region is computed on its own, and gives the same values whatever its
    limits. It pickles to a few bytes, so workers may hold a copy.
    """

    shape: tuple[int, int, int]
    cell_spacing: float = 41.45
    cell_radius: float = 12.0
    seed: int = 0
    dtype: str = "uint16"
    ids: Ids = "grid"
    chunks: tuple[int, int, int] = (1, 2048, 2048)

    def __post_init__(self) -> None:
        if np.shape(self.shape) != (3,) or min(self.shape) < 1:
            raise InputError(f"shape={self.shape!r}: expected (channels, y, x), each at least 1.")
        # Below 4 pixels a cell might come out without a pixel, and crowded ones without a nucleus.
        most = self.cell_spacing / 1.5
        if not 4 <= self.cell_radius <= most:
            raise InputError(
                f"cell_radius={self.cell_radius!r}: expected 4 to cell_spacing / 1.5 = {most:g}."
            )
        if self.dtype not in _FROM_COUNTS:
            raise InputError(f"dtype={self.dtype!r}: expected one of {', '.join(_FROM_COUNTS)}.")
        if self.ids not in get_args(Ids):
            raise InputError(f"ids={self.ids!r}: expected one of {', '.join(get_args(Ids))}.")

    @property
    def channel_names(self) -> list[str]:
        """Names of the channels, in order."""
        n = self.shape[0]
        return [*MARKERS[:n], *(f"marker_{c}" for c in range(len(MARKERS), n))]

    @property
    def labels_dtype(self) -> np.dtype[Any]:
        """Dtype of the masks: uint64 for sparse ids, else uint32 where the ids fit."""
        rows, columns = self._lattice_shape
        small = self.ids == "grid" and rows * columns < 2**32
        return np.dtype(np.uint32 if small else np.uint64)

    @property
    def n_cells(self) -> int:
        """Number of cells (each has pixels in the mask and in the nucleus mask)."""
        from scportrait_like.datasets import synthetic_kernels as kernels

        rows, columns = self._lattice_shape
        jitter = _jitter(self.cell_radius, self.cell_spacing)
        return int(
            kernels.count(self.seed, rows, columns, self.cell_spacing, jitter, self.shape[1:])
        )

    @property
    def image(self) -> da.Array:
        """The image (c, y, x) as a lazy dask array."""
        return self._lazy(_image_chunk, self.shape, self.chunks, np.dtype(self.dtype))

    @property
    def labels(self) -> da.Array:
        """The mask of the whole cells (y, x) as a lazy dask array."""
        return self._lazy(_labels_chunk, self.shape[1:], self.chunks[1:], self.labels_dtype)

    @property
    def nuclei(self) -> da.Array:
        """The mask of the nuclei (y, x) as a lazy dask array; ids as in ``labels``."""
        return self._lazy(_nuclei_chunk, self.shape[1:], self.chunks[1:], self.labels_dtype)

    def image_block(self, c: int, y0: int, y1: int, x0: int, x1: int) -> npt.NDArray[Any]:
        """Compute one channel of a region: (y1 - y0, x1 - x0), ``dtype``."""
        plane: npt.NDArray[Any] = self.read_image((y0, y1, x0, x1), channels=[c])[0]
        return plane

    def read_image(
        self, region: Region | None = None, channels: list[int] | None = None
    ) -> npt.NDArray[Any]:
        """Compute the image in a region.

        Parameters
        ----------
        region
            (y0, y1, x0, x1) in pixels; default: everything.
        channels
            Their numbers; default: all.

        Returns
        -------
        numpy.ndarray
            (c, y1 - y0, x1 - x0) of ``dtype``.
        """
        return _shade(self, self._paint(region), channels)

    def read_labels(self, region: Region | None = None) -> npt.NDArray[Any]:
        """Compute the mask of the whole cells in a region: (y, x), ``labels_dtype``."""
        painted = self._paint(region, nuclei=False)
        return self._label(painted, painted.distance)

    def read_nuclei(self, region: Region | None = None) -> npt.NDArray[Any]:
        """Compute the mask of the nuclei in a region, with the ids of their cells: (y, x)."""
        painted = self._paint(region)
        return self._label(painted, painted.nuclear)

    def write_store(
        self,
        path: str | Path,
        chunks: tuple[int, int, int] | None = None,
        *,
        multiscale: bool = True,
        nuclei: bool = False,
        threads: int | None = None,
    ) -> Path:
        """Write a SpatialData store with the elements that a project has, tile by tile.

        Parameters
        ----------
        path
            A folder that does not exist yet.
        chunks
            (c, y, x) of the store; default: those of the tissue.
        multiscale
            Write pyramids, halving down to a level that fits a screen.
        nuclei
            Write the nucleus mask too.
        threads
            Tiles computed at once; default: all cores.

        Returns
        -------
        pathlib.Path
            ``path``: ``input_image``, ``seg_all_cytosol`` and perhaps ``seg_all_nucleus``.
        """
        from scportrait_like.datasets import synthetic_store

        return synthetic_store.write(
            self, Path(path), chunks or self.chunks, multiscale, nuclei, threads
        )

    @property
    def _lattice_shape(self) -> tuple[int, int]:
        rows, columns = (int(np.ceil(n / self.cell_spacing)) for n in self.shape[1:])
        return rows, columns

    def _paint(self, region: Region | None, nuclei: bool = True) -> _Painted:
        """Find which cell each pixel of a region belongs to."""
        from scportrait_like.datasets import synthetic_kernels as kernels

        y0, y1, x0, x1 = _checked_region(region, self.shape)
        reach = self.cell_radius * kernels.LARGEST * kernels.GLOW
        rows, columns = self._lattice_shape
        lattice = (
            *_lattice_range(y0, y1, reach, self.cell_spacing, rows),
            *_lattice_range(x0, x1, reach, self.cell_spacing, columns),
        )
        jitter = _jitter(self.cell_radius, self.cell_spacing)
        cells, places = kernels.place(
            self.seed,
            lattice,
            self.cell_spacing,
            jitter,
            self.cell_radius,
            _N_TYPES,
            self.shape[1:],
        )
        owner = np.empty((y1 - y0, x1 - x0), np.int32)
        distance = np.empty(owner.shape, np.float32)
        kernels.paint(cells, y0, x0, owner, distance)
        nuclear = np.zeros(owner.shape if nuclei else (0, 0), np.float32)
        if nuclei:
            kernels.nuclear(cells, y0, x0, owner, nuclear)
        return _Painted(y0, x0, cells, places, owner, distance, nuclear)

    def _label(self, painted: _Painted, inner: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Write the ids of the pixels that lie inside the cell and inside ``inner``."""
        from scportrait_like.datasets import synthetic_kernels as kernels

        ids = painted.places.astype(np.uint64) + np.uint64(1)
        if self.ids == "sparse":
            ids = _scatter(ids)
        out = np.empty(painted.owner.shape, self.labels_dtype)
        ids = ids.astype(self.labels_dtype)
        kernels.label(painted.owner, painted.distance, inner, ids, out)
        return out

    def _lazy(
        self,
        compute: Any,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> da.Array:
        import dask.array as da

        blocks = da.core.normalize_chunks(chunks, shape=shape)  # type: ignore[no-untyped-call]
        meta = np.empty((0,) * len(shape), dtype)
        lazy: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
            functools.partial(compute, self), chunks=blocks, dtype=dtype, meta=meta
        )
        return lazy


class _Painted(NamedTuple):
    """A region whose pixels are given to cells, by the kernels."""

    y0: int
    x0: int
    cells: npt.NDArray[np.float64]
    places: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int32]
    distance: npt.NDArray[np.float32]
    nuclear: npt.NDArray[np.float32]


def _checked_region(region: Region | None, shape: tuple[int, int, int]) -> Region:
    _, height, width = shape
    y0, y1, x0, x1 = region or (0, height, 0, width)
    if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
        raise InputError(
            f"region={region!r} does not lie in the image of {height} x {width} pixels."
        )
    return y0, y1, x0, x1


def _jitter(radius: float, spacing: float) -> float:
    """Return how far centres may move, in lattice constants.

    Two centres stay at least 1.2 radii apart; then each cell owns the pixels about its centre.
    """
    return min(0.38, (1 - 1.2 * radius / spacing) / 2)


def _lattice_range(start: int, stop: int, reach: float, spacing: float, n: int) -> tuple[int, int]:
    """Return the lattice places whose cells may reach the pixels [start, stop)."""
    first = int((start - reach) // spacing)
    last = int((stop + reach) // spacing) + 1
    return max(first, 0), max(min(last, n), 0)


def _scatter(ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread ids over 1..2^62 - 1, one to one (each step is invertible and keeps 0)."""
    mask = np.uint64(2**62 - 1)
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
        ids = (ids * np.uint64(factor)) & mask
        ids = ids ^ (ids >> np.uint64(31))
    return ids


@functools.cache
def _expression(seed: int, n_channels: int) -> npt.NDArray[np.float32]:
    """Draw the marker profile of each type of cell: (types, channels), in counts."""
    generator = np.random.default_rng([seed, 0x7155])
    strong = generator.random((n_channels, _N_TYPES)) < 0.3
    level = generator.uniform(0.5, 1.5, strong.shape)
    # Every marker is on some type, DNA on all of them.
    strong[np.arange(n_channels), generator.integers(0, _N_TYPES, n_channels)] = True
    strong[0] = True
    return (level * np.where(strong, _BRIGHT, 0.05 * _BRIGHT)).T.astype(np.float32)


@functools.cache
def _profiles() -> dict[str, npt.NDArray[np.float32]]:
    """Return the brightness by distance of the compartments: nucleus, membrane, cytoplasm."""
    from scportrait_like.datasets import synthetic_kernels as kernels

    radii = np.arange(kernels.LUT_SIZE) * kernels.LUT_STEP
    edge = 1 / (1 + np.exp((radii - 1.0) / 0.06))
    profiles = {
        "nucleus": edge,
        "membrane": 0.35 * edge + np.exp(-0.5 * ((radii - 0.93) / 0.12) ** 2),
        "cytoplasm": edge * (0.55 + 0.45 * np.minimum(radii / 0.6, 1)),
    }
    return {name: profile.astype(np.float32) for name, profile in profiles.items()}


def _shade(section: Tissue, painted: _Painted, channels: list[int] | None) -> npt.NDArray[Any]:
    """Compute the channels of a painted region: (c, y, x)."""
    from scportrait_like.datasets import synthetic_kernels as kernels

    n_channels = section.shape[0]
    wanted = list(range(n_channels)) if channels is None else channels
    if not all(0 <= c < n_channels for c in wanted):
        raise InputError(f"channels={channels!r}: there are {n_channels} channels.")
    kinds = painted.cells[:, kernels.TYPE].astype(int)
    levels = painted.cells[:, kernels.LEVEL].astype(np.float32)
    expression = _expression(section.seed, n_channels)
    counts = np.empty((len(wanted), *painted.owner.shape), np.uint16)
    for plane, c in zip(counts, wanted, strict=True):
        name = section.channel_names[c]
        nuclear = name in _NUCLEAR
        compartment = "nucleus" if nuclear else "membrane" if name in _MEMBRANE else "cytoplasm"
        kernels.shade(
            int(kernels.mix3(section.seed, c, 1)),
            painted.y0,
            painted.x0,
            painted.owner,
            painted.nuclear if nuclear else painted.distance,
            expression[kinds, c] * levels,
            _profiles()[compartment],
            _BACKGROUND,
            plane,
        )
    image: npt.NDArray[Any] = _FROM_COUNTS[section.dtype](counts)
    return image


def _to_uint8(counts: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    small: npt.NDArray[np.uint8] = np.minimum(counts >> 5, 255).astype(np.uint8)
    return small


def _to_unit(counts: npt.NDArray[np.uint16], dtype: str) -> npt.NDArray[Any]:
    return np.multiply(counts, 1 / 65535, dtype=dtype)


_FROM_COUNTS: dict[str, Any] = {
    "uint8": _to_uint8,
    "uint16": lambda counts: counts,
    "uint32": lambda counts: counts.astype(np.uint32),
    "float32": functools.partial(_to_unit, dtype="float32"),
    "float64": functools.partial(_to_unit, dtype="float64"),
}


def _image_chunk(section: Tissue, block_info: Any = None) -> npt.NDArray[Any]:
    (c0, c1), (y0, y1), (x0, x1) = block_info[None]["array-location"]
    return section.read_image((y0, y1, x0, x1), channels=list(range(c0, c1)))


def _labels_chunk(section: Tissue, block_info: Any = None) -> npt.NDArray[Any]:
    (y0, y1), (x0, x1) = block_info[None]["array-location"]
    return section.read_labels((y0, y1, x0, x1))


def _nuclei_chunk(section: Tissue, block_info: Any = None) -> npt.NDArray[Any]:
    (y0, y1), (x0, x1) = block_info[None]["array-location"]
    return section.read_nuclei((y0, y1, x0, x1))
