"""Pictures of clusters of pixels: what is on them, what is refused. (They were also looked at.)"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from scportrait_like import plot
from scportrait_like.errors import InputError, ShapeError
from scportrait_like.plot._palette import NO_CLUSTER, PALETTE, ink_upon, shades
from scportrait_like.plot._trees import spanning_tree, tree_layout

GENERATOR = np.random.default_rng(0)
METACLUSTERS = np.array([1, 1, 2, 3, 2, 3])
CLUSTERS = GENERATOR.integers(0, 7, (40, 60)).astype(np.uint8)


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.texts]


def drawn(figure: Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def assert_texts_do_not_overlap(figure: Figure) -> None:
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [t.get_window_extent(renderer) for t in figure.texts]
    for k, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        for other in boxes[:k]:
            assert not box.overlaps(other)


def as_bytes(colours: np.ndarray) -> np.ndarray:
    return np.round(colours * 255).astype(np.uint8)


# Colours


def simulated(colours: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """Colours as seen by readers who lack a kind of cone (Machado et al. 2009)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(matrix), 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
          [-0.011820, 0.042940, 0.968881]]  # fmt: skip
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
          [-0.003882, -0.048116, 1.051998]]  # fmt: skip


def least_distance(colours: np.ndarray) -> float:
    from skimage.color import deltaE_ciede2000, rgb2lab

    lab = rgb2lab(colours[None])[0]
    a, b = np.triu_indices(len(lab), 1)
    return float(deltaE_ciede2000(lab[a], lab[b]).min())


def test_colours_are_told_apart():
    colours = plot.cluster_colours(range(41))
    assert least_distance(colours[:21]) > 12
    assert least_distance(colours) > 10
    for matrix in (DEUTAN, PROTAN):
        assert least_distance(simulated(colours[:8], matrix)) > 8
        assert least_distance(simulated(colours[:21], matrix)) > 4
    many = plot.cluster_colours(range(1, 281))
    assert len(np.unique(many.round(4), axis=0)) == 280
    assert ((many >= 0) & (many <= 1)).all()


def test_a_number_has_one_colour():
    assert np.array_equal(plot.cluster_colours([7, 0, 7])[0], plot.cluster_colours([7])[0])
    assert np.allclose(
        plot.cluster_colours([0, 1, 40]), [*map(to_rgb, (NO_CLUSTER, PALETTE[0], PALETTE[39]))]
    )
    assert plot.cluster_colours([]).shape == (0, 3)
    alone = shades(np.array([3, 1, 3, 3]))
    assert np.array_equal(alone[1], plot.cluster_colours([1])[0])
    assert len(np.unique(alone, axis=0)) == 4
    assert ink_upon(np.array([1.0, 1.0, 0.5])) == "black"
    assert ink_upon(plot.cluster_colours([10])[0]) == "white"


# Maps


def test_each_pixel_has_the_colour_of_its_metacluster(tmp_path: Path):
    meta = np.append(0, METACLUSTERS)[CLUSTERS]
    path = tmp_path / "map.png"
    figure = plot.plot_cluster_map(meta, names={2: "B cells"}, title="Spleen", save=path)
    assert np.array_equal(drawn(figure), as_bytes(plot.cluster_colours(range(4)))[meta])
    assert path.stat().st_size > 10_000
    inside = (meta > 0).sum()
    shares = [f"{100 * (meta == k).sum() / inside:.1f} %" for k in (1, 2, 3)]
    without = f"no cluster: {100 * (meta == 0).mean():.1f} % of the pixels"
    assert set(texts(figure)) == {
        "Spleen", "metacluster", "in view", "1", "2 B cells", "3", "no cluster", without, *shares,
    }  # fmt: skip
    assert_texts_do_not_overlap(figure)


def test_clusters_are_shades_of_their_metacluster():
    figure = plot.plot_cluster_map(CLUSTERS, METACLUSTERS)
    colours = np.concatenate([plot.cluster_colours([0]), shades(METACLUSTERS)])
    assert np.array_equal(drawn(figure), as_bytes(colours)[CLUSTERS])
    assert {"1", "2", "3"} <= set(texts(figure))
    assert "4" not in texts(figure)
    assert any(text.startswith("shades: clusters") for text in texts(figure))


