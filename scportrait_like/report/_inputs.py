"""The part of the report about the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from scportrait_like import names
from scportrait_like.plot import fitting_view
from scportrait_like.report._parts import Crop, Picture, Reported, loaded

# So many cells side by side are seen well on a page.
_CELLS_ACROSS: Final = 45
# Edge of the part of a mask that tells how large cells are.
_LOOK: Final = 1000
# Pixels of the level that is searched for the part that holds most cell.
_OVERVIEW: Final = 1_000_000


@dataclass(frozen=True)
class Input:
    """A raster element of the project's store."""

    name: str
    shape: str
    dtype: str
    channels: str
    source: str


def inputs(project: Reported) -> list[Input]:
    store = project.filehandler
    kinds = store.element_names()
    raw = [*loaded(project, "images"), *loaded(project, "labels")]
    found = []
    for name in (name for name in kinds if name in raw):
        kind = kinds[name]
        array = store.open_array(name)
        channels = ", ".join(store.channel_names(name)) if kind == "images" else ""
        shape = " x ".join(f"{n:,}" for n in array.shape)
        source = str(store.attributes(name).get("source", ""))
        found.append(Input(name, shape, str(array.dtype), channels, source))
    return found


def input_pictures(project: Reported, folder: Path) -> list[Picture]:
    if names.INPUT_IMAGE not in project.filehandler:
        return []
    has_mask = bool(loaded(project, "labels"))
    outlined = ", with the outlines of the masks" if has_mask else ""
    part = detail(project)
    # In a small picture of a large image there would be nothing but outlines.
    project.plot_input_image(masks=has_mask and part is None, save=folder / "input_image.png")
    pictures = [Picture("input_image.png", f"The input{'' if part else outlined}.")]
    if part is not None:
        project.plot_input_image(masks=has_mask, crop=part, save=folder / "input_detail.png")
        pictures.append(Picture("input_detail.png", f"A part of the input{outlined}."))
    if has_mask:
        project.plot_segmentation_masks(crop=part, save=folder / "masks.png")
        seen = "The same part of the masks" if part else "The masks"
        caption = f"{seen}; colours only tell neighbours apart."
        pictures.append(Picture("masks.png", caption))
    return pictures


def detail(project: Reported) -> Crop | None:
    """Choose a part to look at closely, if cells are small on a page: where most of it is cell."""
    store = project.filehandler
    height, width = store.open_array(names.INPUT_IMAGE).shape[-2:]
    y, x, edge = height / 2, width / 2, float(_LOOK)
    if masks := [name for name in names.LABELS_OF_KIND.values() if name in store]:
        levels = [store.open_array(masks[-1], k) for k in range(len(store.level_paths(masks[-1])))]
        y, x = _densest(levels)
        edge = _CELLS_ACROSS * _diameter(levels, _square(y, x, _LOOK, height, width))
    if max(height, width) <= 1.5 * edge:
        return None
    return _square(y, x, edge, height, width)


def _square(y: float, x: float, edge: float, height: int, width: int) -> Crop:
    """Return the square about a point, moved or cut where it does not lie in the image."""
    tall, wide = min(int(edge), height), min(int(edge), width)
    y0 = int(np.clip(y - tall / 2, 0, height - tall))
    x0 = int(np.clip(x - wide / 2, 0, width - wide))
    return y0, y0 + tall, x0, x0 + wide


def _densest(levels: list[Any]) -> tuple[float, float]:
    """Find the middle (y, x) of the part of a mask that holds most cell."""
    from scipy.ndimage import uniform_filter

    view = fitting_view(levels, max_pixels=_OVERVIEW)
    inside = (view[:, :] > 0).astype(np.float32)
    filled = uniform_filter(inside, max(1, round(_LOOK / view.scale)), mode="constant")
    y, x = np.unravel_index(filled.argmax(), filled.shape)
    return float(y * view.scale), float(x * view.scale)


def _diameter(levels: list[Any], crop: Crop) -> float:
    """Typical diameter of a cell in a part of a mask, in pixels."""
    y0, y1, x0, x1 = crop
    ids, areas = np.unique(levels[0][y0:y1, x0:x1], return_counts=True)
    return float(np.sqrt(np.median(areas[ids > 0]))) if (ids > 0).any() else 1.0
