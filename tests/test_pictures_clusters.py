"""Pictures of a project's pixel clusters, and what the report says of them and of features."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from scportrait_like import datasets, names, plot
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.cluster_tables import CLUSTER, METACLUSTER, groups_table
from scportrait_like.io.pyramids import write_region
from scportrait_like.pixels.trained_som import TrainedSom
from scportrait_like.plot._palette import shades
from scportrait_like.project import Project
from scportrait_like.run.lock import project_lock
from scportrait_like.run.rundir import RunDirectory

N_CLUSTERS, CHANNELS = 12, ["DNA", "CD45", "<b>αβ</b>"]
METACLUSTERS = np.arange(N_CLUSTERS) % 4 + 1
GENERATOR = np.random.default_rng(3)
CODES = GENERATOR.random((N_CLUSTERS, 3))


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.texts]


def drawn(figure: Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def painted(labels: np.ndarray) -> np.ndarray:
    """What metaclusters are painted with."""
    colours = plot.cluster_colours(range(int(labels.max()) + 1))
    return np.round(255 * colours).astype(np.uint8)[labels]


def write_clustering(
    folder: Path, clusters: np.ndarray, scale: int = 1, suffix: str = "", output: str = "data"
) -> None:
    """What a pixel clustering leaves; of a large one only a coarse level holds pixels."""
    store = FileHandler(folder)
    groups = np.append(0, METACLUSTERS).astype(np.uint8)
    shape = (*clusters.shape[:-2], *(scale * n for n in clusters.shape[-2:]))
    level = scale.bit_length() - 1
    for name, pixels in (
        (names.PIXEL_CLUSTERS, clusters),
        (names.PIXEL_METACLUSTERS, groups[clusters]),
    ):
        with store.raster_writer(
            name + suffix, "labels", shape, np.uint8, attributes={names.MADE_BY: "pixel_clustering"}
        ) as writer:
            write_region(writer.levels[level], tuple(slice(0, n) for n in pixels.shape), pixels)
            writer.build_pyramid(lambda work, tasks: [])
    for table, region, of_each, key in (
        (names.PIXEL_CLUSTER_INTENSITIES, names.PIXEL_CLUSTERS, np.arange(1, 13), CLUSTER),
        (names.PIXEL_METACLUSTER_INTENSITIES, names.PIXEL_METACLUSTERS, METACLUSTERS, METACLUSTER),
    ):
        n = int(of_each.max())
        counts = np.bincount(np.append(0, of_each)[clusters].ravel(), minlength=n + 1)[1:]
        made = groups_table(
            np.stack([CODES[of_each == k].mean(axis=0) for k in range(1, n + 1)]),
            counts * scale**2,
            CHANNELS,
            region + suffix,
            np.dtype(np.uint8),
            region_key="region",
            instance_key=key,
            obs={METACLUSTER: METACLUSTERS} if key == CLUSTER else None,
        )
        store.write_element(table + suffix, made)
    place = folder / names.PIXEL_CLUSTERING_DIR / output
    place.mkdir(parents=True)
    model = "flowsom.models.som_estimator:SOMEstimator"
    trained = TrainedSom(tuple(CHANNELS), CODES, METACLUSTERS, 4, 3, model, model)
    trained.save(place / names.SOM_FILE)


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, np.ndarray]:
    folder = tmp_path_factory.mktemp("clustered") / "project"
    clusters = GENERATOR.integers(0, N_CLUSTERS + 1, (60, 90)).astype(np.uint8)
    write_clustering(folder, clusters)
    return Project(folder, {"PixelClustering": {}}), clusters


# Pictures


def test_the_map_shows_the_labels(clustered: tuple[Project, np.ndarray], tmp_path: Path) -> None:
    project, clusters = clustered
    labels = np.append(0, METACLUSTERS)[clusters]
    figure = project.plot_pixel_clusters(names={3: "B cells"}, save=tmp_path / "map.png")
    assert np.array_equal(drawn(figure), painted(labels))
    inside = (labels > 0).sum()
    shares = {f"{100 * (labels == k).sum() / inside:.1f} %" for k in range(1, 5)}
    assert {"3 B cells", "of pixels", *shares} <= set(texts(figure))
    assert (tmp_path / "map.png").stat().st_size > 10_000
    part = project.plot_pixel_clusters(crop=(10, 30, 20, 70), title="Part")
    assert np.array_equal(drawn(part), painted(labels[10:30, 20:70]))
    assert part.axes[0].get_xlim() == (20, 70)
    assert {"in view", "Part"} <= set(texts(part))
    fine = project.plot_pixel_clusters(level="clusters")
    colours = np.concatenate([plot.cluster_colours([0]), shades(METACLUSTERS)])
    assert np.array_equal(drawn(fine), np.round(255 * colours).astype(np.uint8)[clusters])
    assert {"1", "4"} <= set(texts(fine))
    assert "5" not in texts(fine)


def test_the_heatmap_and_the_som_are_those_of_the_tables(
    clustered: tuple[Project, np.ndarray], tmp_path: Path
) -> None:
    project, _ = clustered
    figure = project.plot_pixel_clusters("heatmap", save=tmp_path / "h.svg")
    written = texts(figure)
    assert set(CHANNELS) <= set(written)
    rows = [int(text) - 1 for text in written if text in ("1", "2", "3", "4")]
    columns = [CHANNELS.index(text) for text in written if text in CHANNELS]
    means = np.stack([CODES[k - 1 :: 4].mean(axis=0) for k in range(1, 5)])
    scores = (means - means.mean(axis=0)) / means.std(axis=0)
    shown = figure.axes[0].collections[0].get_array()
    np.testing.assert_allclose(shown, scores[rows][:, columns])
    some = project.plot_pixel_clusters("heatmap", level="clusters", channels="DNA")
    assert some.axes[0].collections[0].get_array().shape == (N_CLUSTERS, 1)
    plain = project.plot_pixel_clusters("heatmap", values="mean", order="number")
    np.testing.assert_allclose(plain.axes[0].collections[0].get_array(), means)
    assert [text for text in texts(plain) if text in CHANNELS] == CHANNELS
    som = project.plot_pixel_clusters("som", title="Spleen")
    assert {"Grid of 4 x 3 nodes", "Minimum spanning tree", "Spleen"} <= set(texts(som))


def test_wrong_kinds_names_and_places_are_refused(clustered: tuple[Project, np.ndarray]) -> None:
    project, _ = clustered
    for arguments, message in (
        ({"kind": "umap"}, "kind='umap': expected one of map, heatmap, som, cells"),
        ({"level": "cells"}, "level='cells': expected one of metaclusters, clusters"),
        ({"kind": "som", "crop": (0, 9, 0, 9)}, "crop and z are of a map or of cells"),
        ({"channels": "DNA"}, "channels, values and order are of a heatmap"),
        ({"values": "mean"}, "channels, values and order are of a heatmap"),
        ({"kind": "heatmap", "order": "size"}, "order='size'"),
        ({"names": {5: "B"}}, "no metacluster 5: there are 1 to 4"),
        ({"names": ["B"], "crop": (0, 9, 0, 9)}, "expected a mapping"),
        ({"kind": "heatmap", "channels": "CD99"}, "CD99 not in the table pixel_metacluster"),
        ({"crop": (0, 61, 0, 9)}, "does not lie in the 60 x 90"),
        ({"z": 0}, "one plane only"),
        ({"clustering": "other"}, "clustering='other': the section PixelClustering has no names"),
        ({"max_pixels": 0}, "max_pixels=0"),
    ):
        with pytest.raises(InputError, match=message):
            project.plot_pixel_clusters(**arguments)  # type: ignore[arg-type]


def test_what_is_not_clustered_is_said(tmp_path: Path) -> None:
    bare = Project(tmp_path / "bare")
    with pytest.raises(MissingInputError, match=r"section PixelClustering .*cluster_pixels\(\)"):
        bare.plot_pixel_clusters()
    waiting = Project(tmp_path / "waiting", {"PixelClustering": {}})
    for kind in ("map", "heatmap", "som", "cells"):
        with pytest.raises(MissingInputError, match=r"run project\.cluster_pixels\(\)"):
            waiting.plot_pixel_clusters(kind)  # type: ignore[arg-type]


def test_several_clusterings_are_told_by_name(tmp_path: Path) -> None:
    first = np.ones((20, 30), np.uint8)
    for k, name in enumerate(("few", "many")):
        write_clustering(tmp_path / "project", first + k, suffix=f"_{name}", output=name)
    sections = [{"name": "few"}, {"name": "many", "n_clusters": 9}]
    project = Project(tmp_path / "project", {"PixelClustering": sections})
    for figure, number in (
        (project.plot_pixel_clusters(), 1),
        (project.plot_pixel_clusters(clustering="few"), 1),
        (project.plot_pixel_clusters(clustering="many"), 2),
    ):
        assert (drawn(figure) == painted(np.array([number]))).all()
    with pytest.raises(InputError, match="clustering='x': the section PixelClustering has few, ma"):
        project.plot_pixel_clusters(clustering="x")


def test_a_plane_of_a_volume_is_drawn(tmp_path: Path) -> None:
    clusters = GENERATOR.integers(0, N_CLUSTERS + 1, (5, 30, 40)).astype(np.uint8)
    write_clustering(tmp_path / "project", clusters)
    project = Project(tmp_path / "project", {"PixelClustering": {}})
    labels = np.append(0, METACLUSTERS)[clusters]
    assert np.array_equal(drawn(project.plot_pixel_clusters()), painted(labels[2]))
    figure = project.plot_pixel_clusters(z=4, crop=(3, 20, 5, 40))
    assert np.array_equal(drawn(figure), painted(labels[4, 3:20, 5:40]))
    assert any("plane 4 of 5" in text for text in texts(figure))
    with pytest.raises(InputError, match="z=5: the image has planes 0 to 4"):
        project.plot_pixel_clusters(z=5)


def test_a_map_of_ten_gigapixels_is_drawn_in_seconds(tmp_path: Path) -> None:
    """Only one coarse level holds pixels here: what is drawn was read from it."""
    coarse = GENERATOR.integers(0, N_CLUSTERS + 1, (1560, 1560)).astype(np.uint8)
    write_clustering(tmp_path / "project", coarse, scale=64)
    project = Project(tmp_path / "project", {"PixelClustering": {}})
    began = time.perf_counter()
    figure = project.plot_pixel_clusters(max_pixels=2_500_000)
    assert time.perf_counter() - began < 15
    assert np.array_equal(drawn(figure), painted(np.append(0, METACLUSTERS)[coarse]))
    assert any("64 x 64 pixels seen as one" in text for text in texts(figure))
    assert figure.axes[0].get_xlim() == (0, 64 * 1560)


def test_looking_writes_nothing_and_needs_no_lock(clustered: tuple[Project, np.ndarray]) -> None:
    project, _ = clustered
    place = project.project_location
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    with project_lock(place, "other work"):
        for kind in ("map", "heatmap", "som"):
            Project(place).plot_pixel_clusters(kind)  # type: ignore[arg-type]
    after = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    assert {p for p, t in after.items() if before.get(p) != t} <= {place / names.LOCK_FILE}


# Clusters are no masks of cells


def test_clusters_are_not_taken_for_masks(clustered: tuple[Project, np.ndarray]) -> None:
    project, _ = clustered
    with pytest.raises(MissingInputError, match="has no mask"):
        project.plot_segmentation_masks()
    assert texts(project.plot_segmentation_masks(names.PIXEL_METACLUSTERS)) == []


# The report, and all of it together


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with clusters and features of its own making."""
    section = datasets.tissue((5, 300, 420), seed=7)
    config = {
        "HDF5CellExtraction": {"image_size": 32, "threads": 1},
        "Featurization": {},
        "PixelClustering": {"n_clusters": 6, "xdim": 5, "ydim": 5, "preprocess": {"sigma": 1.0}},
    }
    project = Project(tmp_path_factory.mktemp("done") / "project", config)
    project.load_input_from_array(section.read_image(), section.channel_names)
    project.load_labels(section.read_labels())
    project.run()
    return project


