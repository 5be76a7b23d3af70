"""The order of instances, who gets which, and their pixels."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from instances.oracle import same_bits, windows
from runs.helpers import project_of, write_raster

from scportrait_like import names
from scportrait_like.errors import (
    IncompleteOutputError,
    InputError,
    MissingInputError,
    ScportraitLikeError,
    ShapeError,
)
from scportrait_like.project import Project
from scportrait_like.raster import tiles
from scportrait_like.raster.instance_runs import find_instances, instance_grid
from scportrait_like.raster.reading import Reading
from scportrait_like.raster.sources import source_of
from scportrait_like.training import InstanceStream, shards, sources

from .conftest import DIAMETER, Array

Made = Callable[..., InstanceStream]
BATCH = {"batch_size": 7}


@pytest.fixture(params=["h5sc", "images"])
def made(request: pytest.FixtureRequest, project: Project, h5sc: Path) -> Made:
    """Make a stream of either kind."""

    def make(**options: Any) -> InstanceStream:
        if request.param == "h5sc":
            return InstanceStream(h5sc, **options)
        return InstanceStream(project, diameter=DIAMETER, **options)

    return make


def ids_of(items: Iterator[tuple[Array, ...]]) -> list[int]:
    return [int(label) for _, found, *_ in items for label in np.atleast_1d(found)]


def bits_of(items: Iterator[tuple[Array, ...]]) -> list[tuple[bytes, ...]]:
    return [tuple(part.tobytes() for part in item) for item in items]


# Pixels


@pytest.mark.parametrize("remove_background", [True, False], ids=["alone", "all"])
@pytest.mark.parametrize("batch_size", [None, 1, 7, 1000])
def test_windows_equal_the_oracle(
    project: Project, rasters: tuple[Array, Array], remove_background: bool, batch_size: int | None
) -> None:
    image, mask = rasters
    ids, _, wanted = windows(mask[None], image[:, None], DIAMETER, remove_background)
    assert wanted is not None
    stream = InstanceStream(
        project, diameter=DIAMETER, remove_background=remove_background, batch_size=batch_size
    )
    assert len(stream._shards) > 3
    assert len(stream) == len(ids)
    by_id = dict(zip(ids.tolist(), wanted[:, :, 0], strict=True))
    seen = []
    for images, labels in stream:
        if batch_size is None:
            images, labels = images[None], labels[None]
        seen += labels.tolist()
        assert same_bits(images, np.stack([by_id[label] for label in labels.tolist()]))
    assert sorted(seen) == ids.tolist()


@pytest.mark.parametrize("memory", [None, 100], ids=["in memory", "in a file"])
@pytest.mark.parametrize("remove_background", [True, False], ids=["alone", "all"])
@pytest.mark.parametrize("diameter", [1, 15, 64, 200])
def test_any_diameter_in_any_memory(
    project: Project,
    rasters: tuple[Array, Array],
    diameter: int,
    remove_background: bool,
    memory: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if memory is not None:
        monkeypatch.setattr(shards, "SHARD_BYTES", memory)
    image, mask = rasters
    ids, _, wanted = windows(mask[None], image[:, None], diameter, remove_background)
    assert wanted is not None
    stream = InstanceStream(project, diameter=diameter, remove_background=remove_background)
    found = {int(label): pixels for pixels, label in stream}
    assert sorted(found) == ids.tolist()
    assert same_bits(np.stack([found[label] for label in ids.tolist()]), wanted[:, :, 0])


@pytest.mark.parametrize(("tile", "most"), [(32, 4), (64, 2.25), (256, 1)])
def test_how_often_chunks_are_decoded(
    tmp_path: Path, tile: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For tiles of k x k chunks (1 + 1/k)^2 times at most."""
    monkeypatch.setattr(tiles, "TILE_EDGE", tile)
    monkeypatch.setattr(shards, "SHARDS", 1000)
    mask = np.arange(1, 43 * 43 + 1).reshape(43, 43).repeat(6, axis=0).repeat(6, axis=1)[:256, :256]
    image = np.zeros((3, 256, 256), np.uint16)
    made = project_of(tmp_path, {}, image, mask, image_chunks=(32, 32), mask_chunks=(32, 32))
    readings = []

    class Noted(Reading):
        def __init__(self, check: Callable[[], None]) -> None:
            super().__init__(check)
            readings.append(self)

    monkeypatch.setattr(shards, "Reading", Noted)
    stream = InstanceStream(made, diameter=12, remove_background=False)
    assert sum(1 for _ in stream) == len(stream) == 43 * 43
    decoded = sum(reading.parts["chunks"] for reading in readings) / (4 * 8 * 8)
    assert 0.8 * most <= decoded <= most


