"""Pictures: what is on them, and what is refused. (They were also looked at.)"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from scportrait_like import datasets, plot
from scportrait_like.errors import InputError, ShapeError
from scportrait_like.plot import _common as common
from scportrait_like.plot import _masks

SECTION = datasets.tissue((6, 300, 400))
IMAGE, LABELS = SECTION.read_image(), SECTION.read_labels()


def pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def texts(figure: Figure) -> list[str]:
    legends = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    return [t.get_text() for t in figure.texts] + legends + [t for t in titles if t]


def assert_texts_do_not_overlap(figure: Figure) -> None:
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    items = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    boxes = [t.get_window_extent(renderer) for t in items]
    page = figure.bbox
    for k, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= page.x1
        assert box.y1 <= page.y1
        for other in boxes[:k]:
            assert not box.overlaps(other)


def portraits(n: int, planes: int, size: int = 16) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.random((n, planes, size, size)).astype(np.float16)


# plot_image


def test_image_shows_channels_masks_and_their_names(tmp_path: Path):
    path = tmp_path / "picture.png"
    figure = plot.plot_image(
        IMAGE, SECTION.channel_names, channels=["DNA", 2], outlines=LABELS, title="Gut", save=path
    )
    assert path.stat().st_size > 10_000
    assert texts(figure) == ["DNA", "CD3", "mask", "(4 more not shown)", "Gut"]
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.std() > 0.02
    assert_texts_do_not_overlap(figure)


def test_outlines_change_the_picture_on_boundaries_only():
    plain = plot.plot_image(IMAGE[:2]).axes[0].images[0].get_array()
    lined = plot.plot_image(IMAGE[:2], outlines=LABELS).axes[0].images[0].get_array()
    changed = (plain != lined).any(axis=2)
    assert 0.01 < changed.mean() < 0.3
    no_cell = np.repeat(np.repeat(LABELS == 0, 4, axis=0), 4, axis=1)
    inner = no_cell[: changed.shape[0], : changed.shape[1]]
    assert changed[~inner].mean() > changed[inner].mean()


def test_image_crop_and_scale_are_in_pixels_of_the_full_image():
    figure = plot.plot_image(IMAGE, crop=(10, 60, 20, 120), scale=4)
    axes = figure.axes[0]
    assert axes.get_xlim() == (80, 480)
    assert axes.get_ylim() == (240, 40)
    assert axes.get_xlabel() == "x (pixels)"


def test_automatic_choice_prefers_structure_to_noise():
    noise = np.random.default_rng(0).poisson(3.0, (3, 300, 400)).astype(np.uint16)
    mixed = np.concatenate([noise, IMAGE[:4], noise])
    figure = plot.plot_image(mixed, [f"channel {c}" for c in range(10)])
    assert texts(figure) == [*(f"channel {c}" for c in range(3, 7)), "(6 more not shown)"]


class OnDisk:
    """An array that notes what is read of it."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.shape, self.dtype = pixels, pixels.shape, pixels.dtype
        self.read: list[tuple] = []

    def __getitem__(self, where: tuple) -> np.ndarray:
        self.read.append(where)
        return self.pixels[where]


def test_what_lies_on_disk_is_read_only_where_it_is_drawn():
    image, mask = OnDisk(IMAGE), OnDisk(LABELS)
    lazy = plot.plot_image(image, channels=[1, 3], outlines=mask, crop=(10, 60, 20, 120))
    eager = plot.plot_image(IMAGE, channels=[1, 3], outlines=LABELS, crop=(10, 60, 20, 120))
    shown, expected = (f.axes[0].images[0].get_array() for f in (lazy, eager))
    assert np.array_equal(shown, expected)
    part = (slice(10, 60), slice(20, 120))
    assert image.read == [(1, *part), (3, *part)]
    assert mask.read == [part]
    masks = OnDisk(LABELS)
    plot.plot_masks({"a": masks}, crop=(10, 60, 20, 120))
    assert masks.read == [part]


def test_one_channel_is_grey():
    for image in (IMAGE[0], IMAGE[:1]):
        drawn = plot.plot_image(image, outlines=None).axes[0].images[0].get_array()
        assert np.array_equal(drawn[..., 0], drawn[..., 1])
        assert drawn.max() == 1


