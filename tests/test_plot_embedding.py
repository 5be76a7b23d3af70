"""Cells in the plane of their principal components. (The pictures were also looked at.)"""

from __future__ import annotations

import numpy as np
import pytest

from scportrait_like import plot
from scportrait_like.errors import InputError, ShapeError

GENERATOR = np.random.default_rng(0)


def texts(figure):
    return [t.get_text() for t in figure.texts]


def assert_texts_do_not_overlap(figure):
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [t.get_window_extent(renderer) for t in figure.texts]
    for k, box in enumerate(boxes):
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:k])


def test_principal_components_are_those_of_standardised_features():
    values = GENERATOR.normal(size=(300, 6)) @ GENERATOR.normal(size=(6, 6)) * 10.0 ** np.arange(6)
    found = plot.principal_components(values)
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    left, sizes, _ = np.linalg.svd(standard, full_matrices=False)
    expected = left[:, :2] * sizes[:2]
    signs = np.sign((expected * found.points).sum(axis=0))
    np.testing.assert_allclose(found.points, expected * signs, atol=1e-8)
    np.testing.assert_allclose(found.shares, (sizes**2 / (sizes**2).sum())[:2])


def test_principal_components_of_poor_tables():
    values = GENERATOR.normal(size=(50, 4))
    values[:, 1], values[:, 2], values[3, 0] = 7, np.nan, np.inf
    found = plot.principal_components(values)
    assert found.rows.tolist() == [k for k in range(50) if k != 3]
    assert sum(found.shares) == pytest.approx(1)
    for table in (np.ones((9, 1)), np.ones((0, 3)), np.ones((1, 3)), np.full((3, 3), np.nan)):
        assert np.isfinite(plot.principal_components(table).points).all()
    with pytest.raises(ShapeError):
        plot.principal_components(np.ones(3))


@pytest.mark.parametrize("n", [0, 1, 2, 100, 30_000])
def test_cells_in_the_plane(n: int):
    points = GENERATOR.normal(size=(n, 2))
    figure = plot.plot_embedding(points, title="Features")
    assert any(text.startswith(f"{n:,} cell") for text in texts(figure))
    assert_texts_do_not_overlap(figure)
    groups = GENERATOR.integers(0, 12, n)
    coloured = plot.plot_embedding(points, groups, names={1: "T cells"})
    shown = coloured.axes[0].collections[0].get_facecolors()
    expected = np.unique(plot.cluster_colours(np.unique(groups).tolist()), axis=0)
    if n:
        assert np.allclose(np.unique(shown[:, :3], axis=0), expected)
    assert_texts_do_not_overlap(coloured)


def test_embeddings_refuse_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"\(n, 2\)"):
        plot.plot_embedding(np.ones((3, 3)))
    with pytest.raises(InputError, match="NaN"):
        plot.plot_embedding(np.full((3, 2), np.nan))
    with pytest.raises(ShapeError, match=r"groups must be \(3,\)"):
        plot.plot_embedding(np.ones((3, 2)), [1, 2])