@pytest.mark.parametrize("remove_background", [True, False], ids=["alone", "all"])
def test_a_volume(remove_background: bool) -> None:
    rng = np.random.default_rng(3)
    mask = np.kron(rng.integers(0, 9, (3, 4, 5)), np.ones((1, 11, 12), int)).astype(np.uint16)
    image = rng.integers(0, 999, (2, *mask.shape), np.uint16)
    labels, pixels = source_of(mask), source_of(image)
    found_labels = find_instances(labels, instance_grid(labels, pixels), "the mask", 1 << 30)
    made = shards.WindowShards.of(found_labels, labels, pixels, (0, 1), 9, remove_background)
    ids, _, wanted = windows(mask, image, 9, remove_background)
    assert wanted is not None
    found = {}
    for shard in range(len(made)):
        members = made.members(shard)[::-1]
        images = np.concatenate(list(made.read(members)))
        found.update(zip(made.ids[members].tolist(), images, strict=True))
    assert same_bits(np.stack([found[label] for label in ids.tolist()]), wanted)


def test_pictures_are_those_of_the_file(h5sc: Path, pictures: dict[int, Array]) -> None:
    n_masks = 1
    seen = []
    for images, labels in InstanceStream(h5sc, **BATCH):
        assert images.dtype == np.float16
        for pixels, label in zip(images, labels.tolist(), strict=True):
            assert same_bits(pixels, pictures[label][n_masks:])
            seen.append(label)
    assert sorted(seen) == sorted(pictures)


def test_channels_by_name(project: Project, h5sc: Path, pictures: dict[int, Array]) -> None:
    wanted = ["channel 1", names.SEG_CYTOSOL]
    for pixels, label in InstanceStream(h5sc, channels=wanted):
        assert same_bits(pixels, pictures[int(label)][[2, 0]])
    whole = {int(i): p for p, i in InstanceStream(project, diameter=DIAMETER)}
    for pixels, label in InstanceStream(project, diameter=DIAMETER, channels=["channel 1"]):
        assert same_bits(pixels, whole[int(label)][1:])
    swapped = ["channel 1", "channel 0"]
    for pixels, label in InstanceStream(project, diameter=DIAMETER, channels=swapped):
        assert same_bits(pixels, whole[int(label)][::-1])


def test_a_project_its_folder_and_its_file_are_the_same(project: Project, h5sc: Path) -> None:
    found = [bits_of(iter(InstanceStream(source, **BATCH))) for source in (project, h5sc)]
    folder = str(project.project_location)
    assert found[0] == found[1] == bits_of(iter(InstanceStream(folder, **BATCH)))
    cuts = [InstanceStream(s, diameter=DIAMETER, **BATCH) for s in (project, folder)]
    assert bits_of(iter(cuts[0])) == bits_of(iter(cuts[1]))


