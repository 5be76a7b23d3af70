"""Ragged boxes for the tests of the kernels."""

import numpy as np
import pytest
from hypothesis import strategies as st

from scportrait_like.kernels import ragged_offsets


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def split(flat, boxes):
    """The boxes of a ragged buffer as arrays of two axes."""
    offsets = ragged_offsets(boxes)
    return [
        flat[a:b].reshape(y1 - y0, x1 - x0)
        for a, b, (y0, x0, y1, x1) in zip(offsets, offsets[1:], boxes, strict=False)
    ]


def ragged(arrays, dtype):
    """Boxes, offsets and the flat buffer of a list of arrays of two axes."""
    boxes = np.array([[0, 0, *a.shape] for a in arrays], np.int64).reshape(-1, 4)
    flat = np.concatenate([np.zeros(0, dtype), *[np.ravel(a).astype(dtype) for a in arrays]])
    return boxes, ragged_offsets(boxes), flat


def blobs(rng, count, low=1, high=40):
    """Masks of any shape: noise, smoothed noise, rings, full and empty ones."""
    import scipy.ndimage as ndi

    masks = []
    for i in range(count):
        shape = tuple(rng.integers(low, high, 2))
        noise = rng.random(shape)
        kind = i % 5
        if kind == 0:
            masks.append(noise < rng.random())
        elif kind == 1:
            masks.append(ndi.uniform_filter(noise, 3) < 0.5)
        elif kind == 2:
            y, x = np.indices(shape)
            r = np.hypot(y - shape[0] / 2, x - shape[1] / 2)
            masks.append((r.astype(int) % 4 < 2) & (noise < 0.97))
        elif kind == 3:
            y, x = np.indices(shape)
            masks.append(np.hypot(y - shape[0] / 2, x - shape[1] / 2) < min(shape) / 2 - 4)
        else:
            masks.append(np.full(shape, bool(i % 2)))
    return masks


@st.composite
def some_boxes(draw, low=-12, high=30):
    n = draw(st.integers(0, 6))
    boxes = []
    for _ in range(n):
        y0, x0 = draw(st.integers(low, high)), draw(st.integers(low, high))
        boxes.append((y0, x0, y0 + draw(st.integers(0, 20)), x0 + draw(st.integers(0, 20))))
    return np.array(boxes, np.int64).reshape(-1, 4)
