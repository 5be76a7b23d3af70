"""Windows for the tests of models."""

from __future__ import annotations

import numpy as np
import pytest

from scportrait_like.models import _loading


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def make_windows(rng, n, channels=2, n_masks=1, depth=1, size=12, dtype="u2"):
    """Windows (n, c, z, d, d) and masks (n, m, z, d, d): discs with holes, one empty, one full."""
    grid = np.mgrid[:depth, :size, :size]
    centre = rng.uniform(size / 3, 2 * size / 3, (n, n_masks, 2))
    radius = rng.uniform(1, size / 2, (n, n_masks))
    distance = sum((grid[1 + axis] - centre[..., axis, None, None, None]) ** 2 for axis in range(2))
    masks = distance <= radius[..., None, None, None] ** 2
    masks &= rng.random(masks.shape) < 0.9
    if n > 1:
        masks[0], masks[1] = False, True
    shape = (n, channels, depth, size, size)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1, shape).astype(dtype), masks
    if dtype == "?":
        return rng.random(shape) < 0.5, masks
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True), masks


@pytest.fixture
def windows(rng):
    return lambda n, **more: make_windows(rng, n, **more)


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch):
    """Each test loads its models anew."""
    monkeypatch.setattr(_loading, "_models", {})