def test_a_mask_without_an_index_is_looked_through(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = bits_of(iter(InstanceStream(project, diameter=DIAMETER)))
    monkeypatch.setattr(sources, "index_path", lambda there, name: Path("/nowhere"))
    assert bits_of(iter(InstanceStream(project, diameter=DIAMETER))) == wanted


# Order


def test_each_once_an_epoch(made: Made) -> None:
    stream = made(**BATCH)
    orders = []
    for epoch in range(3):
        stream.set_epoch(epoch)
        orders.append(ids_of(iter(stream)))
        assert sorted(orders[-1]) == sorted(stream.ids.tolist())
    assert len(set(map(tuple, orders))) == 3


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 50])
def test_parts_share_the_shards(made: Made, parts: int) -> None:
    stream = made(batch_size=3)
    stream.set_epoch(5)
    shares = [ids_of(stream.part(part, parts)) for part in range(parts)]
    assert sorted(label for share in shares for label in share) == sorted(stream.ids.tolist())
    assert sum(map(bool, shares)) == min(parts, len(stream._shards))
    again = made(batch_size=3)
    again.set_epoch(5)
    assert [ids_of(again.part(part, parts)) for part in range(parts)] == shares
    assert [again.count(part, parts) for part in range(parts)] == [*map(len, shares)]


def test_the_order_follows_from_seed_and_epoch(made: Made) -> None:
    orders = set()
    for seed in (0, 1, 2):
        for epoch in (0, 1, 2):
            stream = made(seed=seed)
            stream.set_epoch(epoch)
            order = tuple(ids_of(iter(stream)))
            assert order == tuple(ids_of(iter(stream)))
            orders.add(order)
    assert len(orders) == 9


def test_an_iteration_under_way_keeps_its_order(made: Made) -> None:
    stream = made()
    wanted = ids_of(iter(stream))
    seen = []
    for number, (_, label) in enumerate(stream):
        seen.append(int(label))
        stream.set_epoch(number)
    assert seen == wanted


def test_shards_and_what_is_in_them_are_shuffled(made: Made) -> None:
    plain, stream = made(shuffle=False), made()
    sizes = [len(stream._shards.members(shard)) for shard in range(len(stream._shards))]
    assert max(sizes) > 3
    straight = ids_of(iter(plain))
    groups = {
        frozenset(straight[start : start + size])
        for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False)
    }
    first: list[int] = []
    seen = []
    for label in ids_of(iter(stream)):
        first.append(label)
        if frozenset(first) in groups:
            seen.append(first)
            first = []
    assert not first, "a shard comes in one piece"
    assert [set(group) for group in seen] != [
        set(straight[start : start + size])
        for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False)
    ]
    assert any(group != sorted(group, key=straight.index) for group in seen)
    plain.set_epoch(9)
    assert ids_of(iter(plain)) == straight


def test_batches_are_whole_but_for_the_last(made: Made) -> None:
    for size in (1, 4, 7, 64):
        stream = made(batch_size=size)
        sizes = [len(labels) for _, labels in stream]
        assert sizes[:-1] == [size] * (len(sizes) - 1)
        assert sum(sizes) == len(stream)
        assert 0 < sizes[-1] <= size


def test_batches_hold_the_same_order(made: Made) -> None:
    one_by_one = bits_of(iter(made()))
    for size in (1, 5, 64):
        rows = [row for batch in made(batch_size=size) for row in zip(*batch, strict=True)]
        assert bits_of(iter(rows)) == one_by_one


# Some of them, and labels


def test_some_ids(made: Made) -> None:
    everything = made()
    wanted = everything.ids[::3].tolist()
    by_id = {int(label): pixels for pixels, label in everything}
    stream = made(ids=[*wanted, wanted[0]])
    assert len(stream) == len(wanted)
    seen = []
    for pixels, label in stream:
        seen.append(int(label))
        assert same_bits(pixels, by_id[int(label)])
    assert sorted(seen) == sorted(wanted)


@pytest.mark.parametrize("kind", [dict, pd.Series])
def test_labels(made: Made, kind: Any) -> None:
    values = {label: str(label % 7) for label in made().ids.tolist()}
    stream = made(labels=kind(values), **BATCH)
    for _, labels, found in stream:
        assert found.tolist() == [values[label] for label in labels.tolist()]
    wanted = list(values)[:3]
    some = made(labels=kind({label: values[label] for label in wanted}), ids=wanted)
    assert {int(label): str(value) for _, label, value in some} == {i: values[i] for i in wanted}


