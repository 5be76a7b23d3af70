"""A preparation equals plain numpy and scipy, however the image is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter

from scportrait_like.errors import InputError
from scportrait_like.kernels.blurring import blur_plane, blur_runs, gaussian_weights
from scportrait_like.pixels import halos, prepared_values, selection
from scportrait_like.pixels.preparation import Percentiles, Preparation, preparation_stages
from scportrait_like.pixels.prepared import check_known

from .preparing import Array, assert_alike, oracle, prepared

USUAL = Preparation(sigma=1.0)
DTYPES = ("uint8", "uint16", "int8", "int16", "uint32", "int32", "int64", "float16")
DTYPES += ("float32", "float64", "bool", ">u2", ">f4")


def image_of(dtype: str, shape: tuple[int, ...] = (3, 50, 67), seed: int = 0) -> Array:
    """Gamma-distributed pixels, a third of them zero; signed ones are sometimes below zero."""
    random = np.random.default_rng(seed)
    pixels = random.gamma(2, 20, shape) * (random.random(shape) > 1 / 3)
    found = np.dtype(dtype)
    if found.kind == "b":
        return pixels > 0
    if found.kind in "if":
        pixels -= 5 * (random.random(shape) < 0.05)
    if found.kind != "f":
        pixels = np.clip(pixels, np.iinfo(found).min, np.iinfo(found).max)
    return pixels.astype(found)


@pytest.mark.parametrize("cast", ["float32", "float64"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_numpy_and_scipy(dtype: str, cast: str) -> None:
    how = replace(USUAL, dtype=cast)
    image = image_of(dtype)
    wanted, numbers = oracle([image], how)
    found, ours, *_ = prepared([image], how, (16, 20))
    assert_alike(found, wanted, cast)
    for name in ("channel", "threshold", "post"):
        rtol = 2e-7 if cast == "float32" else 1e-13
        np.testing.assert_allclose(getattr(ours, name), getattr(numbers, name), rtol)


@pytest.mark.parametrize(
    "changes",
    [
        {"p": None},
        {"p_sum": None},
        {"p_post": None},
        {"sigma": None},
        {"sigma": 0},
        {"norm_sum": False},
        {"cap_max": 0.7},
        {"p": None, "p_sum": None},
        {"p_sum": None, "sigma": None},
        {"p_sum": None, "p_post": None, "norm_sum": False},
        {"p": None, "p_sum": None, "p_post": None},
        {"p": None, "p_sum": None, "p_post": None, "sigma": None, "norm_sum": False},
        {"p": 0, "p_sum": 100, "p_post": None},
        {"p": 100, "p_sum": 0, "p_post": 100},
        {"p": 50, "p_sum": 37.5, "p_post": 12.34},
        {"sigma": (0.0, 3.0, 1.3)},
        {"sigma": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_each_part_may_be_left_out(changes: dict[str, Any], dtype: str) -> None:
    how = replace(USUAL, **changes)
    image = image_of(dtype) if dtype == "uint16" else np.abs(image_of(dtype))
    wanted, numbers = oracle([image], how)
    found, ours, *_ = prepared([image], how, (16, 20))
    assert_alike(found, wanted, "float32")
    assert [x is None for x in vars(ours).values()] == [x is None for x in vars(numbers).values()]


@pytest.mark.parametrize("edges", [(50, 67), (1, 67), (50, 1), (5, 9), (7, 67), (16, 16), (49, 66)])
@pytest.mark.parametrize("sigma", [1.0, 4.0])
def test_same_bits_however_it_is_cut(edges: tuple[int, int], sigma: float) -> None:
    image = np.abs(image_of("float32"))
    image[1, 20, 30] = np.nan
    how = replace(USUAL, sigma=sigma)
    (whole,), numbers, *_ = prepared([image], how)
    (found,), ours, *_ = prepared([image], how, edges)
    assert ours == numbers
    assert found.tobytes() == whole.tobytes()


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_same_bits_for_each_executor(executor: str, tmp_path: Path) -> None:
    stored = zarr.create_array(tmp_path / "image", data=image_of("uint16"), chunks=(1, 16, 20))
    (whole,), numbers, *_ = prepared([image_of("uint16")], USUAL)
    (found,), ours, *_ = prepared([stored], USUAL, (16, 20), executor=executor)
    assert ours == numbers
    assert found.tobytes() == whole.tobytes()


def test_volumes_are_blurred_plane_by_plane() -> None:
    image = image_of("uint16", (2, 5, 30, 41))
    wanted, _ = oracle([image], USUAL)
    for edges in ((5, 30, 41), (1, 16, 16), (2, 7, 20)):
        found, *_ = prepared([image], USUAL, edges)
        assert_alike(found, wanted, "float32")


def test_several_images_share_percentiles() -> None:
    images = [image_of("uint16", seed=1), image_of("uint16", (3, 31, 20), 2) * 3]
    wanted, numbers = oracle(images, USUAL)
    found, ours, *_ = prepared(images, USUAL, (16, 20))
    assert_alike(found, wanted, "float32")
    np.testing.assert_allclose(ours.channel, numbers.channel)


def test_images_of_different_types() -> None:
    """One is counted, the other one selected."""
    images = [np.abs(image_of("float32", seed=2)), image_of("uint16", seed=1)]
    wanted, _ = oracle(images, USUAL)
    found, *_ = prepared(images, USUAL, (16, 20))
    assert_alike(found, wanted, "float32")


def test_nan_spreads_as_far_as_the_blur() -> None:
    image = np.abs(image_of("float32"))
    image[0, 25, 30] = image[2, 0, 66] = np.nan
    wanted, _ = oracle([image], USUAL)
    (found,), *_ = prepared([image], USUAL, (16, 20))
    assert_alike([found], wanted, "float32")
    assert np.isnan(found[:, 21:30, 26:35]).all()
    assert np.isnan(found[:, :5, 62:]).all()
    plain = replace(USUAL, p_sum=None, norm_sum=False)
    (apart,), *_ = prepared([image], plain, (16, 20))
    assert_alike([apart], oracle([image], plain)[0], "float32")
    assert np.isnan(apart[0, 25, 30])
    assert not np.isnan(apart[1]).any()  # sums are not looked at


def test_infinite_pixels() -> None:
    image = np.abs(image_of("float32"))
    image[0, 25, 30] = np.inf
    found, *_ = prepared([image], USUAL, (16, 20))
    with np.errstate(invalid="ignore"):
        assert_alike(found, oracle([image], USUAL)[0], "float32")
    with pytest.raises(InputError, match="CD3 has a percentile 100 of infinity"):
        prepared([image], replace(USUAL, p=100), channels=["CD3", "CD4", "CD8"])


def test_ties_are_no_trouble() -> None:
    """Few different values: percentiles fall upon many equal ones."""
    image = np.random.default_rng(0).integers(0, 4, (3, 50, 67)).astype(np.float32)
    for p in (0, 25, 33.3, 50, 99, 100):
        how = replace(USUAL, p=p, p_sum=p, p_post=None)
        _, numbers = oracle([image], how)
        _, ours, *_ = prepared([image], how, (16, 20))
        assert ours.channel == numbers.channel
        np.testing.assert_allclose(ours.threshold, numbers.threshold)


def test_a_sum_that_is_the_threshold_is_not_above_it() -> None:
    image = np.random.default_rng(0).integers(1, 30, (3, 40, 41)).astype(np.uint16)
    image[:, ::2] = np.array([3, 7, 11])[:, None, None]
    how = replace(USUAL, p=60, p_sum=40, p_post=None, sigma=None)
    (found,), numbers, *_ = prepared([image], how, (16, 20))
    assert numbers.channel is not None
    total = (image / np.array(numbers.channel)[:, None, None]).sum(axis=0)
    assert numbers.threshold == pytest.approx(total[0, 0])
    assert np.isnan(found[:, ::2]).all()
    assert np.array_equal(np.isnan(found[0]), total <= total[0, 0] * (1 + 1e-6))


@pytest.mark.parametrize("bounds", [None, (1e6, 1e9), (-2.0, -1.0), (1.0, 1.0)])
def test_a_wrong_guess_is_noticed(bounds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a sample gave wrongly cost time and change nothing."""
    image = np.abs(image_of("float32"))
    (whole,), numbers, *_ = prepared([image], USUAL)
    monkeypatch.setattr(prepared_values, "_FEWEST", 8)
    monkeypatch.setattr(selection, "_SIGMAS", 0.0)
    if bounds is not None:
        monkeypatch.setattr(selection, "bounds_of", lambda *_: bounds)
    looked_again: list[bool] = []
    monkeypatch.setattr(
        selection.Collect, "__call__", _noticing(selection.Collect.__call__, looked_again)
    )
    (found,), ours, *_ = prepared([image], USUAL, (16, 20))
    assert any(looked_again)
    assert ours == numbers
    assert found.tobytes() == whole.tobytes()


