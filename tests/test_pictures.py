"""Pictures of a project, and its report. (They were also looked at.)"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
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


# Looking writes nothing


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