# Travelling


def test_it_pickles_small_and_goes_on_alike(made: Made) -> None:
    stream = made(**BATCH)
    next(iter(stream))  # its files are open
    stream.set_epoch(1)
    sent = pickle.dumps(stream)
    assert len(sent) < 20_000
    assert not any(kind in sent for kind in (b"h5py", b"_io.", b"zarr.core"))
    assert bits_of(iter(pickle.loads(sent))) == bits_of(iter(stream))


# Bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": -1}, InputError, "seed=-1"),
        ({"seed": 1.5}, InputError, "seed=1.5"),
        ({"batch_size": 0}, InputError, "batch_size=0"),
        ({"diameter": 0}, InputError, "diameter=0"),
        ({"diameter": 8, "channels": ["nope"]}, InputError, "nope.*channel 0, channel 1"),
        ({"channels": ["nope"]}, InputError, "nope.*channel 0, channel 1"),
        ({"channels": []}, InputError, "channels"),
        ({"channels": ["channel 0", "channel 0"]}, InputError, "once"),
        ({"diameter": 8, "ids": [3, 12345]}, InputError, "12345"),
        ({"ids": [3, 12345]}, InputError, "12345"),
        ({"ids": []}, InputError, "no instance"),
        ({"diameter": 8, "ids": []}, InputError, "no instance"),
        ({"diameter": 8, "image": "other"}, MissingInputError, "other"),
        ({"diameter": 8, "mask": "other"}, MissingInputError, "other"),
        ({"mask": "other"}, InputError, "diameter"),
        ({"remove_background": False}, InputError, "diameter"),
        ({"labels": {1: 2}}, InputError, r"labels has no value for \d+ instances"),
        ({"diameter": 8, "labels": {}}, InputError, "labels has no value"),
    ],
)
def test_bad_arguments(
    project: Project, options: dict[str, Any], error: type[ScportraitLikeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        InstanceStream(project, **options)


def test_bad_parts_and_epochs(h5sc: Path) -> None:
    stream = InstanceStream(h5sc)
    with pytest.raises(InputError, match="part 2 of 2"):
        stream.part(2, 2)
    with pytest.raises(InputError, match="epoch=-1"):
        stream.set_epoch(-1)


def test_what_is_not_there(tmp_path: Path, rasters: tuple[Array, Array], h5sc: Path) -> None:
    image, mask = rasters
    with pytest.raises(MissingInputError, match=r"project\.extract"):
        InstanceStream(tmp_path)
    with pytest.raises(MissingInputError, match="no image"):
        InstanceStream(tmp_path, diameter=8)
    with pytest.raises(InputError, match="leave diameter out"):
        InstanceStream(h5sc, diameter=8)
    broken = tmp_path / "broken.h5sc"
    broken.write_bytes(h5sc.read_bytes()[:5000])
    with pytest.raises(IncompleteOutputError, match="damaged"):
        InstanceStream(broken)
    empty = project_of(tmp_path / "empty", {}, image, mask * 0)
    with pytest.raises(InputError, match="no instances"):
        InstanceStream(empty, diameter=8)
    write_raster(empty.project_location, "small", mask[:50], (32, 32))
    with pytest.raises(ShapeError, match="same pixels"):
        InstanceStream(empty, diameter=8, mask="small")


def test_the_nucleus_where_there_is_no_other(
    tmp_path: Path, rasters: tuple[Array, Array], cut: dict[int, Array]
) -> None:
    image, mask = rasters
    made = project_of(tmp_path / "nuclei", {}, image, nucleus=mask)
    for pixels, label in InstanceStream(made, diameter=DIAMETER):
        assert same_bits(pixels, cut[int(label)])