def _noticing(work: Any, seen: list[bool]) -> Any:
    def noticing(self: Any, task: Any, unit: Any, out: Any, reading: Any) -> None:
        work(self, task, unit, out, reading)
        seen.append(self.again and out._position > 0)

    return noticing


def test_known_percentiles_are_applied() -> None:
    first, second = image_of("uint16", seed=1), image_of("uint16", seed=2)
    _, numbers, *_ = prepared([first], USUAL, (16, 20))
    (found,), ours, sink, _ = prepared([second], USUAL, (16, 20), known=numbers)
    assert ours == numbers
    assert set(sink.units) == {"survey", "rows"}
    assert numbers.channel is not None
    values = second / np.array(numbers.channel)[:, None, None]
    values = np.array([gaussian_filter(channel, 1) for channel in values])
    total = values.sum(axis=0)
    assert numbers.threshold is not None
    values[:, total <= numbers.threshold] = np.nan
    values /= total
    values /= np.array(numbers.post)[:, None, None]
    assert_alike([found], [values], "float32")
    unblurred = replace(USUAL, sigma=None)
    *_, sink, _ = prepared([second], unblurred, (16, 20), known=numbers)
    assert set(sink.units) == {"rows"}


@pytest.mark.parametrize(
    ("how", "changes", "message"),
    [
        ({}, {"threshold": None}, "has p_sum=5, but no percentiles are given for it as threshold"),
        ({"p_sum": None}, {}, "has p_sum=None, but percentiles are given for it as threshold"),
        ({"p": None}, {}, "has p=None, but percentiles are"),
        ({}, {"post": None}, "has p_post=99.9, but no percentiles"),
        ({}, {"channel": (1.0, 2.0)}, "2 percentiles are given as channel, not 3"),
        ({}, {"post": (1.0,) * 4}, "4 percentiles are given as post, not 3"),
        ({}, {"channel": (1.0, 0.0, 2.0)}, "finite numbers above 0, not 0"),
        ({}, {"post": (1.0, np.inf, 2.0)}, "finite numbers above 0, not inf"),
        ({}, {"threshold": -np.inf}, "as threshold are finite numbers, not -inf"),
        ({"sigma": (1.0, 2.0)}, {}, "sigma has 2 values for 3 channels"),
    ],
)
def test_percentiles_belong_to_their_preparation(
    how: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    numbers = Percentiles((1.0, 2.0, 3.0), -0.5, (1.0, 1.0, 0.1))
    check_known(USUAL, numbers, 3)
    with pytest.raises(InputError, match=message):
        check_known(replace(USUAL, **how), replace(numbers, **changes), 3)
    names = ["CD3", "CD4", "CD8"]
    with pytest.raises(InputError, match=message):
        preparation_stages(
            replace(USUAL, **how), np.dtype("uint16"), replace(numbers, **changes), names
        )


@pytest.mark.parametrize(
    ("dtype", "passes"), [("uint16", {"survey", "sums", "post"}), ("float32", {"channels"})]
)
def test_each_pass_decodes_each_chunk_once(dtype: str, passes: set[str], tmp_path: Path) -> None:
    pixels = np.abs(image_of(dtype)) if dtype == "float32" else image_of(dtype)
    stored = zarr.create_array(tmp_path / "image", data=pixels, chunks=(1, 16, 20))
    *_, sink, parts = prepared([stored], USUAL, (16, 20))
    count = len({"survey", "sums", "post", "rows"} | passes)
    assert parts["chunks"] == count * 3 * 4 * 4
    assert passes <= set(sink.units)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.full_like(x, np.nan), "every channel has nothing but zeros"),
        (lambda x: x * np.array([1, 0, 1], x.dtype)[:, None, None], "channel CD4 has nothing"),
        (lambda x: -x, "every channel has a percentile 99 of 0 or less"),
    ],
)
def test_pixels_without_percentiles(change: Any, message: str) -> None:
    image = change(np.abs(image_of("float32")))
    with pytest.raises(InputError, match=message):
        prepared([image], USUAL, (16, 20), channels=["CD3", "CD4", "CD8"])


