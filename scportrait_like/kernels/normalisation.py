"""How the pixels of a portrait are brought to [0, 1]: the names that ``portraits`` takes."""

from __future__ import annotations

import math
from typing import NamedTuple


class Quantiles(NamedTuple):
    """Stretch between two quantiles of the window, zeros included, and clip to [0, 1]."""

    lower: float
    upper: float


class Scale(NamedTuple):
    """Divide by ``maximum`` (that of the image's integer dtype), clipped at 0 below."""

    maximum: float


class Plain(NamedTuple):
    """Leave the values as they are (floats in [0, 1])."""


Normalisation = Quantiles | Scale | Plain

Rank = tuple[int, int, float]
"""A quantile as numpy sees it: two neighbouring order statistics and the weight between them."""


def rank(quantile: float, count: int) -> Rank:
    """Where ``numpy.quantile(..., method="linear")`` looks in ``count`` sorted values."""
    if not 0 <= quantile <= 1:
        raise ValueError(f"a quantile must lie in [0, 1], not {quantile}")
    virtual = (count - 1) * float(quantile)
    if virtual >= count - 1:
        return count - 1, count - 1, 0.0
    low = math.floor(virtual)
    return low, low + 1, virtual - low
