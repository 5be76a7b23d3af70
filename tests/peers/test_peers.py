"""scPortrait 1.8.0 and this package on the same inputs: same pictures, and each reads the other's.

Run by ``make test-peers``. Limitations of scPortrait 1.8 that these tests go around:

- it writes no uncompressed file, so lzf and gzip are compared;
- without normalisation it divides by 65535 whatever the dtype, so only uint16 is compared;
- its var/channels and uns/.../channel_names cut names at 15 characters, ours are whole;
- with cells that only the cytosol mask has, it leaves these out without a note;
- ``Project.featurize(data_type="partial")`` needs a complete run beside the partial one, and fails
  where the border left fewer rows than were asked for: there its step is called by itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

import scportrait_like as sl
from scportrait_like.errors import ProjectError

from .conftest import CASES, CHANNELS, CYTOSOL, NUCLEUS, Made

pytestmark = pytest.mark.peers

Maker = Callable[[str], Made]
Peer = Callable[..., dict[str, Any]]


def _ulps(images: NDArray[np.float16]) -> NDArray[np.int32]:
    """Numbers whose differences are units in the last place; both zeros are 0."""
    bits = images.view(np.int16).astype(np.int32)
    return np.where(bits < 0, -(bits & 0x7FFF), bits)


def _removed(made: Made) -> set[int]:
    return {int(line) for line in (made.h5sc.parent / "removed_classes.csv").read_text().split()}


def _images(path: Path) -> tuple[NDArray[np.uint64], NDArray[np.float16]]:
    with h5py.File(path) as file:
        return file["obs/scportrait_cell_id"][()], file["obsm/single_cell_images"][()]


@pytest.mark.parametrize("case", CASES)
def test_pictures_are_those_of_scportrait(case: str, ours: Maker, theirs: Maker) -> None:
    mine, peer = ours(case), theirs(case)
    ids, images = _images(mine.h5sc)
    peer_ids, peer_images = _images(peer.h5sc)
    assert len(ids) > 20
    np.testing.assert_array_equal(ids, peer_ids)
    assert images.shape == peer_images.shape
    apart = np.abs(_ulps(images) - _ulps(peer_images))
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= 1e-4 * apart.size
    assert peer_images[:, -1].max() > 0
    assert _removed(mine) == _removed(peer)
    assert _removed(mine)
    # A partial run's folder has its name.
    assert mine.h5sc.relative_to(mine.project) == peer.h5sc.relative_to(peer.project)


@pytest.mark.parametrize("case", CASES)
def test_file_says_what_scportraits_says(case: str, ours: Maker, theirs: Maker) -> None:
    with h5py.File(ours(case).h5sc) as mine, h5py.File(theirs(case).h5sc) as peer:
        images, peer_images = (file["obsm/single_cell_images"] for file in (mine, peer))
        assert images.chunks == peer_images.chunks
        assert images.compression == peer_images.compression == CASES[case].section["compression"]
        assert set(images.attrs) == set(peer_images.attrs)
        for name in peer_images.attrs:
            assert _plain(images.attrs[name]) == _plain(peer_images.attrs[name]), name
        uns, peer_uns = (file["uns/single_cell_images"] for file in (mine, peer))
        assert set(uns) == set(peer_uns)
        for name in set(uns) - {"channel_names"}:
            assert _plain(uns[name][()]) == _plain(peer_uns[name][()]), name
        cut = [name.decode()[:15] for name in uns["channel_names"][()]]
        assert cut == [name.decode() for name in peer_uns["channel_names"][()]]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _same(mine: Any, peer: Any, path: str = "") -> None:
    """Compare what was computed from two files: numbers up to the last place of float16."""
    if isinstance(peer, dict):
        assert set(mine) == set(peer), path
        for key in peer:
            _same(mine[key], peer[key], f"{path}/{key}")
    elif isinstance(peer, list) and any(isinstance(value, (float, list)) for value in peer):
        assert len(mine) == len(peer), path
        for number, (a, b) in enumerate(zip(mine, peer, strict=True)):
            _same(a, b, f"{path}/{number}")
    elif isinstance(peer, float):
        assert mine == pytest.approx(peer, rel=1e-4, abs=1e-6), path
    else:
        assert mine == peer, path


def _comparable(found: dict[str, Any]) -> dict[str, Any]:
    """What `read_with_scportrait.py` found, with names cut as scPortrait cuts them."""

    def cut(value: str) -> str:
        return value.replace(CHANNELS[2], CHANNELS[2][:15])

    names = found["read_h5sc"]["var"], found["read_h5sc"]["uns"]["single_cell_images"]
    for holder, key in zip(names, ("channels", "channel_names"), strict=True):
        holder[key] = [name[:15] for name in holder[key]]
    for part in (found["featurizer"], *found["project"]["tables"].values()):
        # Features are called by mask and channel.
        part["columns"] = [cut(name) for name in part["columns"]]
    return found


@pytest.mark.parametrize("case", ["two masks", "partial", "cytosol, gzip", "raw"])
def test_scportrait_reads_our_file_and_folder(
    case: str, ours: Maker, theirs: Maker, run_peer: Peer
) -> None:
    """Its reader, data set, PyTorch loader, featurizer and Project, on both files and folders."""
    mine, peer = (
        run_peer("read_with_scportrait.py", made.h5sc, "--project", made.project)
        for made in (ours(case), theirs(case))
    )
    names = mine["read_h5sc"]["var"]["channels"]
    assert names == [*CASES[case].masks, *CHANNELS]
    assert mine["dataset"]["length"] == len(mine["read_h5sc"]["ids"]) > 20
    assert mine["loader"]["ids"] == mine["read_h5sc"]["ids"]
    assert len(mine["featurizer"]["columns"]) > 10
    assert len(mine["project"]["tables"]) == len(CASES[case].masks)
    _same(_comparable(mine), _comparable(peer))


def test_folder_of_scportrait_opens_here(theirs: Maker, tmp_path: Path) -> None:
    peer = theirs("two masks")
    folder = tmp_path / "project"
    shutil.copytree(peer.project, folder)
    project = sl.Project(folder)
    assert set(project.sdata.labels) == {NUCLEUS, CYTOSOL}
    assert project.sdata["input_image"]["scale0"]["image"].shape == (3, 430, 380)
    ids, images = _images(peer.h5sc)
    table = project.h5sc
    np.testing.assert_array_equal(table.obs["scportrait_cell_id"], ids)
    np.testing.assert_array_equal(table.obsm["single_cell_images"][:3], images[:3])
    table.obsm["single_cell_images"].file.close()

    # It was not made here, so nothing is known of its inputs: it is replaced only when told to.
    with pytest.raises(ProjectError, match="overwrite=True"):
        project.extract()
    path = project.extract(overwrite=True)
    made_ids, made = _images(path)
    np.testing.assert_array_equal(made_ids, ids)
    assert np.abs(_ulps(made) - _ulps(images)).max() <= 1
