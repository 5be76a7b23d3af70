"""Holes and blur against scipy, to the last bit."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scportrait_like.kernels import blur, fill_holes

from .conftest import blobs, ragged, split

masks_of = st.lists(
    hnp.arrays(
        bool,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=14),
        elements=st.booleans(),
        fill=st.nothing(),
    ),
    max_size=4,
)


def check_holes(masks):
    boxes, offsets, bits = ragged(masks, np.uint8)
    fill_holes(bits, boxes, offsets)
    for found, mask in zip(split(bits, boxes), masks, strict=True):
        expected = ndi.binary_fill_holes(mask) if mask.size else mask
        np.testing.assert_array_equal(found, expected)


def check_blur(masks):
    boxes, offsets, bits = ragged(masks, np.uint8)
    out = np.full(len(bits), np.nan)
    blur(bits, boxes, offsets, out)
    for found, mask in zip(split(out, boxes), masks, strict=True):
        expected = mask.astype(np.float64)
        if mask.size:
            expected = ndi.gaussian_filter(expected, sigma=1, truncate=4, mode="nearest")
        assert found.tobytes() == expected.tobytes()


@settings(max_examples=150, deadline=None)
@given(masks_of)
def test_any_mask(masks):
    check_holes(masks)
    check_blur(masks)


def test_many_shapes(rng):
    masks = blobs(rng, 500)
    check_holes(masks)
    check_blur(masks)


def test_large_box(rng):
    masks = blobs(rng, 5, 200, 300)
    check_holes(masks)
    check_blur(masks)


def test_spiral_and_diagonal():
    spiral = np.zeros((41, 41), bool)
    y = x = 0
    step, turn = 40, 0
    while step > 0:  # a wall that winds inwards: everything inside is open
        for _ in range(2 if step < 40 else 3):
            dy, dx = [(0, 1), (1, 0), (0, -1), (-1, 0)][turn % 4]
            for _ in range(step):
                y, x = y + dy, x + dx
                spiral[y, x] = True
            turn += 1
        step -= 2
    diamond = np.zeros((9, 9), bool)
    for i in range(9):
        diamond[i, abs(4 - i)] = diamond[i, 8 - abs(4 - i)] = True  # joined by corners only
    broken = diamond.copy()
    broken[0, 4] = False
    check_holes([spiral, spiral.T, spiral[::-1], ~spiral, diamond, broken, ~diamond])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (4, 3)])
def test_smaller_than_the_kernel(shape, rng):
    masks = [rng.random(shape) < 0.5 for _ in range(20)]
    check_holes(masks)
    check_blur(masks)


def test_nothing():
    check_holes([])
    check_blur([])
