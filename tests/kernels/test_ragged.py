"""Statistics of ragged vectors against exact sums and numpy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.kernels import (
    ragged_extremes,
    ragged_moments,
    ragged_rows,
    ragged_sums,
    value_counts,
)

LONG = np.longdouble
SOME = [1, 2, 3, 4, 5, 7, 8, 9, 31, 100, 1001]
LENGTHS = [0, *SOME, 0]
REALS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def ragged(vectors, dtype=np.float64):
    lengths = [len(vector) for vector in vectors]
    values = np.concatenate([np.zeros(0), *vectors]).astype(dtype)
    return values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def same(a, b):
    """Equal to the bit, with NaN equal to NaN."""
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# Sums


def check_sums(vectors):
    found = ragged_sums(*ragged(vectors))
    for vector, (total, rest) in zip(vectors, found, strict=True):
        exact = math.fsum(vector)
        assert abs(total - exact) <= math.ulp(exact), vector
        # The pair is nearer to the exact sum than any float: what is left is of second order.
        left = math.fsum([*vector, -total, -rest])
        size = math.fsum(map(abs, vector))
        assert abs(left) <= len(vector) ** 2 * 2.0**-105 * size
        assert abs(rest) <= math.ulp(total)


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e9, 1e300])
def test_sums_are_exact(scale, rng):
    check_sums([scale * rng.normal(3, 1, n) for n in LENGTHS])


def test_sums_that_cancel(rng):
    vectors = []
    for n in LENGTHS:
        large = rng.normal(0, 1e15, n)
        vectors.append(rng.permutation(np.concatenate([large, rng.random(n), -large])))
    found = ragged_sums(*ragged(vectors))
    for vector, (total, rest) in zip(vectors, found, strict=True):
        assert total + rest == pytest.approx(math.fsum(vector), rel=1e-15, abs=1e-9)
    tricky = [[1.0, 1e100, 1.0, -1e100], [0.1] * 10, [2.0**53, 1.0, 1.0]]
    expected = [2.0, 1.0, 2.0**53 + 2]
    same(ragged_sums(*ragged(tricky)).sum(axis=1), expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(-1e200, 1e200), max_size=30), max_size=6))
def test_any_sums(vectors):
    found = ragged_sums(*ragged(vectors))
    for vector, (total, rest) in zip(vectors, found, strict=True):
        size = math.fsum(map(abs, vector))
        exact = math.fsum(vector)
        assert abs(total - exact) <= math.ulp(exact) + len(vector) ** 2 * 2.0**-105 * size
        assert math.isfinite(rest)


def test_the_rest_belongs_to_the_sum():
    """What a float cannot hold stands in the rest."""
    found = ragged_sums(*ragged([[2.0**60, 1.0], [2.0**60, -1.0, 3.0], [1.0]]))
    same(found, [[2.0**60, 1.0], [2.0**60, 2.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("vector", "total"),
    [
        ([1.0, np.nan, 2.0], np.nan),
        ([np.inf, 1.0], np.inf),
        ([1.0, -np.inf], -np.inf),
        ([np.inf, -np.inf], np.nan),
        ([np.inf, np.nan], np.nan),
        ([1e308, 1e308], np.inf),
        ([], 0.0),
    ],
)
def test_what_is_no_finite_sum(vector, total):
    """It goes through, and its neighbours are not touched."""
    found = ragged_sums(*ragged([[1.0, 2.0], vector, [3.0]]))
    same(found, [[3.0, 0.0], [total, 0.0], [3.0, 0.0]])


def test_whole_numbers_by_plain_addition(rng):
    vectors = [rng.integers(-(2**20), 2**32, n).astype(float) for n in [*LENGTHS, 200_000]]
    exact = [[math.fsum(vector), 0.0] for vector in vectors]
    same(ragged_sums(*ragged(vectors), exact=True), exact)
    same(ragged_sums(*ragged(vectors)), exact)


# Moments


def two_passes(vector):
    """Mean and sums of powers of the distances to it, in extended precision."""
    # From the first value, or the sum of values far from 0 would round.
    near = np.asarray(vector, LONG) - vector[0]
    mean = near.sum() / len(vector)
    return np.array([vector[0] + mean, *(((near - mean) ** p).sum() for p in (2, 3, 4))])


def check_moments(vectors, rtol):
    """Mean to the last bit but one; powers within rtol of the sum of their magnitudes."""
    found = ragged_moments(*ragged(vectors))
    assert found.shape == (len(vectors), 4)
    for vector, moments in zip(vectors, found, strict=True):
        expected = two_passes(vector)
        assert abs(moments[0] - expected[0]) <= 2**-52 * np.abs(vector).max()
        distance = np.abs(np.asarray(vector, LONG) - expected[0])
        for power, value in zip((2, 3, 4), moments[1:], strict=True):
            size = (distance**power).sum()
            assert abs(value - expected[power - 1]) <= rtol * size, (power, len(vector))


@pytest.mark.parametrize("offset", [0.0, -3.0, 1e3, 1e6, 1e9])
def test_moments(offset, rng):
    check_moments([offset + rng.gamma(2, 1, n) for n in [*SOME, 20_000]], rtol=1e-13)


def pixels(dtype, rng):
    """Vectors of a dtype, its largest and smallest values among them."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return [rng.normal(0, 1e4, n).astype(dtype) for n in SOME]
    # What a float64 holds.
    low, high = max(np.iinfo(dtype).min, -(2**53)), min(np.iinfo(dtype).max, 2**53)
    return [rng.integers(low, high, n, dtype, endpoint=True) for n in SOME]