def test_counts_of_the_whole_image_are_told_where_they_are_known():
    counts = [100, 10, 0, 30]
    figure = plot.plot_cluster_map(np.ones((5, 5), int), counts=counts)
    assert {"of pixels", "25.0 %", "75.0 %", "no cluster: 71.4 % of the pixels"} <= set(
        texts(figure)
    )
    assert "2" not in texts(figure)
    with pytest.raises(ShapeError, match=r"largest metacluster in view, 9, but are \(4,\)"):
        plot.plot_cluster_map(np.full((5, 5), 9), counts=counts)


class OnDisk:
    """An array that notes what is read of it."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.shape, self.dtype = pixels, pixels.shape, pixels.dtype
        self.read: list[tuple] = []

    def __getitem__(self, where: tuple) -> np.ndarray:
        self.read.append(where)
        return self.pixels[where]


def test_a_crop_is_read_alone_and_counted_in_pixels_of_the_full_image():
    lazy = OnDisk(CLUSTERS)
    figure = plot.plot_cluster_map(lazy, crop=(10, 30, 20, 60), scale=4)
    assert lazy.read == [(slice(10, 30), slice(20, 60))]
    assert figure.axes[0].get_xlim() == (80, 240)
    assert figure.axes[0].get_ylim() == (120, 40)
    assert drawn(figure).shape == (20, 40, 3)
    assert any("4 x 4 pixels seen as one" in text for text in texts(figure))


@pytest.mark.parametrize("m", [1, 2, 20, 40, 300])
def test_legends_are_readable(m: int):
    labels = np.arange(120_000).reshape(300, 400) % (m + 1)
    figure = plot.plot_cluster_map(
        labels.astype(np.uint16),
        title="Ein sehr langer Titel " * 9,
        names={1: "B-Zell-Follikel mit einem sehr langen Namen, und noch mehr", 2: "赤脾髄"},
    )
    assert_texts_do_not_overlap(figure)
    assert ("and 240 smaller" in texts(figure)) == (m == 300)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (1, 900), (900, 1), (20, 2000)])
def test_small_and_narrow_maps(shape: tuple[int, int]):
    figure = plot.plot_cluster_map(GENERATOR.integers(0, 9, shape))
    assert_texts_do_not_overlap(figure)
    assert drawn(figure).shape == (*shape, 3)


def test_maps_refuse_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"must be \(y, x\)"):
        plot.plot_cluster_map(np.zeros((2, 3, 4), int))
    with pytest.raises(InputError, match="dtype is float64"):
        plot.plot_cluster_map(np.zeros((3, 4)))
    with pytest.raises(InputError, match="numbers below 0"):
        plot.plot_cluster_map(np.full((3, 4), -1))
    with pytest.raises(InputError, match="a cluster 6, but metaclusters has only 5"):
        plot.plot_cluster_map(CLUSTERS, METACLUSTERS[:5])
    with pytest.raises(InputError, match="counted from 1"):
        plot.plot_cluster_map(CLUSTERS, METACLUSTERS - 1)
    with pytest.raises(InputError, match="does not lie in"):
        plot.plot_cluster_map(CLUSTERS, crop=(0, 41, 0, 3))


def test_cells_have_colours_of_their_own(tmp_path: Path):
    mask = np.repeat(np.array([[0, 7, 3, 9], [5, 5, 0, 11]], np.uint32), 6, axis=0)
    ids, groups = [11, 3, 7, 5], [2, 0, 4, 2]
    figure = plot.plot_cluster_cells(mask, ids, groups, names={2: "B"}, save=tmp_path / "c.png")
    shown = drawn(figure)
    expected = as_bytes(plot.cluster_colours([4, 0, 0, 2, 2]))
    for number, colour in zip((7, 3, 9, 5, 11), expected, strict=True):
        assert (shown[mask == number] == colour).all()
    assert len(np.unique(shown[mask == 0], axis=0)) == 1
    assert {"2 B", "4", "no cluster", "66.7 %", "33.3 %", "of cells", "4 cells"} <= set(
        texts(figure)
    )
    assert_texts_do_not_overlap(figure)
    part = plot.plot_cluster_cells(mask, ids, groups, crop=(0, 6, 0, 2))
    assert {"100.0 %", "in view", "1 cell"} <= set(texts(part))
    assert "2" not in texts(part)
    plot.plot_cluster_cells(np.zeros((3, 3), int), np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(ShapeError, match=r"ids and metaclusters must be \(n,\)"):
        plot.plot_cluster_cells(mask, [1, 2], [1])
    with pytest.raises(InputError, match="counted from 1, or 0 for none"):
        plot.plot_cluster_cells(mask, [1], [-1])
    with pytest.raises(InputError, match="all different"):
        plot.plot_cluster_cells(mask, [1, 1], [1, 1])


# Heatmaps


def heat(figure: Figure) -> np.ndarray:
    return np.ma.filled(figure.axes[0].collections[0].get_array(), np.nan)


def test_the_heatmap_holds_z_scores_in_an_order_of_likeness(tmp_path: Path):
    means = GENERATOR.gamma(2, 3, (7, 5))
    figure = plot.plot_cluster_heatmap(
        means, list("abcde"), counts=np.arange(1, 8), save=tmp_path / "h.pdf"
    )
    written = texts(figure)
    columns = ["abcde".index(text) for text in written if text in "abcde" and len(text) == 1]
    rows = [int(text) - 1 for text in written if text.isdigit()]
    assert sorted(columns) == list(range(5))
    assert sorted(rows) == list(range(7))
    expected = (means - means.mean(axis=0)) / means.std(axis=0)
    np.testing.assert_allclose(heat(figure), expected[rows][:, columns], rtol=1e-12)
    shares = [text for text in written if text.endswith(" %")]
    assert shares == [f"{100 * (row + 1) / 28:.1f} %" for row in rows]
    assert_texts_do_not_overlap(figure)
    assert (tmp_path / "h.pdf").read_bytes().startswith(b"%PDF")
    alike = np.array([[0, 0], [9, 9], [0.1, 0], [9, 9.1], [5, 5]])
    order = [int(t) for t in texts(plot.plot_cluster_heatmap(alike, ["a", "b"])) if t.isdigit()][:5]
    assert abs(order.index(1) - order.index(3)) == 1
    assert abs(order.index(2) - order.index(4)) == 1


def test_clusters_stand_with_their_metacluster():
    means = GENERATOR.random((30, 4))
    groups = GENERATOR.permutation(np.arange(30) % 4 + 1)
    figure = plot.plot_cluster_heatmap(means, metaclusters=groups, names={2: "T cells"})
    strip = figure.axes[2]
    extents = [path.get_extents() for area in strip.collections for path in area.get_paths()]
    assert sorted(round(box.height) for box in extents) == sorted(np.bincount(groups)[1:])
    assert "2 T cells" in texts(figure)
    assert_texts_do_not_overlap(figure)


def test_heatmaps_of_clusters_without_pixels_and_of_equal_ones():
    means = GENERATOR.random((5, 3))
    means[:, 1], means[2] = 0.1, np.nan
    scores = plot.z_scores(means)
    assert np.isnan(scores[2]).all()
    assert (np.delete(scores, 2, axis=0)[:, 1] == 0).all()
    assert_texts_do_not_overlap(plot.plot_cluster_heatmap(means))
    one = plot.plot_cluster_heatmap(means[:1], list("abc"), counts=[5])
    assert (heat(one) == 0).all()
    empty = plot.plot_cluster_heatmap(np.full((2, 2), np.nan), counts=[0, 0])
    assert np.isnan(heat(empty)).all()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 60), (40, 13), (100, 20), (400, 3)])
def test_heatmaps_of_many_sizes(rows: int, columns: int):
    long = [f"CD{k} (αβ-Rezeptor mit sehr langem Namen) 細胞 ${k}^2$" for k in range(columns)]
    figure = plot.plot_cluster_heatmap(
        GENERATOR.random((rows, columns)),
        long,
        counts=np.ones(rows),
        title="T cells " * 20,
        footnote="of the spleen",
    )
    assert_texts_do_not_overlap(figure)


def test_heatmaps_refuse_what_does_not_fit():
    means = np.ones((3, 2))
    with pytest.raises(ShapeError, match=r"must be \(K, c\)"):
        plot.plot_cluster_heatmap(np.ones(3))
    with pytest.raises(ShapeError, match="1 channel names were given for 2"):
        plot.plot_cluster_heatmap(means, ["a"])
    with pytest.raises(ShapeError, match=r"counts must be \(3,\)"):
        plot.plot_cluster_heatmap(means, counts=[1, 2])
    with pytest.raises(ShapeError, match="2 metaclusters were given for 3"):
        plot.plot_cluster_heatmap(means, metaclusters=[1, 1])
    for arguments, message in (
        ({"limit": 0}, "limit=0"),
        ({"values": "median"}, "values='median': expected one of z, mean"),
        ({"order": "size"}, "order='size': expected one of similar, number"),
    ):
        with pytest.raises(InputError, match=message):
            plot.plot_cluster_heatmap(means, **arguments)


@pytest.mark.parametrize("n", [41, 45, 120])
def test_each_row_of_a_metacluster_is_numbered(n: int):
    figure = plot.plot_cluster_heatmap(GENERATOR.random((n, 3)), list("abc"))
    assert sorted(int(text) for text in texts(figure) if text.isdigit()) == list(range(1, n + 1))
    assert_texts_do_not_overlap(figure)


@pytest.mark.parametrize("k", [60, 400])
def test_metaclusters_of_one_node_are_named_in_thin_rows(k: int):
    groups = np.minimum(np.arange(k) + 1, 30)
    figure = plot.plot_cluster_heatmap(
        GENERATOR.random((k, 3)), metaclusters=groups, names={n: f"kind {n}" for n in range(1, 31)}
    )
    assert {f"{n} kind {n}" for n in range(1, 31)} <= set(texts(figure))
    assert_texts_do_not_overlap(figure)


def test_rows_by_number_and_plain_means():
    means = GENERATOR.gamma(2, 3, (6, 4))
    figure = plot.plot_cluster_heatmap(means, list("abcd"), values="mean", order="number")
    assert np.array_equal(heat(figure), means)
    assert [text for text in texts(figure) if text in "abcd"] == list("abcd")
    assert [text for text in texts(figure) if text.isdigit()] == list("123456")
    assert "mean" in texts(figure)
    assert figure.axes[0].collections[0].get_clim() == (0, means.max())
    grouped = plot.plot_cluster_heatmap(
        means, values="mean", order="number", metaclusters=[2, 1, 2, 1, 3, 3]
    )
    assert np.array_equal(heat(grouped), means[[1, 3, 0, 2, 4, 5]])
    for nothing in (np.full((2, 2), np.nan), np.zeros((2, 2))):
        plot.plot_cluster_heatmap(nothing, values="mean")


def test_names_are_taken_by_text_and_refused_where_nothing_has_them():
    codes = GENERATOR.random((6, 2))
    assert "2 B" in texts(
        plot.plot_cluster_heatmap(codes, metaclusters=METACLUSTERS, names={"2": "B"})
    )
    assert "2 B" in texts(plot.plot_som(codes, METACLUSTERS, (2, 3), names={"2": "B"}))
    assert "2 B" in texts(plot.plot_cluster_map(CLUSTERS, METACLUSTERS, names={np.uint8(2): "B"}))
    # Of a part of a map nobody knows what else there is.
    plot.plot_cluster_map(np.ones((3, 3), int), names={9: "B"})
    for names in ({4: "B"}, {"B": 2}, {0: "B"}, {-1: "B"}, {1.5: "B"}):
        for draw in (
            lambda names: plot.plot_cluster_map(CLUSTERS, METACLUSTERS, names=names),
            lambda names: plot.plot_cluster_map(CLUSTERS % 4, counts=[1, 1, 1, 1], names=names),
            lambda names: plot.plot_cluster_heatmap(codes[:3], names=names),
            lambda names: plot.plot_som(codes, METACLUSTERS, (2, 3), names=names),
        ):
            with pytest.raises(InputError, match=r"there is no metacluster .*: there are 1 to 3"):
                draw(names)
    with pytest.raises(InputError, match="expected a mapping of numbers to names"):
        plot.plot_som(codes, METACLUSTERS, (2, 3), names=["B"])
    with pytest.raises(InputError, match="metacluster 1 is named twice"):
        plot.plot_cluster_map(CLUSTERS, names={1: "B", "1": "T"})


def test_pictures_are_saved_where_that_can_be(tmp_path: Path):
    with pytest.raises(InputError, match=r"suffix chooses the format; known are .*png"):
        plot.plot_cluster_map(CLUSTERS, save=tmp_path / "map.foo")
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        plot.plot_cluster_map(CLUSTERS, save=tmp_path / "nowhere" / "map.png")
    assert list(tmp_path.iterdir()) == []


# Self-organising maps


def circles(figure: Figure, panel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, radii and colours of the nodes of a panel."""
    found = next(c for c in figure.axes[panel].collections if isinstance(c, PatchCollection))
    boxes = [path.get_extents() for path in found.get_paths()]
    places = np.array([[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in boxes])
    return places, np.array([b.width / 2 for b in boxes]), found.get_facecolor()[:, :3]


def test_nodes_stand_in_the_grid_with_areas_and_colours():
    shape, counts = (4, 3), np.arange(12) * 100 + 100
    groups = np.arange(12) % 5 + 1
    figure = plot.plot_som(GENERATOR.random((12, 3)), groups, shape, counts=counts)
    places, radii, colours = circles(figure, 0)
    order = np.argsort(-np.sqrt(counts), kind="stable")  # the largest is drawn first
    np.testing.assert_allclose((radii / radii[0]) ** 2, counts[order] / counts.max(), rtol=0.02)
    assert np.allclose(colours, plot.cluster_colours(groups[order].tolist()))
    step = np.diff(np.unique(places[:, 0].round(6))).min()
    x, y = np.divmod(order, 3)
    np.testing.assert_allclose(places, (np.stack([x, y], axis=1) + 0.5) * step, rtol=1e-6)
    apart = squareform(pdist(places)) + 99 * np.eye(12)
    assert (apart >= radii[:, None] + radii[None]).mean() > 0.9
    assert_texts_do_not_overlap(figure)


def numbers_in(figure: Figure, panel: int) -> list[str]:
    """Numbers of nodes that are written within a panel."""
    box = figure.axes[panel].get_position()
    inside = [t for t in figure.texts if box.x0 <= t.get_position()[0] <= box.x1]
    return [t.get_text() for t in inside if t.get_text().isdigit()]


def test_all_nodes_of_a_panel_have_their_number_or_none():
    counts = GENERATOR.integers(1, 50, 100)
    counts[33] = 100_000
    codes, groups = GENERATOR.random((100, 5)), np.arange(100) % 7 + 1
    figure = plot.plot_som(codes, groups, (10, 10), counts=counts)
    assert sorted(map(int, numbers_in(figure, 0))) == list(range(1, 101))
    assert numbers_in(figure, 1) == []
    assert_texts_do_not_overlap(figure)
    assert not any("rings" in text for text in texts(figure))
    counts[4] = 0
    figure = plot.plot_som(codes, groups, (10, 10), counts=counts)
    assert any("rings: no pixel" in text for text in texts(figure))
    few = plot.plot_som(codes[:4], groups[:4], (2, 2))
    assert numbers_in(few, 0) == numbers_in(few, 1) == list("1234")
    many = plot.plot_som(
        GENERATOR.random((400, 5)), np.ones(400, int), (20, 20), counts=np.arange(400)
    )
    assert numbers_in(many, 0) == numbers_in(many, 1) == []


def test_no_node_of_a_tree_covers_another():
    counts = np.append(GENERATOR.integers(50, 99, 35), 5_000)
    figure = plot.plot_som(GENERATOR.random((36, 3)), np.ones(36, int), (6, 6), counts=counts)
    places, radii, _ = circles(figure, 1)
    apart = squareform(pdist(places)) + 99 * np.eye(36)
    large = radii > 0.026  # the others have the least radius there is
    assert (apart >= radii[:, None] + radii[None])[large][:, large].all()


def test_the_tree_is_the_shortest():
    for points in (GENERATOR.random((60, 5)), GENERATOR.integers(0, 3, (40, 2)).astype(float)):
        edges = spanning_tree(points)
        length = np.sqrt(((points[edges[:, 0]] - points[edges[:, 1]]) ** 2).sum(axis=1)).sum()
        # Scipy takes a distance of 0 for no edge.
        expected = minimum_spanning_tree(squareform(pdist(points)) + 1).sum() - len(edges)
        assert length == pytest.approx(expected, abs=1e-9)
        assert len(edges) == len(points) - 1
        assert set(edges.ravel().tolist()) == set(range(len(points)))


def crossings(places: np.ndarray, edges: np.ndarray) -> int:
    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
        return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    n = 0
    for k, (a, b) in enumerate(edges):
        for c, d in edges[:k]:
            if len({a, b, c, d}) == 4:
                p, q, r, s = places[[a, b, c, d]]
                n += side(p, q, r) * side(p, q, s) < 0 and side(r, s, p) * side(r, s, q) < 0
    return n


def test_the_tree_is_laid_out_in_the_plane():
    edges = spanning_tree(GENERATOR.random((100, 8)))
    places = tree_layout(100, edges)
    assert np.abs(places).max() == pytest.approx(1)
    assert np.isfinite(places).all()
    assert crossings(places, edges) <= 5
    lengths = np.sqrt(((places[edges[:, 0]] - places[edges[:, 1]]) ** 2).sum(axis=1))
    assert lengths.max() < 6 * lengths.min()
    assert np.array_equal(places, tree_layout(100, edges))


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 30), (30, 1), (3, 3), (20, 20)])
def test_maps_of_many_shapes(shape: tuple[int, int]):
    k = shape[0] * shape[1]
    figure = plot.plot_som(
        GENERATOR.random((k, 4)),
        np.arange(k) % 40 + 1,
        shape,
        counts=GENERATOR.integers(0, 99, k),
        title="Milz und Darm " * 20,
        names={1: "B-Zell-Follikel mit einem sehr langen Namen"},
    )
    if k < 400:
        assert_texts_do_not_overlap(figure)