@pytest.mark.parametrize(
    "plane",
    [
        np.zeros((40, 50), np.uint16),
        np.full((40, 50), 77.5, np.float32),
        np.full((40, 50), np.nan, np.float32),
        np.full((40, 50), np.inf),
        np.zeros((40, 50), bool),
    ],
)
def test_empty_channels_are_black(plane):
    drawn = plot.plot_image(plane).axes[0].images[0].get_array()
    assert not drawn.any()


def test_nan_and_rare_pixels_do_not_spoil_the_contrast():
    plane = IMAGE[0].astype(np.float32)
    plane[:10] = np.nan
    plane[10, 0] = np.inf
    drawn = plot.plot_image(plane).axes[0].images[0].get_array()
    assert np.isfinite(drawn).all()
    assert drawn.std() > 0.05
    sparse = np.zeros((200, 200), np.uint16)
    sparse[5, 5] = 9
    assert plot.plot_image(sparse).axes[0].images[0].get_array().max() == 1


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_names_are_taken_literally_and_shortened():
    names = ["$\\alpha_{x$", "CD68 (clone PG-M1), макрофаги и ещё много слов", "細胞" * 30]
    figure = plot.plot_image(IMAGE[:3], names)
    shown = texts(figure)
    assert shown[0] == names[0]
    assert all("…" in name for name in shown[1:])
    assert_texts_do_not_overlap(figure)


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (900, 3)])
def test_extreme_shapes_of_images(shape, tmp_path: Path):
    image = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    figure = plot.plot_image(image, outlines=np.ones(shape, np.uint8), save=tmp_path / "x.png")
    assert pixels(figure).std() > 1
    assert_texts_do_not_overlap(figure)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"image": np.zeros((2, 2, 3, 3))}, ShapeError, "(c, y, x)"),
        ({"image": np.zeros((0, 3, 3))}, ShapeError, "not empty"),
        ({"image": np.zeros((3, 3), complex)}, InputError, "complex128"),
        ({"channel_names": ["a"]}, ShapeError, "1 channel names were given for 6"),
        ({"channels": ["nothing"]}, InputError, "'nothing' is not one of 0, 1"),
        ({"channels": [6]}, InputError, "6 is not one of"),
        ({"channels": []}, InputError, "1 to 6 can be shown, 0"),
        ({"crop": (0, 301, 0, 10)}, InputError, "crop=(0, 301, 0, 10)"),
        ({"crop": (5, 5, 0, 10)}, InputError, "does not lie"),
        ({"outlines": LABELS[:5]}, ShapeError, "the image is (300, 400)"),
        ({"outlines": LABELS.astype(float)}, InputError, "float64"),
        ({"outlines": dict.fromkeys("abcd", LABELS)}, InputError, "4 masks"),
    ],
)
def test_bad_images(arguments, error, words):
    with pytest.raises(error) as caught:
        plot.plot_image(**{"image": IMAGE, **arguments})
    assert words in str(caught.value)


# plot_masks


def test_masks_show_every_object_and_their_number(tmp_path: Path):
    figure = plot.plot_masks({"cells": LABELS, "none": LABELS * 0}, save=tmp_path / "m.png")
    n = len(np.unique(LABELS)) - 1
    assert texts(figure) == [f"cells: {n} objects", "none: 0 objects"]
    drawn = figure.axes[0].images[0].get_array()
    black = drawn[LABELS == 0]
    assert (black == black[0]).all()
    assert (drawn[LABELS > 0] != black[0]).any(axis=1).all()
    assert texts(plot.plot_masks(LABELS)) == [f"{n} objects"]
    assert len(plot.plot_masks([LABELS, LABELS]).axes) == 2


def test_neighbours_never_share_a_colour():
    crowded = datasets.tissue((1, 500, 500), 12.0, cell_radius=8.0).read_labels()
    _, compact = np.unique(crowded, return_inverse=True)
    compact = compact.reshape(crowded.shape).astype(np.int64)
    pairs = _masks.neighbours(compact)
    assert len(pairs) > 2000
    colours = _masks.choose_colours(int(compact.max()), pairs, seed=0)
    assert (colours[pairs[:, 0]] != colours[pairs[:, 1]]).all()
    assert len(np.unique(colours)) == len(_masks.PALETTE)