@pytest.mark.parametrize("dtype", REALS)
def test_moments_of_pixels(dtype, rng):
    vectors = pixels(dtype, rng)
    plain = ragged_moments(*ragged(vectors))
    found = ragged_moments(*ragged(vectors, dtype))
    np.testing.assert_allclose(found, plain, rtol=1e-13, atol=1e-13 * np.abs(plain).max())
    check_moments([v.astype(float) for v in vectors], rtol=1e-13)


def test_moments_of_zeros_and_ones(rng):
    check_moments([rng.integers(0, 2, n).astype(float) for n in SOME], rtol=1e-14)


def test_moments_of_one_value():
    vectors = [np.full(n, value) for n in SOME for value in (0.0, 7.0, 0.1, 1e9 + 0.1)]
    found = ragged_moments(*ragged(vectors))
    for vector, (mean, *powers) in zip(vectors, found, strict=True):
        assert mean == pytest.approx(vector[0], rel=2e-16)
        # At most the rounding of the mean, squared.
        assert abs(powers[0]) <= len(vector) * (2 * math.ulp(vector[0])) ** 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_moments_of_what_is_no_number(bad):
    found = ragged_moments(*ragged([[1.0, 3.0], [1.0, bad], [2.0, 6.0]]))
    same(found[[0, 2]], [[2.0, 2.0, 0.0, 2.0], [4.0, 8.0, 0.0, 32.0]])
    assert not np.isfinite(found[1, 0])
    assert np.isnan(found[1, 1:]).all()


# Extremes


@pytest.mark.parametrize("dtype", REALS)
def test_extremes(dtype, rng):
    vectors = pixels(dtype, rng) + [v[:n] for n, v in enumerate(pixels(dtype, rng), 1)]
    expected = [[v.min(), v.max()] for v in vectors]
    same(ragged_extremes(*ragged(vectors, dtype)), np.array(expected, np.float64))
    same(ragged_extremes(*ragged(vectors)), np.array(expected, np.float64))


@pytest.mark.parametrize("length", [1, 2, 4, 5, 8, 11])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_extremes_anywhere(length, bad):
    """At each place of a vector, in blocks and in what is left of them."""
    for place in range(length):
        vector = np.arange(length, dtype=float)
        vector[place] = bad
        found = ragged_extremes(*ragged([[5.0], vector, [-5.0]]))
        same(found[[0, 2]], [[5.0, 5.0], [-5.0, -5.0]])
        same(found[1], [np.min(vector), np.max(vector)])


@pytest.mark.parametrize("made", [ragged_sums, ragged_moments, ragged_extremes])
def test_no_vectors(made):
    assert len(made(*ragged([]))) == 0


# Rows

ITEMS = ["u1", "i1", "?", "u2", "i2", "u4", "i4", "f4", "u8", "i8", "f8"]


@pytest.mark.parametrize("dtype", ITEMS)
def test_rows(dtype, rng):
    vectors = [rng.integers(0, 100, n).astype(dtype) for n in LENGTHS]
    fill = np.nan if dtype[0] == "f" else True if dtype == "?" else np.iinfo(dtype).max
    values, offsets = ragged(vectors, dtype)
    found = ragged_rows(values, offsets, fill)
    assert found.dtype == np.dtype(dtype)
    assert found.shape == (len(vectors), max(LENGTHS))
    for vector, row in zip(vectors, found, strict=True):
        same(row[: len(vector)], vector)
        same(row[len(vector) :], np.full(len(row) - len(vector), fill, dtype))


@pytest.mark.parametrize("fill", [np.inf, -0.0, np.nan])
def test_rows_are_filled_with_these_bits(fill):
    rows = ragged_rows(np.array([1.5, 2.5, 3.5]), [0, 1, 3], fill)
    assert rows[0, 1:].tobytes() == np.array([fill]).tobytes()


def test_rows_of_nothing():
    assert ragged_rows(np.zeros(0, np.uint16), [0], 7).shape == (0, 0)
    assert ragged_rows(np.zeros(0, np.uint16), [0, 0, 0], 7).shape == (2, 0)


def test_rows_may_be_written_to():
    """They are sorted in place; what they were made of stays."""
    values = np.array([3, 1, 2], np.uint16)
    values.flags.writeable = False
    rows = ragged_rows(values, [0, 2, 3], 9)
    rows.sort(axis=1)
    assert rows.tolist() == [[1, 3], [2, 9]]
    assert values.tolist() == [3, 1, 2]


@pytest.mark.parametrize("made", [ragged_sums, ragged_moments, ragged_extremes])
def test_other_layouts(made, rng):
    """Strided and read-only values, offsets of any integer type and plain lists."""
    wide = rng.random(40)
    wide.flags.writeable = False
    plain = made(wide[::2].copy(), np.array([0, 7, 20]))
    same(made(wide[::2], [0, 7, 20]), plain)
    same(made(wide[::2], np.array([0, 7, 20], np.uint32)), plain)


# Counts of values


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2"])
def test_value_counts(dtype, rng):
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, 5000, dtype, endpoint=True)
    values[:700] = info.max
    found = value_counts(values)
    assert found.shape == (2 ** (8 * values.itemsize),)
    unsigned = values.view(f"u{values.itemsize}")
    same(found, np.bincount(unsigned, minlength=len(found)))
    same(value_counts(values.astype(values.dtype.newbyteorder())), found)
    same(value_counts(values.repeat(2)[::2]), found)
    assert value_counts(values[:0]).sum() == 0
