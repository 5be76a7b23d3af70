"""Pictures of a project, and its report. (They were also looked at.)"""

from __future__ import annotations

import time
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import scipy.sparse
from matplotlib.figure import Figure

from scportrait_like import datasets, names
from scportrait_like.errors import InputError, MissingInputError, ProjectLockedError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.pyramids import write_region
from scportrait_like.plot import fitting_view, view_like
from scportrait_like.project import Project
from scportrait_like.run.lock import project_lock

CONFIG = {"HDF5CellExtraction": {"image_size": 32, "threads": 1}}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with two masks, extracted; no test changes its inputs."""
    section = datasets.tissue((6, 300, 420), seed=7)
    project = Project(tmp_path_factory.mktemp("pictures") / "project", CONFIG)
    project.load_input_from_array(section.read_image(), section.channel_names)
    project.load_labels(section.read_labels())
    project.load_labels(section.read_nuclei(), "nucleus")
    project.extract()
    return project


def texts(figure: Figure) -> list[str]:
    legends = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    return [t.get_text() for t in figure.texts] + legends + [t for t in titles if t]


def drawn(figure: Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
    }


# The input


def test_input_shows_channels_and_outlines(done: Project, tmp_path: Path) -> None:
    plain = done.plot_input_image(["DNA", "CD3"])
    assert texts(plain) == ["DNA", "CD3", "(4 more not shown)"]
    lined = done.plot_input_image(["DNA", "CD3"], masks=True, title="Gut", save=tmp_path / "i.png")
    expected = ["DNA", "CD3", names.SEG_NUCLEUS, names.SEG_CYTOSOL, "(4 more not shown)", "Gut"]
    assert texts(lined) == expected
    changed = (drawn(plain) != drawn(lined)).any(axis=2)
    assert 0.02 < changed.mean() < 0.5
    assert (tmp_path / "i.png").stat().st_size > 20_000
    one = done.plot_input_image("DNA", masks="nucleus")
    assert texts(one) == ["DNA", names.SEG_NUCLEUS, "(5 more not shown)"]


def test_crop_is_in_pixels_of_the_full_image_and_shows_them(done: Project) -> None:
    figure = done.plot_input_image("DNA", crop=(50, 100, 60, 160))
    assert figure.axes[0].get_xlim() == (60, 160)
    assert figure.axes[0].get_ylim() == (100, 50)
    pixels = done.filehandler.open_array(names.INPUT_IMAGE)[0, 50:100, 60:160]
    shown = drawn(figure)[:: drawn(figure).shape[0] // 50, :: drawn(figure).shape[1] // 100, 0]
    assert np.corrcoef(pixels.ravel(), shown.ravel())[0, 1] > 0.95


def test_max_pixels_chooses_the_level(done: Project) -> None:
    figure = done.plot_input_image("DNA", masks=True, max_pixels=150 * 210)
    assert figure.axes[0].get_xlim() == (0, 420)
    thinned = done.plot_input_image("DNA", masks=True, max_pixels=1000)
    assert thinned.axes[0].get_ylim()[0] == pytest.approx(300, rel=0.1)
    with pytest.raises(InputError, match="max_pixels=0"):
        done.plot_input_image(max_pixels=0)


def test_wrong_names_and_crops_are_refused(done: Project) -> None:
    with pytest.raises(InputError, match="'CD99' is not one of DNA"):
        done.plot_input_image("CD99")
    with pytest.raises(MissingInputError, match="seg_other is not in the project; it has: seg_all"):
        done.plot_input_image(masks="seg_other")
    with pytest.raises(InputError, match="does not lie in the 300 x 420"):
        done.plot_segmentation_masks(crop=(0, 301, 0, 10))


def test_a_project_without_inputs_says_what_to_load(tmp_path: Path) -> None:
    project = Project(tmp_path / "empty", CONFIG)
    with pytest.raises(MissingInputError, match="load_input_from_tif_files"):
        project.plot_input_image()
    with pytest.raises(MissingInputError, match="load_labels"):
        project.plot_segmentation_masks()
    with pytest.raises(MissingInputError, match=r"project\.extract"):
        project.plot_single_cell_images()


def test_masks_side_by_side(done: Project, tmp_path: Path) -> None:
    figure = done.plot_segmentation_masks(save=tmp_path / "m.png")
    labels = np.asarray(done.filehandler.open_array(names.SEG_CYTOSOL)[:])
    n = len(np.unique(labels)) - 1
    assert texts(figure) == [f"{m}: {n} objects" for m in (names.SEG_NUCLEUS, names.SEG_CYTOSOL)]
    part = done.plot_segmentation_masks("cytosol", crop=(0, 100, 0, 100))
    assert texts(part) == [f"seg_all_cytosol: {len(np.unique(labels[:100, :100])) - 1} objects"]
    assert (tmp_path / "m.png").stat().st_size > 10_000


def test_an_image_of_ten_gigapixels_is_drawn_in_seconds(tmp_path: Path) -> None:
    """Only one coarse level holds pixels here: what is drawn was read from it."""
    store = FileHandler(tmp_path / "large")
    edge = 100_000
    section = datasets.tissue((1, 1563, 1563))
    content = {names.INPUT_IMAGE: section.read_image(), names.SEG_CYTOSOL: section.read_labels()}
    for name, pixels in content.items():
        kind = "images" if pixels.ndim == 3 else "labels"
        shape = (*pixels.shape[:-2], edge, edge)
        with store.raster_writer(name, kind, shape, pixels.dtype) as writer:
            write_region(writer.levels[6], tuple(slice(0, n) for n in pixels.shape), pixels)
            writer.build_pyramid(lambda work, tasks: [])
    project = Project(tmp_path / "large")
    began = time.perf_counter()
    figure = project.plot_input_image(masks=True)
    masks = project.plot_segmentation_masks()
    assert time.perf_counter() - began < 15
    assert drawn(figure).std() > 0.05
    assert figure.axes[0].get_xlim()[1] == pytest.approx(edge, rel=0.001)
    assert "(1:64)" in texts(masks)[0]


def test_views_of_other_pyramids_lie_upon_each_other(tmp_path: Path) -> None:
    """A mask without a pyramid is seen upon a coarse level of an image, pixel by pixel."""
    store = FileHandler(tmp_path)
    labels = datasets.tissue((1, 1500, 1300)).read_labels()
    image = (labels > 0).astype(np.uint16)[None]
    with store.raster_writer("image", "images", image.shape, image.dtype) as writer:
        writer.write((slice(0, 1), slice(0, 1500), slice(0, 1300)), image)
    with store.raster_writer("mask", "labels", labels.shape, labels.dtype, pyramid=False) as writer:
        writer.write((slice(0, 1500), slice(0, 1300)), labels)
    levels = [store.open_array("image", k) for k in range(len(store.level_paths("image")))]
    for pixels in (1500 * 1300, 750 * 650, 10_000):
        view = fitting_view(levels, crop=(100, 1200, 50, 1001), max_pixels=pixels)
        y0, y1, x0, x1 = view.crop
        mask = view_like([store.open_array("mask")], view)
        seen, under = view[0, y0:y1, x0:x1], mask[y0:y1, x0:x1]
        assert seen.shape == under.shape
        assert seen.size <= pixels
        assert (seen.astype(bool) == (under > 0)).mean() > 0.9
        assert set(np.unique(under)) <= set(np.unique(labels))


# Single-cell images


def test_cells_are_drawn_by_id_with_their_planes(done: Project, tmp_path: Path) -> None:
    ids = done.h5sc.obs[names.INSTANCE_KEY].tolist()
    wanted = [ids[5], ids[2]]
    figure = done.plot_single_cell_images(cell_ids=wanted, channels=["CD3", "DNA"])
    planes = [names.SEG_NUCLEUS, names.SEG_CYTOSOL, "CD3", "DNA"]
    assert texts(figure)[: 2 + 4] == [f"cell {id_}" for id_ in wanted] + planes
    images = done.h5sc.obsm[names.IMAGES_KEY]
    # Columns are drawn one after the other.
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert np.array_equal(shown[0], images[5, 0].astype(np.float32))
    assert np.array_equal(shown[5], images[2, 4].astype(np.float32))
    bare = done.plot_single_cell_images(3, channels="DNA", masks=False, save=tmp_path / "c.png")
    assert len(bare.axes) == 3
    assert texts(bare)[-1] == f"3 of {len(ids)} cells"


def test_cells_that_were_not_extracted_are_explained(done: Project) -> None:
    ledger = done.extraction_f.output_path / names.LEDGER_FILE
    from scportrait_like.io.ledger import read_ledger

    dropped = int(read_ledger(ledger).query("state == 'dropped'")["id"].iloc[0])
    with pytest.raises(InputError) as caught:
        done.plot_single_cell_images(cell_ids=[dropped, 10**9])
    assert f"{dropped} (dropped: border), {10**9} (not in the mask)" in str(caught.value)
    with pytest.raises(InputError, match="CD99 not among the extracted: DNA, CD45"):
        done.plot_single_cell_images(channels="CD99")


def test_a_partial_extraction_is_drawn_by_its_folder(done: Project) -> None:
    path = done.extract(partial=True, n_cells=8, seed=1)
    done._last_extraction = None
    figure = done.plot_single_cell_images(output=path.parent.name)
    assert len([t for t in texts(figure) if t.startswith("cell ")]) <= 8
    with pytest.raises(MissingInputError, match="extract"):
        done.plot_single_cell_images(output="nothing")


# Intensities


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with sparse ids far above 2^53, aggregated."""
    section = datasets.tissue((8, 300, 420), seed=3, ids="sparse")
    project = Project(
        tmp_path_factory.mktemp("measured") / "project",
        {"Aggregation": {"statistics": ["mean", "q0.9"], "table_name": "levels"}},
    )
    project.load_input_from_array(section.read_image(), section.channel_names)
    project.load_labels(section.read_labels())
    project.aggregate()
    return project


