"""Synthetic tissue: sections of any size, and small fields under the names of tutorials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scportrait_like.datasets.synthetic_tissue import MARKERS, Ids, Tissue

if TYPE_CHECKING:
    from spatialdata import SpatialData


def tissue(
    shape: tuple[int, int, int] = (5, 4096, 4096),
    cell_spacing: float = 41.45,
    seed: int = 0,
    dtype: str = "uint16",
    *,
    cell_radius: float = 12.0,
    ids: Ids = "grid",
    chunks: tuple[int, int, int] = (1, 2048, 2048),
) -> Tissue:
    """Make a synthetic tissue of any size, computed by blocks and deterministic.

    Cells have irregular outlines, touch sometimes and never overlap; each contains a nucleus. There
    are six types of cells with a marker profile each, richer in some regions than in others. The
    image has shot noise, so it compresses little, like a real one.

    Parameters
    ----------
    shape
        (c, y, x).
    cell_spacing
        Mean distance between neighbouring cells in pixels; about
        ``height * width / cell_spacing**2`` cells result.
    seed
        Any integer; its lowest 32 bits count.
    dtype
        Of the image: uint8, uint16, uint32, float32 or float64 (these two in [0, 1]).
    cell_radius
        Nominal radius in pixels, from 4 to ``cell_spacing / 1.5``.
    ids
        "grid": small ids in reading order of the lattice, with gaps where a lattice place has no
        cell. "sparse": unique ids spread over 1..2^62, dtype uint64.
    chunks
        (c, y, x) of the lazy arrays.

    Returns
    -------
    Tissue
        Lazy; nothing is computed yet.

    Raises
    ------
    InputError
        An argument is out of range.
    """
    return Tissue(
        shape=shape,
        cell_spacing=float(cell_spacing),
        cell_radius=float(cell_radius),
        seed=int(seed) & 0xFFFFFFFF,
        dtype=dtype,
        ids=ids,
        chunks=chunks,
    )


def pixie_example() -> SpatialData:
    """Make two small synthetic fields under the names that Harpy's tutorials use.

    Returns
    -------
    spatialdata.SpatialData
        In memory: ``raw_image_fov0`` and ``raw_image_fov1`` (22, 512, 512) uint16,
        ``label_whole_fov0`` and ``label_whole_fov1`` (512, 512) uint32, in the coordinate systems
        "fov0" and "fov1".
    """
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel
    from spatialdata.transformations import Identity

    images, labels = {}, {}
    for k in range(2):
        field = tissue((len(MARKERS), 512, 512), 22.0, seed=k, cell_radius=8.0)
        placed = {f"fov{k}": Identity()}
        images[f"raw_image_fov{k}"] = Image2DModel.parse(
            field.read_image(),
            dims=("c", "y", "x"),
            c_coords=field.channel_names,
            transformations=placed,
        )
        labels[f"label_whole_fov{k}"] = Labels2DModel.parse(
            field.read_labels(), dims=("y", "x"), transformations=placed
        )
    return SpatialData(images=images, labels=labels)
