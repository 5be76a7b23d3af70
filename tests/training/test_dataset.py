"""`InstanceDataset` with PyTorch's own loader."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scportrait_like.errors import InputError
from scportrait_like.project import Project
from scportrait_like.training import InstanceStream

from .conftest import DIAMETER, Array

torch = pytest.importorskip("torch", reason="PyTorch is not installed (make test-torch)")

Made = Callable[..., Any]


@pytest.fixture(params=["h5sc", "images"])
def source(request: pytest.FixtureRequest, project: Project, h5sc: Path) -> dict[str, Any]:
    if request.param == "h5sc":
        return {"source": h5sc}
    return {"source": project, "diameter": DIAMETER}


def dataset(source: dict[str, Any], **options: Any) -> Any:
    from scportrait_like.training import InstanceDataset

    return InstanceDataset(**source, **options)


def load(data: Any, workers: int = 0, context: str | None = None, **options: Any) -> Any:
    options.setdefault("batch_size", None if data.stream.batch_size else 4)
    return torch.utils.data.DataLoader(
        data,
        num_workers=workers,
        multiprocessing_context=context if workers else None,
        **options,
    )


def seen(batches: Iterable[Any]) -> tuple[list[int], list[Array]]:
    ids, images = [], []
    for pixels, labels, *_ in batches:
        ids += labels.tolist()
        images += list(pixels.numpy())
    return ids, images


def test_a_single_process_follows_the_stream(source: dict[str, Any]) -> None:
    data = dataset(source)
    stream = InstanceStream(**source)
    assert len(data) == len(stream)
    assert len(dataset(source, batch_size=7)) == -(-len(stream) // 7)
    for (pixels, label), (wanted, wanted_label) in zip(data, stream, strict=True):
        assert pixels.dtype == torch.float32
        assert type(label) is int
        assert label == wanted_label
        np.testing.assert_array_equal(pixels.numpy(), wanted.astype(np.float32))


@pytest.mark.parametrize(
    ("workers", "context", "batch_size"),
    [(0, None, 6), (2, "fork", 6), (2, "fork", None), (2, "spawn", 6)],
)
def test_each_once_and_always_alike(
    source: dict[str, Any], workers: int, context: str | None, batch_size: int | None
) -> None:
    data = dataset(source, batch_size=batch_size)
    next(iter(data))  # files are open when the workers are forked
    by_id = {int(label): pixels for pixels, label in InstanceStream(**source)}
    orders = []
    for epoch in (0, 1, 1):
        data.set_epoch(epoch)
        ids, images = seen(load(data, workers, context))
        assert sorted(ids) == sorted(by_id)
        for label, pixels in zip(ids, images, strict=True):
            np.testing.assert_array_equal(pixels, by_id[label].astype(np.float32))
        orders.append(ids)
    assert orders[0] != orders[1]
    assert orders[1] == orders[2]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_that_stay_see_the_epoch(source: dict[str, Any], context: str) -> None:
    data = dataset(source, batch_size=6)
    loader = load(data, 2, context, persistent_workers=True)
    orders = []
    for epoch in (0, 3, 0):
        data.set_epoch(epoch)
        orders.append(seen(loader)[0])
    assert orders[0] == orders[2] != orders[1]


def test_ranks_share_the_instances(source: dict[str, Any]) -> None:
    ranks = [dataset(source, rank=rank, world_size=2, batch_size=6) for rank in range(2)]
    shares = [seen(load(data, workers=2, context="fork"))[0] for data in ranks]
    lengths = [len(dataset(source, rank=rank, world_size=2)) for rank in range(2)]
    assert lengths == [len(share) for share in shares]
    assert sorted(shares[0] + shares[1]) == sorted(ranks[0].stream.ids.tolist())


def test_labels_and_transforms(source: dict[str, Any]) -> None:
    ids = InstanceStream(**source).ids.tolist()
    values = {label: number % 3 for number, label in enumerate(ids)}
    one_by_one = dataset(source, labels=values, transform=lambda image: image[:1] / 2)
    plain = {label: pixels for pixels, label in dataset(source)}
    for pixels, label, value in one_by_one:
        assert value == values[label]
        assert torch.equal(pixels, plain[label][:1] / 2)
    batches = dataset(source, labels=values, batch_size=6, transform=lambda x: x.flatten(1))
    for pixels, labels, found in load(batches):
        assert pixels.ndim == 2
        assert found.dtype == labels.dtype == torch.int64
        assert found.tolist() == [values[label] for label in labels.tolist()]


def test_it_pickles(source: dict[str, Any]) -> None:
    data = dataset(source)
    data.set_epoch(2)
    copy = pickle.loads(pickle.dumps(data))
    assert seen(load(copy))[0] == seen(load(data))[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank=2"),
        ({"seed": -1}, "seed"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments(source: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataset(source, **options)


def test_labels_are_numbers(source: dict[str, Any]) -> None:
    ids = InstanceStream(**source).ids.tolist()
    with pytest.raises(InputError, match="number the classes"):
        dataset(source, labels=dict.fromkeys(ids, "T cell"))
