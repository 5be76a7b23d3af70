"""What a step never replaces, and runs that were refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scportrait_like import Project, names
from scportrait_like.errors import ElementExistsError, InputError

CHANNELS = ["a", "b", "c"]


def made(folder: Path, overwrite: bool = False, **section: object) -> Project:
    """A project of a small image and its mask, prepared not at all."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (3, 60, 70)).astype(np.uint16)
    labels = np.kron(np.arange(1, 43).reshape(6, 7), np.ones((10, 10), int)).astype(np.uint16)
    config = {"PixelClustering": {"preprocess": False, "xdim": 3, "ydim": 3, **section}}
    project = Project(folder, config, overwrite=overwrite)
    project.load_input_from_array(image, CHANNELS)
    project.load_labels(labels)
    return project


@pytest.mark.parametrize("key", ["clusters_name", "metaclusters_name"])
def test_a_mask_of_the_user_is_never_replaced(tmp_path: Path, key: str) -> None:
    project = made(tmp_path, overwrite=True, **{key: names.SEG_CYTOSOL})
    before = np.asarray(project.filehandler.open_array(names.SEG_CYTOSOL))
    with pytest.raises(ElementExistsError, match=rf"never replaced\. Give another {key}"):
        project.cluster_pixels(overwrite=True)
    after = np.asarray(project.filehandler.open_array(names.SEG_CYTOSOL))
    np.testing.assert_array_equal(before, after)


def test_what_a_refusal_asks_for_may_be_changed(tmp_path: Path) -> None:
    project = made(tmp_path, xdim=100, ydim=100)
    with pytest.raises(InputError, match="fewer than the 10000 nodes"):
        project.cluster_pixels()
    assert project.status()[0].state == "interrupted"
    (tmp_path / names.CONFIG_FILE).unlink()
    made(tmp_path).cluster_pixels()
    assert made(tmp_path).status()[0].state == "complete"
