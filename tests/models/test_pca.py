"""The model pca against a plain decomposition, and scikit-learn where it is there."""

import numpy as np
import pytest

from scportrait_like.errors import ModelError
from scportrait_like.models import embed, resolve_model


def sample(rng, n=60, shape=(2, 1, 7, 7), dtype="f4"):
    """Windows with variances of their own along each direction."""
    p = int(np.prod(shape))
    turn, _ = np.linalg.qr(rng.normal(size=(p, p)))
    scales = 0.9 ** np.arange(p) * 100
    rows = (rng.normal(size=(n, p)) * scales) @ turn + 500
    return rows.reshape(n, *shape).astype(dtype)


def fitted(images, dimension, path=None, **kwargs):
    return resolve_model("pca", kwargs, dimension).fitted(images, None, path)


def run(spec, batch, dimension, dtype="float64"):
    return embed(spec, batch, None, np.arange(len(batch)), dimension, dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8", "u2", "i4"])
@pytest.mark.parametrize(("n", "dimension"), [(60, 5), (200, 98), (6, 5)])
def test_equals_a_decomposition(rng, dtype, n, dimension):
    images, others = sample(rng, n, dtype=dtype), sample(rng, 9, dtype=dtype)
    rows = images.reshape(n, -1).astype(np.float64)
    mean = rows.mean(axis=0)
    _, sizes, axes = np.linalg.svd(rows - mean, full_matrices=False)
    axes = axes[:dimension]
    axes *= np.sign(axes[np.arange(dimension), np.abs(axes).argmax(axis=1)])[:, None]
    wanted = (others.reshape(9, -1) - mean) @ axes.T
    found = run(fitted(images, dimension), others, dimension)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7 * sizes[0])


def test_equals_scikit_learn(rng):
    decomposition = pytest.importorskip("sklearn.decomposition")
    images, others = sample(rng, 100, dtype="f8"), sample(rng, 20, dtype="f8")
    peer = decomposition.PCA(6, svd_solver="full").fit(images.reshape(100, -1))
    found = run(fitted(images, 6), others, 6)
    np.testing.assert_allclose(found, peer.transform(others.reshape(20, -1)), rtol=1e-7, atol=1e-6)


def test_equal_samples_give_equal_bits(rng, tmp_path):
    images = sample(rng)
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    specs = [fitted(images.copy(), 4, path) for path in paths]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert specs[0].identity == specs[1].identity != fitted(images[1:], 4).identity
    assert not [path for path in tmp_path.iterdir() if path not in paths]


def test_a_file_or_in_memory(rng, tmp_path):
    images = sample(rng)
    path = tmp_path / "pca.npz"
    kept, held = fitted(images, 4, path), fitted(images, 4)
    again = resolve_model("pca", embedding_dimension=4).with_fit(path)
    wanted = run(held, images, 4)
    assert kept.identity == held.identity == again.identity
    for spec in (kept, again):
        assert spec.fit_sample == 0
        np.testing.assert_array_equal(run(spec, images, 4), wanted)
    with np.load(path) as file:
        axes, variance = file["components"], file["explained_variance"]
    np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(wanted.var(axis=0, ddof=1), variance, rtol=1e-9)
    assert (np.diff(variance) < 0).all()


def test_another_file_is_noticed(rng, tmp_path):
    path = tmp_path / "pca.npz"
    first = fitted(sample(rng), 4, path)
    fitted(sample(rng), 4, path)
    with pytest.raises(ModelError, match=r"pca\.npz is not what this run began with"):
        run(first, sample(rng), 4)
    path.unlink()
    with pytest.raises(ModelError, match=r"cannot be read from .*pca\.npz"):
        run(first, sample(rng), 4)


def test_what_it_needs(rng):
    assert resolve_model("pca").fit_sample == 1000
    spec = resolve_model("pca", {"sample": 40})
    assert spec.fit_sample == 40
    with pytest.raises(ValueError, match="pca: give embedding_dimension"):
        spec.dimension(3, 1)
    with pytest.raises(ValueError, match="pca: give embedding_dimension"):
        spec.fitted(sample(rng), None)
    for wrong in (1, 2.5, True, "many"):
        with pytest.raises(ValueError, match=r"sample, the windows to fit on"):
            resolve_model("pca", {"sample": wrong})
    with pytest.raises(ValueError, match="it takes no 'whiten'"):
        resolve_model("pca", {"whiten": True})
    with pytest.raises(ModelError, match="pca was not fitted"):
        run(resolve_model("pca", embedding_dimension=3), sample(rng), 3)
    assert resolve_model("pca", embedding_dimension=3).feature_names(["a"], []) == [
        "embedding_0",
        "embedding_1",
        "embedding_2",
    ]


def test_samples_that_do_not_do(rng):
    images = sample(rng, 5)
    with pytest.raises(ValueError, match=r"embedding_dimension=5 needs a sample .* 5 windows"):
        fitted(images, 5)
    with pytest.raises(ValueError, match="have fewer than embedding_dimension=4 components"):
        fitted(images[[0, 1, 0, 1, 0, 1]], 4)
    images[2, 0, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        fitted(images, 2)
    spec = fitted(sample(rng), 3)
    with pytest.raises(ModelError, match=r"= 75 pixels; fitted on 98 pixels"):
        run(spec, sample(rng, 4, (3, 1, 5, 5)), 3)