def test_a_crowd_of_tiny_objects_is_drawn_fast():
    mask = np.arange(1, 1_000_001, dtype=np.uint64).reshape(1000, 1000)
    began = time.perf_counter()
    figure = plot.plot_masks(mask, scale=64)
    assert time.perf_counter() - began < 5
    assert texts(figure) == ["1,000,000 objects (1:64)"]


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[2**63 - 1, 0], [2**62, 5]], np.uint64),
        np.array([[1, 1], [1, 1]], np.int8),
        np.array([[True, False]]),
        np.array([[7]], np.int64),
    ],
)
def test_masks_of_any_ids(mask):
    figure = plot.plot_masks(mask)
    n = len(np.unique(mask[mask > 0]))
    assert texts(figure) == [f"{n} object{'' if n == 1 else 's'}"]


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([], InputError, "no mask"),
        ({}, InputError, "no mask"),
        (np.zeros((2, 2)), InputError, "float64"),
        (np.zeros((3, 2, 2, 2), int), ShapeError, "(y, x)"),
        (np.zeros((0, 5), int), ShapeError, "not empty"),
    ],
)
def test_bad_masks(labels, error, words):
    with pytest.raises(error) as caught:
        plot.plot_masks(labels)
    assert words in str(caught.value)


# plot_portraits


@pytest.mark.parametrize("n", [1, 5, 16])
@pytest.mark.parametrize("planes", [2, 12])
def test_portraits_have_one_row_a_cell_and_one_column_a_plane(n, planes, tmp_path: Path):
    names = ["seg_all_cytosol", *(f"a rather long marker name {c}" for c in range(planes - 1))]
    figure = plot.plot_portraits(
        portraits(n, planes),
        np.arange(n) + 2**62,
        names,
        max_cells=16,
        title="Some cells",
        save=tmp_path / "p.png",
    )
    assert len(figure.axes) == n * planes
    shown = texts(figure)
    assert shown[:n] == [f"cell {2**62 + k}" for k in range(n)]
    assert shown[n] == "seg_all_cytosol"
    assert shown[-1] == "Some cells"
    sizes = {tuple(np.round(axes.get_window_extent().size, 3)) for axes in figure.axes}
    assert len(sizes) == 1
    assert_texts_do_not_overlap(figure)
    assert pixels(figure).std() > 20


def test_shortened_plane_names_stay_different():
    names = [f"immunoglobulin heavy chain, isotype {c}" for c in range(4)]
    figure = plot.plot_portraits(portraits(1, 4), [1], names)
    shown = texts(figure)[1:]
    assert len(set(shown)) == 4
    assert all(name.startswith("immuno") and "…" in name for name in shown)


def test_portraits_of_many_cells_are_spread_over_all_and_read_only_where_drawn():
    class Lazy:
        shape = (1000, 2, 8, 8)
        read: list[int] = []  # noqa: RUF012

        def __getitem__(self, row: int) -> np.ndarray:
            self.read.append(row)
            return np.full((2, 8, 8), row / 1000, np.float16)

    figure = plot.plot_portraits(Lazy(), np.arange(1000) * 10, max_cells=3)
    assert Lazy.read == [0, 500, 999]
    assert texts(figure) == ["cell 0", "cell 5000", "cell 9990", "0", "1", "3 of 1,000 cells"]


def test_portraits_of_chosen_rows_keep_their_order():
    figure = plot.plot_portraits(portraits(9, 2), np.arange(9) * 10, rows=[7, 1])
    assert texts(figure)[:2] == ["cell 70", "cell 10"]
    assert texts(figure)[-1] == "2 of 9 cells"


def test_few_planes_stand_in_blocks_side_by_side():
    narrow = plot.plot_portraits(portraits(12, 2), np.arange(12))
    wide = plot.plot_portraits(portraits(12, 9), np.arange(12))
    assert texts(narrow).count("0") == 3
    assert texts(wide).count("0") == 1
    assert narrow.get_figheight() < wide.get_figheight() / 2
    assert_texts_do_not_overlap(narrow)
    boxes = [axes.get_position().bounds for axes in narrow.axes]
    assert len({(round(x, 6), round(y, 6)) for x, y, _, _ in boxes}) == 24


def test_portraits_of_nan_and_constant_planes():
    images = portraits(2, 4)
    images[:, 1] = np.nan
    images[:, 2] = 0.5
    images[0, 3] = 0
    figure = plot.plot_portraits(images, [1, 2])
    assert pixels(figure).std() > 20
    limits = [axes.images[0].get_clim() for axes in figure.axes[2:6:2]]
    assert limits == [(0.0, 1.0), (0.0, 0.5)]