def test_the_report_shows_clusters(done: Project) -> None:
    page = done.report()
    text = page.read_text()
    there = {path.name for path in page.parent.glob("*.png")}
    expected = {f"pixel_metaclusters_{what}.png" for what in ("map", "heatmap", "som", "cells")}
    assert expected <= there
    assert all(f'src="{name}"' in text for name in there)
    part = text.partition("<h2>Pixel clusters</h2>")[2].partition("<h2>Config")[0]
    assert "25 on a grid of 5 x 5" in part
    table = done.sdata[names.PIXEL_METACLUSTER_INTENSITIES]
    for number, pixels in enumerate(table.obs["pixels"], 1):
        assert f"</span>{number}</td>" in part
        assert f'<td class="number">{pixels:,}</td>' in part
    assert 'class="state stale"' not in part
    inputs = text.partition("<h2>Steps</h2>")[0]
    assert names.SEG_CYTOSOL in inputs
    assert names.PIXEL_CLUSTERS not in inputs


def test_a_part_of_the_map_is_drawn_where_the_whole_does_not_show_all(
    done: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scportrait_like.report import _clusters

    monkeypatch.setattr(_clusters, "detail", lambda project: (0, 200, 0, 210))
    assert _clusters._part(done, names.PIXEL_METACLUSTERS) is None
    monkeypatch.setattr(_clusters, "_WHOLE", 400)
    assert _clusters._part(done, names.PIXEL_METACLUSTERS) == (0, 200, 0, 210)


def test_the_report_shows_features(done: Project) -> None:
    page = done.report()
    text = page.read_text()
    part = " ".join(text.partition("<h2>Features</h2>")[2].split())
    table = done.sdata[names.FEATURES]
    said = f"Table features: {table.n_vars} features of {table.n_obs} cells of seg_all_cytosol."
    assert part.partition(">")[2].startswith(said)
    assert "<td>model</td><td>intensity_statistics</td>" in part
    assert "the metacluster that most of its pixels have" in part
    there = {path.name for path in page.parent.iterdir()}
    assert {"distribution_features.png", "components_features.png"} <= there


def test_cells_have_the_colour_of_their_commonest_metacluster(done: Project) -> None:
    from scportrait_like.report._features import _commonest

    counts = done.sdata[names.PIXEL_CLUSTER_COUNTS]
    ids = counts.obs[names.INSTANCE_KEY].to_numpy()
    by_group = counts.obsm["metaclusters"]
    expected = np.where(by_group.max(axis=1) > 0, by_group.argmax(axis=1) + 1, 0)
    order = GENERATOR.permutation(len(ids))
    asked = np.append(ids[order], 10**9)
    found = _commonest(done, names.SEG_CYTOSOL, asked)
    assert found is not None
    assert np.array_equal(found, np.append(expected[order], 0))
    assert _commonest(done, "another_mask", ids) is None


def test_cells_are_drawn_in_the_colour_of_their_commonest_metacluster(done: Project) -> None:
    counts = done.sdata[names.PIXEL_CLUSTER_COUNTS]
    ids, by_group = counts.obs[names.INSTANCE_KEY].to_numpy(), counts.obsm["metaclusters"]
    groups = np.where(by_group.max(axis=1) > 0, by_group.argmax(axis=1) + 1, 0)
    mask = np.asarray(done.filehandler.open_array(names.SEG_CYTOSOL)[:])
    of_each = np.zeros(int(ids.max()) + 1, np.int64)
    of_each[ids] = groups
    expected = painted(np.arange(7))[of_each[mask]]
    figure = done.plot_pixel_clusters("cells", names={2: "B cells"})
    shown = drawn(figure)
    assert np.array_equal(shown[mask > 0], expected[mask > 0])
    assert (shown[mask == 0] < 30).all()
    share = (groups == 2).sum() / (groups > 0).sum()
    assert {"2 B cells", f"{100 * share:.1f} %", f"{len(ids):,} cells"} <= set(texts(figure))
    part = done.plot_pixel_clusters("cells", crop=(50, 150, 0, 200))
    assert np.array_equal(drawn(part), shown[50:150, :200])
    n = len(np.unique(mask[50:150, :200])) - (mask[50:150, :200] == 0).any()
    assert {"in view", f"{n:,} cells"} <= set(texts(part))


def test_what_is_shown_of_an_older_output_is_said(done: Project, tmp_path: Path) -> None:
    shutil.copytree(done.project_location, tmp_path / "project")
    config = {"PixelClustering": {"n_clusters": 4, "xdim": 5, "ydim": 5}}
    stale = Project(tmp_path / "project", config, overwrite=True)
    for kind in ("map", "heatmap", "som", "cells"):
        assert any("older output: it is stale" in text for text in texts(
            stale.plot_pixel_clusters(kind)  # type: ignore[arg-type]
        ))  # fmt: skip
        assert not any("older output" in t for t in texts(done.plot_pixel_clusters(kind)))  # type: ignore[arg-type]
    said = "Pictures and numbers are those of an older output: it is stale"
    page = stale.report().read_text()
    assert said in page
    assert "n_clusters: 6 -&gt; 4" in page.partition(said)[2].partition("</b>")[0]
    run = RunDirectory(stale.pixel_clustering_f.directory / ".data.run")
    run.start(stale.pixel_clustering_f.fingerprint({}))
    figure = stale.plot_pixel_clusters("som")
    assert any("older output: a newer run is interrupted" in text for text in texts(figure))


def test_a_map_that_was_taken_over_is_said(done: Project, tmp_path: Path) -> None:
    section = datasets.tissue((5, 120, 150), seed=8)
    config = {"PixelClustering": {"model": str(done.project_location)}}
    project = Project(tmp_path / "project", config)
    project.load_input_from_array(section.read_image(), section.channel_names)
    project.cluster_pixels()
    part = project.report().read_text().partition("<h2>Pixel clusters</h2>")[2]
    assert f"taken over from {done.project_location}; nothing was trained here" in part
    assert re.search(r"[\d,]+ pixels of [\d,]+, where the map comes from", part)
    figure = project.plot_pixel_clusters("heatmap")
    written = texts(figure)
    assert [text for text in written if text.isdigit()] == list("123456")
    assert [text for text in written if text in section.channel_names] == section.channel_names
    with pytest.raises(MissingInputError, match="needs a mask"):
        project.plot_pixel_clusters("cells")


def test_real_clusters_are_drawn(done: Project) -> None:
    labels = np.asarray(done.filehandler.open_array(names.PIXEL_METACLUSTERS)[:])
    assert np.array_equal(drawn(done.plot_pixel_clusters()), painted(labels))
    assert len(done.plot_pixel_clusters("som").axes) == 2
    some = done.plot_intensities("DNA", table=names.PIXEL_METACLUSTER_INTENSITIES)
    assert drawn(some).shape == (300, 420, 3)
