"""Planes of single-cell images: those to draw, read from the disk cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scportrait_like.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


class PlanesOf:
    """Some planes of single-cell images (n, planes, S, S) on disk."""

    def __init__(self, images: Any, planes: list[int]) -> None:
        self._images, self._planes = images, planes
        self.shape = (images.shape[0], len(planes), *images.shape[2:])

    def __getitem__(self, row: int) -> np.ndarray[Any, Any]:
        return np.stack([self._images[row, plane] for plane in self._planes])


def choose_planes(
    var: pd.DataFrame, channels: str | Sequence[str] | None, masks: bool
) -> tuple[list[int], int]:
    """Numbers of the planes to draw, masks first, and how many of them are masks."""
    known = [str(name) for name in var["channels"]]
    is_mask = [str(kind) == "mask" for kind in var["channel_mapping"]]
    first = [plane for plane, mask in enumerate(is_mask) if mask and masks]
    named = {known[plane]: plane for plane, mask in enumerate(is_mask) if not mask}
    wanted = [channels] if isinstance(channels, str) else channels
    if wanted is None:
        return first + list(named.values()), len(first)
    if missing := [name for name in wanted if name not in named]:
        raise InputError(
            f"channels: {', '.join(missing)} not among the extracted: {', '.join(named)}"
        )
    return first + [named[name] for name in wanted], len(first)