def test_cells_of_a_column_share_their_colours():
    images = portraits(3, 2)
    images[0] *= 0.1
    figure = plot.plot_portraits(images, [1, 2, 3])
    clims = {axes.images[0].get_clim() for axes in figure.axes[3:]}
    assert len(clims) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"images": portraits(0, 2), "ids": []}, InputError, "no cells"),
        ({"images": portraits(3, 2)[0]}, ShapeError, "(n, planes, S, S)"),
        ({"images": np.zeros((3, 0, 4, 4))}, ShapeError, "not be empty"),
        ({"ids": [1, 2]}, ShapeError, "2 ids were given for 3 cells"),
        ({"plane_names": ["a"]}, ShapeError, "1 plane names"),
        ({"n_masks": 3}, InputError, "n_masks=3"),
        ({"max_cells": 0}, InputError, "max_cells=0"),
        ({"rows": [3]}, InputError, "rows=[3]: expected at least one, each from 0 to 2"),
        ({"rows": []}, InputError, "rows=[]"),
    ],
)
def test_bad_portraits(arguments, error, words):
    with pytest.raises(error) as caught:
        plot.plot_portraits(**{"images": portraits(3, 2), "ids": [1, 2, 3], **arguments})
    assert words in str(caught.value)


# plot_values


def rgb(values: np.ndarray, low: float, high: float, name: str = "viridis") -> np.ndarray:
    """What a value is painted with."""
    share = np.clip((values - low) / (high - low), 0, 1)
    return matplotlib.colormaps[name](share, bytes=True)[..., :3]


def painted(figure: Figure, k: int = 0) -> np.ndarray:
    """The k-th panel; each is followed by its bar."""
    return np.asarray(figure.axes[2 * k].images[0].get_array())


def bar_of(figure: Figure, k: int = 0):
    return figure.axes[2 * k + 1]


GREY = np.array([0xB4] * 3)


@pytest.mark.parametrize("ids", ["grid", "sparse"])
def test_cells_are_painted_with_their_values(ids, tmp_path: Path):
    labels = datasets.tissue((1, 200, 260), seed=3, ids=ids).read_labels()
    keys = np.unique(labels)[1:]
    assert (keys.max() > 2**53) == (ids == "sparse")
    generator = np.random.default_rng(0)
    values = generator.normal(5, 2, (len(keys), 2))
    order = generator.permutation(len(keys))
    path = tmp_path / "values.png"
    figure = plot.plot_values(
        labels, keys[order], values[order], ["CD3", "DNA"], statistic="mean", save=path
    )
    assert path.stat().st_size > 10_000
    row = np.searchsorted(keys, labels)
    for k in range(2):
        low, high = np.percentile(values[:, k], (1, 99))
        expected = rgb(values[np.minimum(row, len(keys) - 1), k], low, high)
        assert np.array_equal(painted(figure, k)[labels > 0], expected[labels > 0])
        assert (painted(figure, k)[labels == 0] == painted(figure, k)[labels == 0][0]).all()
        assert bar_of(figure, k).get_ylim() == pytest.approx((low, high))
    assert texts(figure) == [f"{len(keys)} cells in view", "mean", "CD3", "mean", "DNA"]
    assert_texts_do_not_overlap(figure)


def test_ids_next_to_each_other_above_2_to_the_53_are_told_apart():
    labels = np.array([[2**60, 2**60 + 1], [2**60 + 2, 0]], np.int64)
    keys = np.array([2**60, 2**60 + 1, 2**60 + 2], np.uint64)
    drawn = painted(plot.plot_values(labels, keys, [0.0, 1.0, 2.0], percentiles=(0, 100)))
    assert np.array_equal(drawn[labels > 0], rgb(np.array([0.0, 1.0, 2.0]), 0, 2))


def test_cells_without_value_are_grey_and_infinite_ones_at_the_ends():
    labels = np.array([[1, 2, 3], [4, 5, 0]], np.uint8)
    values = [np.nan, 1.0, 3.0, np.inf]
    figure = plot.plot_values(labels, [1, 2, 3, 4], values, percentiles=(0, 100))
    drawn = painted(figure)
    assert np.array_equal(drawn[0, 0], GREY)
    assert np.array_equal(drawn[1, 1], GREY)  # no row
    assert np.array_equal(drawn[1, :1], rgb(np.array([3.0]), 1, 3))
    assert drawn[1, 2].max() < 0x20
    assert "5 cells in view; grey: no value" in texts(figure)
    seen = plot.plot_values(labels, [1, 2, 3, 4], values, crop=(0, 1, 1, 3))
    assert "2 cells in view" in texts(seen)