def test_small_integers_without_percentiles() -> None:
    image = image_of("uint16")
    image[1:] = 0
    with pytest.raises(InputError, match="image 0: channels number 2, number 3 have nothing but"):
        prepared([image], USUAL, (16, 20))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_nothing_above_the_threshold(dtype: str) -> None:
    """The message is of the threshold, not of an image that is full."""
    image = np.zeros((3, 50, 67), dtype)
    image[:, 20:23, 30] = np.array([[5, 6, 7], [6, 7, 8], [1, 2, 3]])
    said = r"no pixel has a blurred sum .* above percentile p_sum=100 of the sums \([\d.]+\): lower"
    with pytest.raises(InputError, match=said):
        prepared([image], replace(USUAL, p_sum=100), (16, 20))
    # A channel of its own: it is dark wherever the others are bright.
    image = image_of(dtype, seed=3).astype(dtype)
    image[:2, 10:30] *= 50
    image[2] = 0
    image[2, -1, -1] = 1
    with pytest.raises(InputError, match="channel CD8 has nothing but zeros and NaN in the pixels"):
        prepared(
            [np.abs(image)], replace(USUAL, p_sum=90), (16, 20), channels=["CD3", "CD4", "CD8"]
        )


def test_channels_of_nothing_once_prepared() -> None:
    image = np.abs(image_of("float32"))
    image[1] = np.nan
    how = replace(USUAL, p=None, p_sum=None, norm_sum=False)
    with pytest.raises(InputError, match="number 2 has nothing but zeros and NaN, once prepared"):
        prepared([image], how, (16, 20))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "bool"])
