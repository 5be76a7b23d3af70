"""The LZF encoder against two decoders: that of h5py and that of imagecodecs."""

import io

import h5py
import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.kernels import lzf_encode


def encode(planes):
    out = np.full(planes.shape, 99, np.uint8)
    sizes = np.full(len(planes), -1, np.int64)
    lzf_encode(planes, out, sizes)
    return out, sizes


def check(planes):
    planes = np.atleast_2d(planes)
    size = planes.shape[1]
    out, sizes = encode(planes)
    assert ((sizes >= 0) & (sizes < max(size, 1))).all()
    for plane, stream, n in zip(planes, out, sizes, strict=True):
        if n:
            decoded = imagecodecs.lzf_decode(stream[:n].tobytes(), header=False, out=size)
            assert bytes(decoded) == plane.tobytes()
    # Read from the closed file: HDF5 2.0 forgets the filter mask of the chunk written last.
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        data = file.create_dataset(
            "a", planes.shape, np.uint8, chunks=(1, size), compression="lzf", shuffle=False
        )
        for i, n in enumerate(sizes):
            chunk = out[i, :n] if n else planes[i]
            data.id.write_direct_chunk((i, 0), chunk.tobytes(), filter_mask=0 if n else 1)
    with h5py.File(image) as file:
        np.testing.assert_array_equal(file["a"][:], planes)
    return sizes


def portrait(rng, size):
    plane = np.zeros((size, size), np.float16)
    a, b = np.sort(rng.integers(0, size + 1, 2))
    plane[a:b, a:b] = np.clip(rng.normal(0.5, 0.4, (b - a, b - a)), 0, 1)
    return plane.reshape(1, -1).view(np.uint8)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 700)), min_size=1, max_size=12),
    st.integers(1, 3),
    st.booleans(),
)
def test_runs_of_any_length(runs, unit, noise):
    rng = np.random.default_rng(len(runs))
    plane = np.concatenate([np.full(n, v, np.uint8).repeat(unit) for v, n in runs])
    if noise:
        plane = np.concatenate([plane, rng.integers(0, 256, 50).astype(np.uint8), plane])
    check(plane)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=600))
def test_any_bytes(data):
    check(np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("size", [8, 10, 33, 64, 128, 512])
def test_portraits(size, rng):
    check(np.concatenate([portrait(rng, size) for _ in range(5)]))


@pytest.mark.parametrize(
    "nbytes",
    [
        *range(1, 40),
        255,
        256,
        263,
        264,
        265,
        266,
        267,
        268,
        269,
        270,
        527,
        528,
        529,
        530,
        531,
        532,
        533,
        8192,
        8191,
        524288,
    ],
)
def test_all_equal(nbytes, rng):
    zero = check(np.zeros(nbytes, np.uint8))
    one = check(np.full(nbytes, 255, np.uint8))
    check(np.resize(np.array([1, 2], np.uint8), nbytes))
    if nbytes > 16:
        assert zero[0] > 0
        assert one[0] > 0
    if nbytes == 8192:
        assert zero[0] < 120


def test_noise_does_not_shrink(rng):
    planes = rng.integers(0, 256, (4, 8192)).astype(np.uint8)
    assert (check(planes) == 0).all()


@pytest.mark.parametrize("tail", range(12))
def test_noise_around_runs(tail, rng):
    for head in range(12):
        for run in (3, 4, 5, 6, 7, 8, 9, 262, 263, 264, 265, 266, 267, 268, 269, 600):
            plane = np.concatenate(
                [rng.integers(1, 256, head), np.zeros(run), rng.integers(1, 256, tail)]
            ).astype(np.uint8)
            encode(plane[None])
    check(plane)


def test_unaligned_and_read_only(rng):
    planes = np.zeros(3 * 64 + 1, np.uint8)[1:].reshape(3, 64)
    planes[:, 10:12] = 5
    planes.flags.writeable = False
    assert (check(planes) > 0).all()


def test_no_planes():
    encode(np.zeros((0, 64), np.uint8))
    encode(np.zeros((2, 0), np.uint8))


def test_wrong_arguments_are_refused():
    planes = np.zeros((2, 64), np.uint8)
    with pytest.raises(ValueError, match="nbytes"):
        lzf_encode(planes, np.zeros((2, 63), np.uint8), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="nbytes"):
        lzf_encode(planes, planes.copy(), np.zeros(3, np.int64))
    with pytest.raises(TypeError, match="int64"):
        lzf_encode(planes, planes.copy(), np.zeros(2, np.int32))