def test_colours_mean_the_same_whatever_the_crop():
    labels = np.arange(1, 101).reshape(10, 10)
    whole = plot.plot_values(labels, labels.ravel(), labels.ravel() * 1.0)
    part = plot.plot_values(labels, labels.ravel(), labels.ravel() * 1.0, crop=(2, 5, 0, 4))
    assert np.array_equal(painted(whole)[2:5, :4], painted(part))
    assert part.axes[0].get_xlim() == (0, 4)
    assert part.axes[0].get_ylim() == (5, 2)


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([3.0, 3.0, 3.0], (3, 6)),
        ([0.0, 0.0, 0.0], (0, 1)),
        ([np.nan, np.nan, np.nan], (0, 1)),
        ([-2.0, 0.0, 2.0], (-2, 2)),
    ],
)
def test_limits_of_strange_values(values, limits):
    figure = plot.plot_values(np.array([[1, 2, 3]]), [1, 2, 3], values, percentiles=(0, 100))
    assert bar_of(figure).get_ylim() == pytest.approx(limits)
    assert pixels(figure).std() > 1


def test_numbers_of_bars_are_short_and_true():
    figure = plot.plot_values(
        np.array([[1, 2]]),
        [1, 2],
        [[0.0, 0.0, 0.0, 1e-6], [9_000.0, 44_000.0, 3e6, 3e-6]],
        percentiles=(0, 100),
    )
    figure.canvas.draw()
    for k, factor in enumerate((1, 1e3, 1e6, 1)):
        bar = bar_of(figure, k)
        shown = [label.get_text() for label in bar.get_yticklabels()]
        assert len(shown) >= 2
        for tick, text in zip(bar.get_yticks(), shown, strict=True):
            assert float(text.rstrip("kM")) * (factor if text[-1] in "kM" else 1) == pytest.approx(
                tick
            )
            assert len(text) < 8


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (300, 400)])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_maps_of_any_shape_keep_their_texts_apart(shape, n, tmp_path: Path):
    names = ["immunoglobulin heavy chain, isotype γ", "細胞" * 20, "$\\alpha_{x$", "a", "b", "c"]
    figure = plot.plot_values(
        np.ones(shape, np.uint8),
        [1],
        np.ones((1, n)) * 7.5e4,
        names[:n],
        statistic="a statistic of the user's own",
        title="A title " * 30,
        footnote="a note " * 40,
        save=tmp_path / "map.pdf",
    )
    assert (tmp_path / "map.pdf").read_bytes().startswith(b"%PDF")
    assert figure.get_figwidth() <= 8.05
    assert_texts_do_not_overlap(figure)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"values": [1.0, 2.0]}, ShapeError, "(3,) and (2, 1)"),
        ({"values": np.zeros((3, 0))}, ShapeError, "(3, 0)"),
        ({"ids": [1.0, 2.0, 3.0]}, InputError, "float64"),
        ({"ids": [1, 2, 2]}, InputError, "all different"),
        ({"value_names": ["a", "b"]}, ShapeError, "2 names were given for 1 columns"),
        ({"percentiles": (99, 1)}, InputError, "percentiles=(99, 1)"),
        ({"colormap": "rainbows"}, InputError, "colormap='rainbows'"),
        ({"crop": (0, 9, 0, 1)}, InputError, "crop=(0, 9, 0, 1)"),
        ({"mask": np.zeros((2, 2))}, InputError, "float64"),
    ],
)
def test_bad_values(arguments, error, words):
    good = {"mask": np.array([[1, 2, 3]]), "ids": [1, 2, 3], "values": [1.0, 2.0, 3.0]}
    with pytest.raises(error) as caught:
        plot.plot_values(**{**good, **arguments})
    assert words in str(caught.value)


# plot_distributions


def bars(figure: Figure, k: int) -> tuple[np.ndarray, np.ndarray]:
    stairs = next(patch for patch in figure.axes[k].patches if hasattr(patch, "get_data"))
    return stairs.get_data().values, stairs.get_data().edges


