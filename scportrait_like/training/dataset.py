"""`InstanceDataset`: an `InstanceStream` as a data set of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from scportrait_like.errors import InputError, MissingExtraError
from scportrait_like.training.stream import InstanceStream

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise MissingExtraError(
        'InstanceDataset needs PyTorch: pip install "scportrait-like[torch]". InstanceStream does '
        f"without ({error})"
    ) from error

if TYPE_CHECKING:
    from scportrait_like.project import Project


class InstanceDataset(IterableDataset):  # type: ignore[misc]
    """Instances of a project for training with PyTorch.

    An iterable data set: it shuffles by itself (`InstanceStream` tells how), so give the
    ``DataLoader`` no sampler and no ``shuffle``. The workers of a loader, forked or spawned, share
    the shards; each instance comes once an epoch, and for a given number of workers always in the
    same order. Call `set_epoch` before each epoch.

    Quickest are whole batches: ``InstanceDataset(..., batch_size=64)`` with
    ``DataLoader(..., batch_size=None)``. With images a worker holds the pixels of one shard's
    instances: at most 256 MB, the rest lies in a temporary file.

    Parameters
    ----------
    source
        A project, its folder, or an `.h5sc` file.
    transform
        Called with each image, or with each batch of them if there is a `batch_size`; what it
        returns takes its place.
    labels
        The value of each instance, by id: a mapping or a pandas Series of numbers.
    rank, world_size
        In distributed training: which of how many processes this is. They share the shards, so
        that each instance comes once in all of them together; they may get different numbers.
    **options
        As for `InstanceStream`: diameter, channels, ids, image, mask, remove_background, shuffle,
        seed, batch_size.

    Raises
    ------
    InputError, MissingInputError, IncompleteOutputError
        What does not fit, or is not there; the message says what there is.
    """

    def __init__(
        self,
        source: Project | str | PathLike[str],
        *,
        transform: Callable[[Any], Any] | None = None,
        labels: Any = None,
        rank: int = 0,
        world_size: int = 1,
        **options: Any,
    ) -> None:
        super().__init__()
        if not 0 <= rank < world_size:
            raise InputError(f"rank={rank} of world_size={world_size}: ranks are counted from 0")
        self.stream = InstanceStream(source, labels=labels, **options)
        targets = self.stream.targets
        if targets is not None and targets.dtype.kind not in "biuf":
            raise InputError(
                f"labels holds {targets.dtype}, but tensors are made of numbers: number the classes"
            )
        self.transform = transform
        self.rank, self.world_size = rank, world_size
        # In shared memory: workers that stay from epoch to epoch see it change.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        """What this rank gets in the next epoch: instances, or batches if there is a `batch_size`.

        Batches are a few more with workers: each of them has a last one that may be smaller.
        """
        self.stream.set_epoch(int(self._epoch[0]))
        count = self.stream.count(self.rank, self.world_size)
        return -(-count // (self.stream.batch_size or 1))

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next epoch."""
        self.stream.set_epoch(epoch)  # checks it
        self._epoch[0] = epoch

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the share of this rank and worker.

        Yields
        ------
        tuple
            Without a `batch_size`: image (c, y, x) or (c, z, y, x) float32, unscaled; its id; and
            its value if labels were given. With it: (b, c, y, x) or (b, c, z, y, x) float32, and
            tensors (b,) of ids (int64) and values.
        """
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        self.stream.set_epoch(int(self._epoch[0]))
        # However many workers there are, a rank has the same instances.
        part, parts = number * self.world_size + self.rank, workers * self.world_size
        for images, *more in self.stream.part(part, parts):
            tensor = torch.from_numpy(np.asarray(images, np.float32))
            if self.transform is not None:
                tensor = self.transform(tensor)
            yield tensor, *(_plain(value) for value in more)


def _plain(values: Any) -> Any:
    """Tensor of an array, Python's number of a single one."""
    return torch.from_numpy(np.ascontiguousarray(values)) if np.ndim(values) else values.item()