def test_maps_of_equal_codes_and_of_no_pixels():
    figure = plot.plot_som(np.ones((9, 2)), np.ones(9, int), (3, 3), counts=np.zeros(9))
    assert (circles(figure, 0)[2] == 1).all()
    assert np.isfinite(circles(figure, 1)[0]).all()
    plain = plot.plot_som(np.ones((9, 2)), np.ones(9, int), (3, 3))
    assert "of pixels" not in texts(plain)


def test_maps_of_nodes_refuse_what_does_not_fit():
    codes, groups = np.ones((6, 2)), np.ones(6, int)
    with pytest.raises(ShapeError, match="shape="):
        plot.plot_som(codes, groups, (2, 2))
    with pytest.raises(ShapeError, match=r"metaclusters \(K,\)"):
        plot.plot_som(codes, groups[:5], (2, 3))
    with pytest.raises(ShapeError, match=r"counts must be \(6,\)"):
        plot.plot_som(codes, groups, (2, 3), counts=[1])
    with pytest.raises(InputError, match="NaN"):
        plot.plot_som(codes * np.nan, groups, (2, 3))


# The example in help(sl.pl)


def test_the_example_of_the_help_works_for_several_images():
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel

    import scportrait_like as sl

    images = ["fov0", "fov1"]
    pixels = GENERATOR.gamma(2, 3, (2, 4, 200, 200)).astype(np.float32)
    channels = ["DNA", "CD3", "CD20", "CD68"]
    sdata = SpatialData(
        images={
            name: Image2DModel.parse(da.from_array(part), dims=("c", "y", "x"), c_coords=channels)
            for name, part in zip(images, pixels, strict=True)
        }
    )
    clusters = [f"clusters_{name}" for name in images]
    groups = [f"metaclusters_{name}" for name in images]
    given = {"fraction": 0.01, "n_clusters": 5, "xdim": 8, "ydim": 8}
    sdata, fsom, mapping = sl.im.flowsom(sdata, images, clusters, groups, **given)
    sl.tb.cluster_intensity(sdata, mapping, images, clusters)
    assert plot.__doc__ is not None
    lines = [line[4:] for line in plot.__doc__.splitlines() if line.startswith(">>> ")]
    room, figures = {"sdata": sdata, "fsom": fsom, "mapping": mapping}, []
    for line in lines:
        if line.startswith("sl.pl."):
            figures.append(eval(line, room))
        else:
            exec(line, room)
    assert len(figures) == 5
    shapes = [heat(figure).shape for figure in figures[2:4]]
    assert shapes == [(5, 4), (64, 4)]