def test_distributions_show_every_value(tmp_path: Path):
    generator = np.random.default_rng(1)
    values = np.stack(
        [
            generator.normal(100, 10, 5000),
            generator.lognormal(0, 2, 5000),
            generator.poisson(4, 5000),
            np.where(generator.random(5000) < 0.5, np.nan, -3.0),
        ],
        axis=1,
    )
    path = tmp_path / "distributions.png"
    names = ["normal", "lognormal", "counts", "constant"]
    figure = plot.plot_distributions(values, names, statistic="mean", save=path)
    assert path.stat().st_size > 10_000
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "asinh", "linear", "linear"]
    for k, column in enumerate(values.T):
        finite = column[np.isfinite(column)]
        density, edges = bars(figure, k)
        assert edges[0] <= finite.min()
        assert edges[-1] >= finite.max()
        on_axis = figure.axes[k].xaxis.get_transform().transform(edges)
        scale = figure.axes[k].xaxis.get_transform()
        width = getattr(scale, "linear_width", 1.0)
        assert np.sum(density * np.diff(on_axis / width)) == pytest.approx(1)
        assert figure.axes[k].lines[0].get_xdata()[0] == np.median(finite)
    assert set(np.diff(bars(figure, 2)[1])) == {1.0}  # a bin a whole number
    shown = texts(figure)
    assert "median -3" in shown
    assert f"{np.isnan(values[:, 3]).sum():,} without value" in shown
    assert shown[0] == "mean of 5,000 cells; axes with a long tail are arcsinh-scaled"
    assert_texts_do_not_overlap(figure)


def test_numbers_of_a_long_tail_stand_where_they_belong():
    values = np.geomspace(1, 1e6, 4000)
    axes = plot.plot_distributions(np.stack([values, -values], axis=1)).axes
    for sign, each in zip((1, -1), axes, strict=True):
        shown = {
            text.get_text(): tick
            for tick, text in zip(each.get_xticks(), each.get_xticklabels(), strict=True)
        }
        name = "1M" if sign > 0 else "-1M"
        assert shown[name] == sign * 1e6
        assert 3 <= len(shown) <= 7


@pytest.mark.parametrize("n", [1, 2, 18])
def test_distributions_keep_their_texts_apart(n):
    values = np.random.default_rng(0).lognormal(0, 3, (300, n)) * 1e4
    values[3] = np.nan
    names = ["a very long name of a channel, no. " * 2 + str(k) for k in range(n)]
    figure = plot.plot_distributions(values, names, title="A title " * 30, footnote="note " * 60)
    assert figure.get_figwidth() <= 8.05
    assert figure.get_figheight() < 11.69  # A4
    assert_texts_do_not_overlap(figure)


@pytest.mark.parametrize(
    "values", [np.full((4, 1), np.nan), np.zeros((0, 2)), np.zeros(3), [np.inf, 1.0]]
)
def test_distributions_of_nothing(values):
    assert pixels(plot.plot_distributions(values)).std() > 0


def test_bad_distributions():
    with pytest.raises(ShapeError, match="2 names were given for 1"):
        plot.plot_distributions([1.0, 2.0], ["a", "b"])
    with pytest.raises(ShapeError, match=r"\(n, c\)"):
        plot.plot_distributions(np.zeros((2, 2, 2)))


# helpers


def test_pick_level():
    shapes = [(5, 8192, 8192), (5, 4096, 4096), (5, 2048, 2048), (5, 1024, 1024)]
    assert plot.pick_level(shapes) == 3
    assert plot.pick_level(shapes, 2048 * 2048) == 2
    assert plot.pick_level(shapes, 10**9) == 0
    assert plot.pick_level(shapes[:2]) == 1
    with pytest.raises(InputError, match="empty"):
        plot.pick_level([])


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        ("CD3", 10, "CD3"),
        ("abcdefghij", 10, "abcdefghij"),
        ("abcdefghijk", 10, "abcd…ghijk"),
        ("line\nbreak", 20, "line break"),
        ("細胞マーカー", 7, "細…カー"),
    ],
)
def test_shorten(name, columns, expected):
    assert common.shorten(name, columns) == expected
    assert common.text_width(expected) <= columns


def test_pictures_leave_pyplot_alone_and_import_it_never():
    code = (
        "import sys, numpy as np, scportrait_like.plot as plot\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot.plot_portraits(np.ones((1, 2, 8, 8)), [1])\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
