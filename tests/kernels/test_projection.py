"""Products that do not depend on the batch."""

import numpy as np
import pytest

from scportrait_like.kernels.projection import project


@pytest.mark.parametrize(("n", "p", "k"), [(1, 1, 1), (3, 511, 4), (5, 513, 1), (2, 2000, 65)])
@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "f2", "f4", "f8"])
def test_equals_numpy(rng, n, p, k, dtype):
    rows = rng.integers(0, 200, (n, p)).astype(dtype) * (rng.random((n, p)) < 0.5)
    matrix = rng.normal(size=(p, k))
    wanted = rows.astype(np.float64) @ matrix
    np.testing.assert_allclose(project(rows, matrix), wanted, rtol=1e-11, atol=1e-9)


def test_no_rows_and_no_pixels():
    assert project(np.ones((0, 4)), np.ones((4, 3))).shape == (0, 3)
    assert project(np.ones((2, 0)), np.ones((0, 3))).tolist() == [[0] * 3] * 2


def test_a_row_does_not_depend_on_others(rng):
    rows, matrix = rng.normal(size=(40, 1300)), rng.normal(size=(1300, 7))
    together = project(rows, matrix)
    one_by_one = np.concatenate([project(row[None], matrix) for row in rows])
    np.testing.assert_array_equal(together, one_by_one)


def test_nan_and_infinity_go_through():
    rows = np.array([[0.0, np.nan], [np.inf, 0.0], [0.0, 1.0]])
    found = project(rows, np.eye(2))
    assert np.isnan(found[0]).tolist() == [True, True]
    assert found[2].tolist() == [0, 1]


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="no shapes of a product"):
        project(np.ones((2, 3)), np.ones((4, 3)))
