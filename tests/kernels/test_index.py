"""The cell index against regionprops and numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import regionprops_table

from scportrait_like.kernels import LabelPartials, label_partials, merge_partials

INTEGERS = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)]


def brute(labels, origin=(0, 0, 0)):
    ids = np.unique(labels)
    ids = ids[ids > 0]
    area, sums, box = [], [], []
    for i in ids:
        at = np.argwhere(labels == i).astype(np.int64) + np.asarray(origin)
        area.append(len(at))
        sums.append(at.sum(0))
        box.append(np.r_[at.min(0), at.max(0) + 1])
    k = len(ids)
    return LabelPartials(
        ids.astype(np.int64),
        np.array(area, np.int64),
        np.array(sums, np.int64).reshape(k, 3),
        np.array(box, np.int64).reshape(k, 6),
    )


def assert_same(a, b):
    for name in ("ids", "area", "sums", "box"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == np.int64
        np.testing.assert_array_equal(x, y, err_msg=name)
    assert (a.negative, a.too_large) == (b.negative, b.too_large)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(INTEGERS).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=9),
            elements=st.one_of(
                st.integers(0, 4), st.integers(0, min(np.iinfo(dtype).max, 2**63 - 1))
            ),
        )
    ),
    st.tuples(*[st.integers(0, 2**30)] * 3),
)
def test_equals_brute_force(labels, origin):
    assert_same(label_partials(labels, origin), brute(labels, origin))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("scale", [1, 70_001, 2**33 + 7, (2**63 - 1) // 300])
def test_equals_regionprops(dtype, scale, rng):
    if 300 * scale > np.iinfo(dtype).max:
        pytest.skip("the dtype does not hold these ids")
    small = rng.integers(0, 300, (40, 50)).repeat(3, 0).repeat(2, 1)  # many pieces a label
    small[small > 200] = 0
    found = label_partials((small.astype(dtype) * dtype(scale))[None], (3, 1000, 2000))
    table = regionprops_table(small, properties=("label", "area", "bbox", "centroid"))
    np.testing.assert_array_equal(found.ids, table["label"].astype(np.int64) * scale)
    np.testing.assert_array_equal(found.area, table["area"])
    for column, name in ((1, "bbox-0"), (4, "bbox-2")):
        np.testing.assert_array_equal(found.box[:, column], table[name] + 1000)
    for column, name in ((2, "bbox-1"), (5, "bbox-3")):
        np.testing.assert_array_equal(found.box[:, column], table[name] + 2000)
    np.testing.assert_array_equal(found.box[:, [0, 3]], [[3, 4]] * len(found.ids))
    centroid = found.sums / found.area[:, None]
    np.testing.assert_allclose(centroid[:, 1] - 1000, table["centroid-0"], rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(centroid[:, 2] - 2000, table["centroid-1"], rtol=1e-12, atol=1e-9)


def test_many_labels_let_the_table_grow(rng):
    ids = rng.choice(2**62, 40_000, replace=False)
    labels = ids.reshape(1, 200, 200)
    found = label_partials(labels)
    np.testing.assert_array_equal(found.ids, np.sort(ids))
    assert (found.area == 1).all()
    order = np.argsort(ids)
    np.testing.assert_array_equal(found.sums[:, 1], order // 200)
    np.testing.assert_array_equal(found.sums[:, 2], order % 200)


def test_largest_id_and_no_background():
    labels = np.full((2, 3, 4), 2**63 - 1, np.int64)
    found = label_partials(labels)
    assert found.ids.tolist() == [2**63 - 1]
    assert found.area.tolist() == [24]
    assert found.box.tolist() == [[0, 0, 0, 2, 3, 4]]


@pytest.mark.parametrize("shape", [(1, 5, 5), (0, 5, 5), (1, 0, 5), (1, 5, 0)])
def test_empty(shape):
    found = label_partials(np.zeros(shape, np.uint32))
    assert found.ids.shape == (0,)
    assert found.sums.shape == (0, 3)
    assert found.box.shape == (0, 6)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_negative_is_told(dtype):
    labels = np.array([[[1, -1, np.iinfo(dtype).min, 1, np.iinfo(dtype).max]]], dtype)
    found = label_partials(labels)
    assert found.negative
    assert not found.too_large
    assert found.ids.tolist() == [1, np.iinfo(dtype).max]
    assert found.area.tolist() == [2, 1]


def test_too_large_is_told():
    found = label_partials(np.array([[[2**63, 2**63 - 1, 5]]], np.uint64))
    assert found.too_large
    assert not found.negative
    assert found.ids.tolist() == [5, 2**63 - 1]


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[:, 3:17, 5:21],
        lambda a: a[:, ::2, ::3],
        lambda a: a[:, ::-1, ::-1],
        lambda a: a.transpose(0, 2, 1),
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: np.broadcast_to(a[:1], a.shape),
    ],
)
def test_layouts(view, rng):
    labels = view(rng.integers(0, 9, (3, 20, 30)).astype(np.uint32))
    labels.flags.writeable = False
    assert_same(label_partials(labels), brute(labels))


@pytest.mark.parametrize("labels", [np.zeros((1, 2, 2)), np.zeros((1, 2, 2), bool)])
def test_wrong_dtype(labels):
    with pytest.raises(TypeError, match="integers"):
        label_partials(labels)


def test_wrong_axes():
    with pytest.raises(ValueError, match="z, y, x"):
        label_partials(np.zeros((2, 2), int))


def test_merge_equals_the_whole(rng):
    labels = rng.integers(0, 400, (2, 64, 96)).repeat(2, 2).astype(np.uint32)
    parts, seen = [], []
    for z in range(2):
        for y in range(0, 64, 24):
            for x in range(0, 192, 50):
                tile = labels[z : z + 1, y : y + 24, x : x + 50]
                parts.append(label_partials(tile, (z, y, x)))
                seen.append(parts[-1].ids)
    merged, tiles = merge_partials(parts)
    assert_same(merged, label_partials(labels))
    ids, counts = np.unique(np.concatenate(seen), return_counts=True)
    np.testing.assert_array_equal(ids, merged.ids)
    np.testing.assert_array_equal(counts, tiles)
    assert tiles.dtype == np.int32


def test_merge_of_nothing_and_of_one():
    merged, tiles = merge_partials([])
    assert merged.ids.shape == tiles.shape == (0,)
    assert merged.box.shape == (0, 6)
    empty = label_partials(np.zeros((1, 2, 2), np.uint8))
    merged, tiles = merge_partials([empty, empty])
    assert merged.ids.shape == tiles.shape == (0,)
    one = label_partials(np.array([[[7, -1, 9]]]))
    merged, tiles = merge_partials([empty, one])
    assert_same(merged, one)
    assert tiles.tolist() == [1, 1]
