"""Portraits against numpy, to the last bit."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.kernels import Plain, Quantiles, Scale, mask_planes, portraits, ragged_offsets
from scportrait_like.kernels._portrait_loops import half_bits


def reference(product, how):
    with np.errstate(all="ignore"):
        if isinstance(how, Quantiles):
            lower, upper = np.quantile(product, [how.lower, how.upper], method="linear")
            product = product - lower
            if upper - lower != 0:
                product = product / (upper - lower)
            product = np.clip(product, 0, 1)
        elif isinstance(how, Scale):
            product = np.maximum(product / how.maximum, 0)
        return product.astype(np.float16)


def check(planes, masks, corners, boxes, size, how):
    offsets = ragged_offsets(boxes)
    values = np.concatenate([np.ravel(p) for p in planes])
    blurred = np.concatenate([np.ravel(m) for m in masks])
    out = np.full((len(boxes), 3, size, size), 12345, np.uint16)
    portraits(values, blurred, boxes, offsets, corners, size, how, out[:, 1])
    for i, (y0, x0, y1, x1) in enumerate(boxes - np.tile(corners, 2)):
        window = np.zeros((size, size))
        with np.errstate(all="ignore"):
            product = planes[i].astype(np.float64) * masks[i]
        window[y0:y1, x0:x1] = np.where(masks[i] == 0, 0, product)
        expected = reference(window, how)
        found = out[i, 1].view(np.float16)
        np.testing.assert_array_equal(found, expected)  # -0 and 0, and all NaN, count as equal
    assert (out[:, [0, 2]] == 12345).all()


def make(rng, size, kind, count=8):
    """Planes and masks of boxes inside windows."""
    planes, masks, boxes = [], [], []
    corners = rng.integers(-50, 50, (count, 2))
    for i in range(count):
        ends = np.sort(rng.integers(0, size + 1, (2, 2)), axis=0)
        if i == 0:
            ends = np.array([[0, 0], [size, size]])
        shape = tuple(ends[1] - ends[0])
        boxes.append([*(ends[0] + corners[i]), *(ends[1] + corners[i])])
        mask = (rng.random(shape) < 0.6).astype(float)
        if min(shape) > 8:
            mask = np.zeros(shape)
            mask[4:-4, 4:-4] = 1
            mask = ndi.gaussian_filter(mask, 1)
        masks.append(mask)
        noise = rng.random(shape)
        planes.append(
            {
                "uint16": (noise * 60000).astype(np.uint16),
                "smooth": (ndi.gaussian_filter(noise, 2) * 60000).astype(np.uint16),
                "few": (noise * 4).astype(np.uint8),
                "int16": (noise * 60000 - 30000).astype(np.int16),
                "negative": -noise - 1,
                "float": noise.astype(np.float32),
                "wide": np.exp(noise * 200 - 100),
                "zero": np.zeros(shape, np.uint16),
                "same": np.full(shape, 7, np.uint16),
            }[kind]
        )
    return planes, masks, corners, np.array(boxes), size


KINDS = ["uint16", "smooth", "few", "int16", "negative", "float", "wide", "zero", "same"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "how",
    [
        Quantiles(0.001, 0.999),
        Quantiles(0.01, 0.99),
        Quantiles(0.0, 1.0),
        Quantiles(0.25, 0.75),
        Quantiles(0.6, 0.95),
        Quantiles(0.5, 0.5),
        Scale(65535.0),
        Plain(),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 9, 32, 64])
def test_bits(kind, how, size, rng):
    if isinstance(how, Plain) and kind != "float":
        pytest.skip("only floats in [0, 1] are left as they are")
    check(*make(rng, size, kind), how)


def test_large_window(rng):
    for how in (Quantiles(0.001, 0.999), Quantiles(0.2, 0.98)):
        check(*make(rng, 300, "uint16", 3), how)
        check(*make(rng, 256, "int16", 3), how)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.floats(allow_nan=False, width=64), min_size=1, max_size=60),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.integers(0, 2**32 - 1),
)
def test_any_values_and_quantiles(size, pool, quantiles, seed):
    rng = np.random.default_rng(seed)
    planes, masks, corners, boxes, size = make(rng, size, "uint16", 3)
    planes = [rng.choice(np.array(pool), p.shape) for p in planes]
    check(planes, masks, corners, boxes, size, Quantiles(*sorted(quantiles)))


def test_outside_of_the_mask_nothing_matters():
    plane = np.array([[np.nan, np.inf, -np.inf, 3.0]])
    mask = np.array([[0.0, 0.0, 0.0, 1.0]])
    boxes = np.array([[0, 0, 1, 4]])
    for how in (Quantiles(0.0, 1.0), Scale(3.0), Plain()):
        check([plane], [mask], np.zeros((1, 2), int), boxes, 4, how)


def test_nan_inside():
    plane = np.array([[np.nan, 1.0]])
    check([plane], [np.ones((1, 2))], np.zeros((1, 2), int), np.array([[0, 0, 1, 2]]), 4, Plain())
    for q in ((0.0, 0.2), (0.001, 0.999)):
        boxes = np.array([[0, 0, 1, 2]])
        check([plane], [np.ones((1, 2))], np.zeros((1, 2), int), boxes, 4, Quantiles(*q))


def test_half_rounds_like_numpy(rng):
    every = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float64)
    every[-1] = 65536.0  # what would follow the largest finite one
    ties = (every[1:] + every[:-1]) / 2
    values = np.concatenate(
        [
            every,
            ties,
            np.nextafter(ties, 0),
            np.nextafter(ties, np.inf),
            rng.random(10000),
            np.exp(rng.uniform(-800, 700, 10000)),
            [0.0, 5e-324, 2.0**-25, 2.0**-24, 2.0**-14, 65519.99, 65520, 1e300, np.inf],
        ]
    )
    values = np.concatenate([values, -values, [np.nan]])
    n = len(values)
    out = np.empty((n, 1, 1), np.uint16)
    boxes = np.tile([0, 0, 1, 1], (n, 1))
    portraits(values, np.ones(n), boxes, ragged_offsets(boxes), np.zeros((n, 2)), 1, Plain(), out)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(out.ravel(), expected)
    assert [half_bits(v) for v in values[::1000]] == expected[::1000].tolist()


def test_mask_planes(rng):
    _, masks, corners, boxes, size = make(rng, 40, "uint16")
    offsets = ragged_offsets(boxes)
    blurred = np.concatenate([np.ravel(m) for m in masks])
    out = np.full((len(boxes), size, size), 12345, np.uint16)
    mask_planes(blurred, boxes, offsets, corners, size, out)
    for i, (y0, x0, y1, x1) in enumerate(boxes - np.tile(corners, 2)):
        window = np.zeros((size, size))
        window[y0:y1, x0:x1] = masks[i]
        np.testing.assert_array_equal(out[i], window.astype(np.float16).view(np.uint16))


def test_wrong_arguments_are_refused():
    boxes = np.array([[0, 0, 2, 2]])
    offsets = ragged_offsets(boxes)
    four = np.ones(4)
    out = np.zeros((1, 8, 8), np.uint16)

    def call(corners=((0, 0),), size=8, how=None, out=out):
        how = how or Quantiles(0.1, 0.9)
        portraits(four, four, boxes, offsets, corners, size, how, out)

    call()
    with pytest.raises(ValueError, match="window"):
        call(corners=((1, 0),))
    with pytest.raises(ValueError, match="window"):
        call(corners=((-7, 0),))
    with pytest.raises(ValueError, match="corners"):
        call(corners=((0, 0), (0, 0)))
    with pytest.raises(ValueError, match="out"):
        call(out=out.astype(np.float16))
    with pytest.raises(ValueError, match="out"):
        call(out=out[:, :4])
    with pytest.raises(ValueError, match="contiguous"):
        call(out=np.zeros((1, 8, 16), np.uint16)[:, :, ::2])
    with pytest.raises(ValueError, match="quantile"):
        call(how=Quantiles(0.1, 1.1))
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        call(out=frozen)
