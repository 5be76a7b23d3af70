"""The sample depends on the seed and on the pixels, and on nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scportrait_like.errors import InputError
from scportrait_like.kernels.hashing import draw_pixels, hash_key
from scportrait_like.pixels.sample_sizes import shares, smallest
from scportrait_like.pixels.sampling import (
    REDRAW,
    WEIGH,
    Sampling,
    note_sampling,
    sample_of,
    sampling_stages,
)
from scportrait_like.pixels.stages import PixelTask

from .sampled import drawn, image_of, run, same

Pixels = np.ndarray[Any, Any]
STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
MASK = (1 << 64) - 1


def mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * FIRST) & MASK
    value = ((value ^ (value >> 27)) * SECOND) & MASK
    return value ^ (value >> 31)


def expected(arrays: list[Pixels], n: int, seed: int) -> tuple[list[int], list[int]]:
    """Images and positions by the rule, in plain Python."""
    found = []
    for number, array in enumerate(arrays):
        flat = array.reshape(len(array), -1)
        start = mixed((mixed((seed + 1 + STEP) & MASK) + (number + 1) * STEP) & MASK)
        for position in np.flatnonzero(np.isfinite(flat).all(axis=0)).tolist():
            hashed = mixed((start + position * STEP) & MASK)
            found.append((hashed, number, position))
    found = sorted(pair[1:] for pair in sorted(found)[:n])
    return [image for image, _ in found], [position for _, position in found]


@pytest.fixture
def arrays() -> list[Pixels]:
    """Two images (3, y, x) float32, with NaN and infinite values."""
    rng = np.random.default_rng(3)
    made = [rng.random((3, *shape), np.float32) for shape in ((61, 83), (40, 57))]
    for each in made:
        each[rng.random(each.shape) < 0.1] = np.nan
        each[0, 3, 4:9] = np.inf
        each[1, 5, 4:9] = -np.inf
        each[:, 20:30, 20:40] = np.nan
    return made


def test_it_is_the_smallest_hashes(tmp_path: Path, arrays: list[Pixels]) -> None:
    valid = sum(int(np.isfinite(array).all(axis=0).sum()) for array in arrays)
    sampling = Sampling(0.1, 10**6, seed=7)
    sample = drawn(tmp_path / "run", arrays, sampling, (16, 32))
    n = round(0.1 * valid)
    assert sample.counts == {
        "valid": valid,
        "wanted": n,
        "drawn": n,
        "max_samples": 10**6,
        "images": np.bincount(sample.image).tolist(),
    }
    images, positions = expected(arrays, n, seed=7)
    assert sample.image.tolist() == images
    assert sample.position.tolist() == positions
    rows = [arrays[i].reshape(3, -1)[:, p] for i, p in zip(images, positions, strict=True)]
    assert sample.rows.dtype == np.float64
    assert np.array_equal(sample.rows, np.array(rows, np.float64))


@pytest.mark.parametrize("strata", [None, "channels"])
@pytest.mark.parametrize("max_samples", [10**6, 100])
def test_tiles_and_executors_do_not_matter(
    tmp_path: Path, arrays: list[Pixels], strata: str | None, max_samples: int
) -> None:
    sampling = Sampling(0.2, max_samples, 5, strata)
    first = drawn(tmp_path / "whole", arrays, sampling)
    assert np.isfinite(first.rows).all()
    cases = [((61, 5), "inline"), ((7, 13), "threads"), ((1, 83), "inline")]
    for number, (edges, executor) in enumerate(cases):
        other = drawn(tmp_path / str(number), arrays, sampling, edges, executor)
        assert same(first, other)


@pytest.mark.slow
def test_processes_draw_the_same(tmp_path: Path, arrays: list[Pixels]) -> None:
    sampling = Sampling(0.2, 500, 5)
    first = drawn(tmp_path / "whole", arrays, sampling)
    assert same(first, drawn(tmp_path / "apart", arrays, sampling, (16, 16), "processes"))


def test_a_volume(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volume = rng.random((2, 5, 20, 30))
    volume[0, :, :10] = np.nan
    sampling = Sampling(0.3, 10**6, seed=1)
    sample = drawn(tmp_path / "run", [volume], sampling, (2, 7, 11))
    _, positions = expected([volume], len(sample.rows), seed=1)
    assert sample.position.tolist() == positions
    assert len(positions) == round(0.3 * 5 * 10 * 30)
    assert np.array_equal(sample.rows, volume.reshape(2, -1)[:, positions].T)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", ">u2", "i4", "u4", "f4", "f8", "i8"])
def test_dtypes(tmp_path: Path, dtype: str) -> None:
    array = (np.random.default_rng(1).random((2, 30, 40)) * 100).astype(dtype)
    sample = drawn(tmp_path / "run", [array], Sampling(None, 10**6, 0))
    assert np.array_equal(sample.rows, array.reshape(2, -1).T.astype(float))
    assert sample.position.tolist() == list(range(1200))


def test_another_seed_draws_others(tmp_path: Path, arrays: list[Pixels]) -> None:
    first = drawn(tmp_path / "one", arrays, Sampling(0.1, 10**6, 1))
    other = drawn(tmp_path / "two", arrays, Sampling(0.1, 10**6, 2))
    assert len(first.rows) == len(other.rows)
    common = set(zip(first.image, first.position, strict=True)) & set(
        zip(other.image, other.position, strict=True)
    )
    assert len(common) < 0.2 * len(first.rows)


def test_the_cap(tmp_path: Path, arrays: list[Pixels], caplog: pytest.LogCaptureFixture) -> None:
    capped = drawn(tmp_path / "capped", arrays, Sampling(0.5, 77, 9))
    assert len(capped.rows) == capped.counts["drawn"] == 77
    assert capped.counts["wanted"] > 77
    assert (capped.image.tolist(), capped.position.tolist()) == expected(arrays, 77, 9)
    everything = drawn(tmp_path / "all", arrays, Sampling(None, 10**6, 9))
    assert len(everything.rows) == everything.counts["valid"]

    with caplog.at_level(logging.INFO):
        note_sampling(task_of(tmp_path / "capped", arrays).left(WEIGH))
    assert caplog.records[0].levelname == "WARNING"
    assert "77 pixels (max_samples) instead of" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        note_sampling(task_of(tmp_path / "all", arrays).left(WEIGH))
    assert [record.levelname for record in caplog.records] == ["INFO"]


def task_of(folder: Path, arrays: list[Pixels]) -> PixelTask:
    from scportrait_like.run.rundir import RunDirectory

    images = tuple(image_of(array) for array in arrays)
    return PixelTask(images, {}, RunDirectory(folder).units_path)


def test_few_valid_pixels_are_drawn_again(tmp_path: Path) -> None:
    """A cap, and pixels of which hardly any can be drawn: the first look keeps too few."""
    array = np.random.default_rng(2).random((2, 400, 500))
    array[0, :, 25:] = np.nan
    sampling = Sampling(None, 400, 3)
    images = [image_of(array, (64, 64))]
    task = run(tmp_path / "run", images, sampling_stages(sampling))
    assert "hashes" in task.left_in_tile(REDRAW, 0, 0)
    sample = sample_of(task)
    assert sample.position.tolist() == expected([array], 400, 3)[1]
    # Where the first look keeps enough, nothing is looked at twice.
    full = run(tmp_path / "full", [image_of(array[:, :, :25])], sampling_stages(sampling))
    assert list(full.left_in_tile(REDRAW, 0, 0)) == []
    assert len(sample_of(full).rows) == 400


def test_one_pixel_at_least(tmp_path: Path) -> None:
    array = np.full((2, 10, 10), np.nan)
    array[:, 4, 5] = 1, 2
    sample = drawn(tmp_path / "run", [array], Sampling(0.01, 10, 0), (3, 3))
    assert sample.rows.tolist() == [[1, 2]]
    assert sample.position.tolist() == [45]


def test_rare_phenotypes_keep_their_share(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    array = rng.random((4, 200, 300)).astype(np.float32)
    array[0] += 2
    array[2, :2, :50] += 5  # 100 of 60,000 pixels
    array[3, 100:, 150:] += 5  # a quarter
    # Channel 1 is nowhere the highest.
    plain = drawn(tmp_path / "plain", [array], Sampling(0.02, 10**6, 1))
    assert np.sum(plain.rows.argmax(axis=1) == 2) < 10
    sample = drawn(tmp_path / "strata", [array], Sampling(0.02, 10**6, 1, "channels"), (50, 60))
    assert len(sample.rows) == 1200
    found = np.bincount(sample.rows.argmax(axis=1), minlength=4)
    assert found.tolist() == [550, 0, 100, 550]
    assert sample.counts["strata"] == {
        "0": [44_900, 550],
        "1": [0, 0],
        "2": [100, 100],
        "3": [15_000, 550],
    }


@pytest.mark.parametrize(
    ("counts", "n", "quota"),
    [
        ([5, 100, 100], 65, [5, 30, 30]),
        ([5, 100, 100], 66, [5, 30, 31]),
        ([0, 7], 7, [0, 7]),
        ([1, 1, 1], 2, [0, 1, 1]),
        ([10], 4, [4]),
        ([3, 3, 3], 9, [3, 3, 3]),
        ([3, 2, 3], 8, [3, 2, 3]),
    ],
)
def test_shares(counts: list[int], n: int, quota: list[int]) -> None:
    assert shares(np.array(counts), n).tolist() == quota


def test_shares_give_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        counts = rng.integers(0, 20, rng.integers(1, 9))
        n = int(rng.integers(0, counts.sum() + 1))
        quota = shares(counts, n)
        assert quota.sum() == n
        assert (quota <= counts).all()


def test_smallest() -> None:
    hashes = np.array([5, 1, 9, 1, 7, 1], np.uint64)
    among = np.array([0, 1, 3, 4, 5])
    assert smallest(hashes, among, 0).tolist() == []
    assert smallest(hashes, among, 2).tolist() == [1, 3]
    assert smallest(hashes, among, 4).tolist() == [0, 1, 3, 5]
    assert smallest(hashes, among, 9).tolist() == among.tolist()


def test_hashes_are_uniform_and_images_differ() -> None:
    n = 1 << 18
    strata = np.zeros(n, np.int16)
    most = np.array([(1 << 64) - 1], np.uint64)
    found = {}
    for seed, image in ((0, 0), (0, 1), (1, 0), (1 << 62, 0)):
        key = hash_key(seed, image)
        counts, drawn_, positions, hashes = draw_pixels(
            strata, (0, 0, 0), (1, 512, 512), (1, 512, 512), key, most
        )
        assert counts.tolist() == [n]
        assert np.array_equal(drawn_, positions)
        assert len(np.unique(hashes)) == n
        # In each of 256 rows of the image and each of 256 ranges of the hash.
        for table in ((hashes >> np.uint64(56)), hashes & np.uint64(255)):
            seen = np.bincount(table.astype(np.int64), minlength=256)
            chi2 = ((seen - n / 256) ** 2 / (n / 256)).sum()
            assert 150 < chi2 < 380
        small = (hashes < np.uint64(1 << 60)).reshape(512, 512)
        rows = small.sum(axis=1)
        assert rows.min() > 8
        assert rows.max() < 65
        found[seed, image] = hashes
    keys = list(found)
    for one in range(len(keys)):
        for other in range(one):
            r = np.corrcoef(found[keys[one]].astype(float), found[keys[other]].astype(float))
            assert abs(r[0, 1]) < 0.01


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fraction": 0.0}, "fraction must be above 0"),
        ({"fraction": 1.5}, "fraction must be above 0"),
        ({"fraction": float("nan")}, "fraction must be above 0"),
        ({"fraction": True}, "fraction must be above 0"),
        ({"fraction": "0.1"}, "fraction must be above 0"),
        ({"max_samples": 0}, "max_samples must be at least 1"),
        ({"max_samples": 2.5}, "max_samples must be a whole number"),
        ({"seed": -1}, "random_state must be at least 0"),
        ({"strata": "cells"}, "strata must be None or one of channels"),
    ],
)
def test_bad_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**wrong)


def test_nothing_to_draw(tmp_path: Path) -> None:
    array = np.full((2, 10, 10), np.nan, np.float32)
    array[0] = 1
    with pytest.raises(InputError, match="no pixel of image0, image1 has a number in all"):
        drawn(tmp_path / "run", [array, array], Sampling())