def test_constant_channels_are_refused_where_something_learns(dtype: str) -> None:
    names = ["CD3", "CD4", "CD8"]
    image = np.abs(image_of(dtype))
    image[1] = 1
    if dtype == "float32":
        image[1, 3, 4] = image[0, 3, 4] = np.nan
    prepared([image], USUAL, (16, 20))
    for how in (USUAL, replace(USUAL, sigma=None, p=None, p_sum=None, p_post=None)):
        with pytest.raises(InputError, match=r"in all pixels of image 0 .*: CD4 \(1\); leave them"):
            prepared([image], how, (16, 20), channels=names, trains=True)
    # One pixel of many, which no sample holds, makes the difference.
    image[1, 40, 61] = 0
    prepared([image], USUAL, (16, 20), channels=names, trains=True)


def test_constant_channels_of_several_images() -> None:
    images = [image_of("uint16", seed=1), image_of("uint16", (3, 31, 20), 2)]
    images[0][2], images[1][2] = 3, 4
    prepared(images, USUAL, (16, 20), trains=True)
    images[1][2] = 3
    with pytest.raises(InputError, match=r"image 0, image 1 .*: number 3 \(3\)"):
        prepared(images, USUAL, (16, 20), trains=True)
    # Zeros have a message of their own where percentiles are asked for.
    images[0][2] = images[1][2] = 0
    with pytest.raises(InputError, match=r"number 3 has nothing but zeros$"):
        prepared(images, USUAL, (16, 20), trains=True)
    with pytest.raises(InputError, match=r"number 3 \(0\); leave"):
        prepared(images, replace(USUAL, p=None), (16, 20), trains=True)