def expected_colours(labels: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What the cells of a mask are painted with, one after the other."""
    low, high = np.percentile(values, (1, 99))
    colours = np.zeros((*labels.shape, 3), np.uint8)
    for id_, value in zip(ids, values, strict=True):
        share = np.clip((value - low) / (high - low), 0, 1)
        colours[labels == id_] = matplotlib.colormaps["viridis"]([share], bytes=True)[0, :3]
    return colours


def test_cells_have_the_colours_of_their_values(measured: Project, tmp_path: Path) -> None:
    table = measured.sdata["levels"]
    ids = table.obs[names.INSTANCE_KEY].to_numpy()
    labels = np.asarray(measured.filehandler.open_array(names.SEG_CYTOSOL)[:])
    assert ids.max() > 2**53
    inside = labels > 0
    for statistic, values in (
        ("X", table[:, "CD3"].X[:, 0]),
        ("mean", table[:, "CD3"].X[:, 0]),
        ("q0.9", table[:, "CD3"].layers["q0.9"][:, 0]),
    ):
        figure = measured.plot_intensities("CD3", statistic=statistic, save=tmp_path / "m.png")
        assert np.array_equal(drawn(figure)[inside], expected_colours(labels, ids, values)[inside])
        assert texts(figure)[1:] == ["mean" if statistic == "X" else statistic, "CD3"]
    area = measured.plot_intensities(statistic="area", save=tmp_path / "area.pdf")
    expected = expected_colours(labels, ids, table.obs["area"].to_numpy())
    assert np.array_equal(drawn(area)[inside], expected[inside])
    assert (tmp_path / "area.pdf").read_bytes().startswith(b"%PDF")
    part = measured.plot_intensities(["DNA", "CD3"], crop=(50, 150, 20, 220))
    assert part.axes[0].get_xlim() == (20, 220)
    assert drawn(part).shape == (100, 200, 3)


def test_channels_of_most_spread_are_chosen(measured: Project) -> None:
    table = measured.sdata["levels"]
    low, high = np.percentile(np.log1p(table.X), (5, 95), axis=0)
    most = sorted(np.argsort(high - low)[-6:])
    shown = texts(measured.plot_intensities())
    assert [name for name in shown if name in table.var_names] == list(table.var_names[most])
    assert shown[0].endswith("2 more channels not shown")
    everything = texts(measured.plot_intensities(kind="distribution"))
    assert [name for name in everything if name in table.var_names] == list(table.var_names)


def test_distributions_have_the_medians_of_the_table(measured: Project, tmp_path: Path) -> None:
    figure = measured.plot_intensities(["CD3", "DNA"], kind="distribution", save=tmp_path / "d.png")
    table = measured.sdata["levels"]
    for axes, channel in zip(figure.axes, ("CD3", "DNA"), strict=True):
        assert axes.lines[0].get_xdata()[0] == np.median(table[:, channel].X)
    assert texts(figure)[0].startswith(f"mean of {len(table):,} cells")


def test_cells_without_a_row_or_a_value_are_grey(measured: Project) -> None:
    table = measured.sdata["levels"]
    some = table[5:].copy()
    some.X[0, 1] = np.nan
    measured.filehandler.write_element("some", some, overwrite=True)
    figure = measured.plot_intensities(table.var_names[1], table="some")
    labels = np.asarray(measured.filehandler.open_array(names.SEG_CYTOSOL)[:])
    grey = (drawn(figure) == 0xB4).all(axis=2)
    lost = table.obs[names.INSTANCE_KEY].to_numpy()[:6]
    assert np.array_equal(grey, np.isin(labels, lost))
    assert "grey: no value" in texts(figure)[0]
    measured.filehandler.delete_element("some")


def test_a_table_of_several_masks_and_sparse_values(tmp_path: Path) -> None:
    """Made elsewhere: X is a sparse matrix, and cells of two masks share ids."""
    import scportrait_like as sl

    section = datasets.tissue((2, 120, 140), seed=5)
    project = Project(tmp_path / "project")
    project.load_input_from_array(section.read_image(), section.channel_names)
    project.load_labels(section.read_labels())
    project.load_labels(section.read_nuclei(), "nucleus")
    sdata = project.sdata
    for mask in (names.SEG_CYTOSOL, names.SEG_NUCLEUS):
        sl.tb.allocate_intensity(sdata, names.INPUT_IMAGE, mask, "levels", append=True)
    table = sdata["levels"]
    table.X = scipy.sparse.csr_matrix(table.X)
    project.filehandler.write_element("both", table)
    for mask, labels in (("cytosol", section.read_labels()), ("nucleus", section.read_nuclei())):
        figure = project.plot_intensities("DNA", table="both", mask=mask)
        rows = (table.obs["fov_labels"] == names.LABELS_OF_KIND[mask]).to_numpy()
        ids, values = table.obs["cell_ID"].to_numpy()[rows], table.X.toarray()[rows, 0]
        expected = expected_colours(labels, ids, values)
        assert np.array_equal(drawn(figure)[labels > 0], expected[labels > 0])
    with pytest.raises(InputError, match="mask='other': the table both holds cells of seg_all_cyt"):
        project.plot_intensities(table="both", mask="other")


def test_what_is_not_there_is_said(measured: Project, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"channels: CD99 not in the table levels; it has: DNA, "):
        measured.plot_intensities("CD99")
    with pytest.raises(InputError, match=r"it has: mean \(in X\), q0.9; columns of obs: area, min"):
        measured.plot_intensities(statistic="median")
    with pytest.raises(InputError, match="area is a column of obs"):
        measured.plot_intensities("DNA", statistic="area")
    with pytest.raises(InputError, match="expected one of map, distribution"):
        measured.plot_intensities(kind="violin")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="crop: a distribution is of all cells"):
        measured.plot_intensities(kind="distribution", crop=(0, 9, 0, 9))
    with pytest.raises(InputError, match="1 to 6 can be drawn, 7 were given"):
        measured.plot_intensities(["DNA"] * 7)
    with pytest.raises(InputError, match="does not lie in the 300 x 420"):
        measured.plot_intensities(crop=(0, 301, 0, 10))
    with pytest.raises(MissingInputError, match=r"no table x: run project.aggregate.*: levels"):
        measured.plot_intensities(table="x")
    with pytest.raises(MissingInputError, match="no table input_image"):
        measured.plot_intensities(table=names.INPUT_IMAGE)
    waiting = Project(tmp_path / "waiting", {"Aggregation": {}})
    with pytest.raises(MissingInputError, match=r"no table intensities: run project\.aggregate"):
        waiting.plot_intensities()
    bare = Project(tmp_path / "bare")
    with pytest.raises(MissingInputError, match=r"a section Aggregation .*project\.aggregate\(\)"):
        bare.plot_intensities()


def test_a_large_mask_is_drawn_from_a_coarse_level(tmp_path: Path) -> None:
    """A million cells of which the coarse level shows some: nothing else is read."""
    from anndata import AnnData
    from spatialdata.models import TableModel

    edge, n = 50_000, 1_000_000
    store = FileHandler(tmp_path / "large")
    section = datasets.tissue((1, 782, 782), ids="sparse")
    labels = section.read_labels()
    with store.raster_writer(names.SEG_CYTOSOL, "labels", (edge, edge), labels.dtype) as writer:
        write_region(writer.levels[6], (slice(0, 782), slice(0, 782)), labels)
        writer.build_pyramid(lambda work, tasks: [])
    shown = np.unique(labels)[1:]
    generator = np.random.default_rng(0)
    ids = np.unique(np.r_[shown, generator.integers(2**40, 2**62, n, dtype=np.uint64)])
    table = AnnData(generator.random((len(ids), 3), np.float32))
    table.obs["region"], table.obs["id"] = names.SEG_CYTOSOL, ids
    table.obs["region"] = table.obs["region"].astype("category")
    parsed = TableModel.parse(
        table, region=names.SEG_CYTOSOL, region_key="region", instance_key="id"
    )
    store.write_element(names.INTENSITIES, parsed)
    project = Project(tmp_path / "large")
    began = time.perf_counter()
    figure = project.plot_intensities("1")
    project.plot_intensities(kind="distribution")
    assert time.perf_counter() - began < 15
    assert f"{len(shown):,} cells in view; 1:64; 2 more" in texts(figure)[0]
    assert texts(figure)[1] == "X"
    value = table.X[np.searchsorted(ids, labels[labels > 0]), 1].astype(np.float64)
    low, high = np.percentile(table.X[:, 1].astype(np.float64), (1, 99))
    share = np.clip((value - low) / (high - low), 0, 1)
    expected = matplotlib.colormaps["viridis"](share, bytes=True)[:, :3]
    assert np.array_equal(drawn(figure)[labels > 0], expected)


# Looking writes nothing


def test_maps_and_distributions_write_nothing_and_need_no_lock(measured: Project) -> None:
    before = files_of(measured.project_location)
    with project_lock(measured.project_location, "other work"):
        other = Project(measured.project_location)
        other.plot_intensities("DNA")
        other.plot_intensities("DNA", kind="distribution")
    after = files_of(measured.project_location)
    assert {k for k, v in after.items() if before.get(k) != v} <= {names.LOCK_FILE}


def test_pictures_write_nothing_and_need_no_lock(done: Project) -> None:
    before = files_of(done.project_location)
    other = Project(done.project_location)
    with project_lock(done.project_location, "other work"):
        other.plot_input_image(masks=True)
        other.plot_segmentation_masks()
        other.plot_single_cell_images(2)
        other.status()
        with pytest.raises(ProjectLockedError, match="other work"):
            other.report()
    after = files_of(done.project_location)
    assert {k: v for k, v in after.items() if ".lock" not in k} == {
        k: v for k, v in before.items() if ".lock" not in k
    }


# The report


def test_report_shows_inputs_steps_and_the_fate_of_every_cell(done: Project) -> None:
    from scportrait_like.io.ledger import read_ledger

    page = done.report()
    assert page == done.project_location / "report" / "report.html"
    text = page.read_text()
    ledger = read_ledger(done.extraction_f.output_path / names.LEDGER_FILE)
    for state, count in ledger["state"].astype(str).value_counts().items():
        assert f"<td>{state}</td>" in text
        assert f'<td class="number">{count}</td>' in text
    assert f"<b>{len(ledger)}</b>" in text
    assert "the window does not lie inside the image" in text
    assert "DNA, CD45, CD3" in text
    assert "image_size: 32" in text
    pictures = {path.name for path in page.parent.glob("*.png")}
    assert {"input_image.png", "masks.png", "single_cells_data.png"} <= pictures
    assert all(f'src="{name}"' in text for name in pictures)
    inode = page.stat().st_ino
    assert done.report().stat().st_ino != inode
    assert not [p for p in done.project_location.iterdir() if "scratch" in p.name]


def test_report_shows_intensities(measured: Project) -> None:
    page = measured.report()
    text = page.read_text()
    table = measured.sdata["levels"]
    assert "<h2>Intensities</h2>" in text
    facts = f"Table levels: mean, q0.9 of 8 channels in {len(table)} cells of seg_all_cytosol."
    assert facts in " ".join(text.split())
    for channel in table.var_names:
        values = table[:, channel].X
        line = text.partition(f"<td>{channel}</td>")[2].partition("</tr>")[0]
        for value in (values.min(), np.median(values), values.max()):
            assert f'<td class="number">{value:,.4g}</td>' in line
    assert "without value" not in text
    assert {"map_levels.png", "distribution_levels.png"} <= {p.name for p in page.parent.iterdir()}
    assert 'class="state stale"' not in text


def test_report_says_that_intensities_are_stale(tmp_path: Path) -> None:
    section = datasets.tissue((2, 100, 120), seed=1)
    project = Project(tmp_path / "project", {"Aggregation": {}})
    project.load_input_from_array(section.read_image(), section.channel_names)
    project.load_labels(section.read_labels())
    assert "Intensities" not in project.report().read_text()
    project.aggregate()
    project.load_labels(section.read_nuclei(), overwrite=True)
    text = project.report().read_text().partition("<h2>Intensities</h2>")[2]
    assert '<span class="state stale">stale</span>' in text
    assert "changed: " in text


def test_report_of_an_empty_project_and_of_strange_names(tmp_path: Path) -> None:
    project = Project(tmp_path / "<b>&amp;", CONFIG)
    text = project.report().read_text()
    assert "Nothing is loaded yet" in text
    assert "<b>&" not in text
    image = datasets.tissue((1, 64, 64)).read_image()
    project.load_input_from_array(image, ["<script>"])
    text = project.report().read_text()
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert 'class="state absent"' in text


def test_report_of_a_large_image_shows_a_part_closely(tmp_path: Path) -> None:
    section = datasets.tissue((2, 1800, 1300), seed=2)
    project = Project(tmp_path / "project", CONFIG)
    project.load_input_from_array(section.read_image(), section.channel_names)
    project.load_labels(section.read_labels())
    page = project.report()
    assert {p.name for p in page.parent.glob("*.png")} == {
        "input_image.png",
        "input_detail.png",
        "masks.png",
    }