@pytest.mark.parametrize("sigma", [None, 1.0])
def test_columns_that_do_not_fit_in_memory_at_once(
    monkeypatch: pytest.MonkeyPatch, sigma: float | None
) -> None:
    how, image = replace(USUAL, sigma=sigma), np.abs(image_of("float32"))
    (whole,), numbers, *_ = prepared([image], how, (16, 20))
    monkeypatch.setattr(prepared_values, "_TOGETHER", 1)
    monkeypatch.setattr(selection, "_TOGETHER", 1)
    (found,), ours, *_ = prepared([image], how, (16, 20))
    assert ours == numbers
    assert found.tobytes() == whole.tobytes()


def test_columns_together() -> None:
    assert list(selection.batches([3, 4, 2, 9, 1], 7)) == [
        range(2),
        range(2, 3),
        range(3, 4),
        range(4, 5),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p": 101}, "p=101"),
        ({"p_sum": -1}, "p_sum=-1"),
        ({"p_post": float("nan")}, "p_post=nan"),
        ({"p": True}, "p=True"),
        ({"p": "99"}, "p='99'"),
        ({"sigma": -1}, "sigma=-1"),
        ({"sigma": (1, float("inf"))}, "sigma="),
        ({"sigma": ()}, "sigma="),
        ({"sigma": "2"}, "sigma="),
        ({"cap_max": 0}, "cap_max=0"),
        ({"dtype": "float16"}, "float16"),
    ],
)
def test_what_a_preparation_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preparation(**changes)


def test_as_many_sigmas_as_channels() -> None:
    with pytest.raises(InputError, match="sigma has 2 values for 3 channels"):
        prepared([image_of("uint16")], replace(USUAL, sigma=(1, 2)))


def test_json_keeps_every_bit() -> None:
    how = Preparation(p=np.float32(99.9), sigma=np.array([1, 0.3]))  # type: ignore[arg-type]
    assert Preparation.from_json(how.as_json()) == how
    numbers = Percentiles((0.1, 1 / 3), None, (1e-300, 2.0))
    assert Percentiles.from_json(numbers.as_json()) == numbers
    with pytest.raises(InputError, match="Preparation has"):
        Preparation.from_json({"p": 1})
    with pytest.raises(InputError, match="no percentiles"):
        Percentiles.from_json({"channel": ["x"], "threshold": None, "post": None})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sigma", [0, 0.1, 0.5, 1, 2.3, 7])
def test_blur_is_scipys(sigma: float, dtype: str) -> None:
    plane = np.random.default_rng(0).random((40, 33)).astype(dtype)
    weights, margin = gaussian_weights(sigma), 30
    padded = np.pad(plane, margin, mode="symmetric")
    found = np.empty_like(plane)
    blur_plane(padded, margin, weights, 0.25, found)
    wanted = gaussian_filter(plane.astype(np.float64), sigma) / 4
    np.testing.assert_allclose(found, wanted, 1e-7 if dtype == "float32" else 1e-13)
    corners = np.array([[0, 0], [39, 23], [17, 5]])
    runs = np.empty((3, 10), dtype)
    blur_runs(padded, margin, weights, 0.25, corners, runs)
    for (y, x), run in zip(corners, runs, strict=True):
        assert np.array_equal(run, found[y, x : x + 10])


def test_the_blur_checks_its_arrays() -> None:
    plane = np.zeros((10, 10), np.float32)
    out = np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="is not"):
        blur_plane(plane, 2, [1.0], 1, out)
    with pytest.raises(ValueError, match="weights do not fit"):
        blur_plane(plane, 3, np.ones(5), 1, out)
    with pytest.raises(TypeError, match="float32 or float64"):
        blur_plane(plane.astype(int), 3, [1.0], 1, out)
    with pytest.raises(ValueError, match="lie in the plane"):
        blur_runs(plane, 3, [1.0], 1, [[0, 1]], out[:1])


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_mirrored_is_numpys_symmetric(length: int) -> None:
    wanted = np.pad(np.arange(length), 17, mode="symmetric")
    assert np.array_equal(halos.mirrored(np.arange(-17, length + 17), length), wanted)
