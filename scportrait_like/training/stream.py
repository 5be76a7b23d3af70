"""`InstanceStream`: instances in shuffled order, shared out to workers, as numpy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError
from scportrait_like.training.shards import Shards
from scportrait_like.training.sources import open_shards, targets_of

if TYPE_CHECKING:
    from scportrait_like.project import Project

Arrays = tuple[NDArray[Any], ...]


class InstanceStream:
    """Instances of a project, in an order of its own each epoch.

    They are read shard by shard: ranges of rows of an `.h5sc` file, or tiles of an image. The order
    of the shards, and that inside of each, follow from seed and epoch, whoever reads them. Each
    instance comes once an epoch. Ids and places are looked up when a stream is made; pixels are
    read from files that each process opens for itself.

    Parameters
    ----------
    source
        A project, its folder, or an `.h5sc` file.
    diameter
        Cut windows of so many pixels from image and mask, as featurization does. None: read the
        pictures of the `.h5sc` file (of a project: of ``project.extract()``).
    channels
        Names, in the order wanted; None: all channels of the image. Of an `.h5sc` file a mask's
        name may be among them.
    ids
        Instances to take; None: all.
    image, mask
        Names of the elements that windows are cut from; default: those of the loaders.
    remove_background
        Whether pixels of a window that are not the instance's are 0.
    shuffle
        False: in the order of shards, and inside of each as they lie there.
    seed
        Whole, from 0.
    batch_size
        Instances that come at once; None: one by one. Without a rest only the last one is smaller.
    labels
        The value of each instance, by id: a mapping or a pandas Series.

    Raises
    ------
    InputError, MissingInputError, IncompleteOutputError
        What does not fit, or is not there; the message says what there is.
    """

    def __init__(
        self,
        source: Project | str | PathLike[str],
        *,
        diameter: int | None = None,
        channels: Sequence[str] | None = None,
        ids: Iterable[int] | None = None,
        image: str | None = None,
        mask: str | None = None,
        remove_background: bool = True,
        shuffle: bool = True,
        seed: int = 42,
        batch_size: int | None = None,
        labels: Mapping[int, Any] | Any = None,
    ) -> None:
        self.seed = _whole(seed, 0, "seed")
        self.batch_size = None if batch_size is None else _whole(batch_size, 1, "batch_size")
        self.shuffle = shuffle
        self.epoch = 0
        self._shards: Shards = open_shards(
            source,
            diameter=diameter,
            channels=channels,
            ids=ids,
            image=image,
            mask=mask,
            remove_background=remove_background,
        )
        self._targets = None if labels is None else targets_of(labels, self.ids)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Labels of the instances, (n,), in no particular order."""
        return self._shards.ids

    @property
    def targets(self) -> NDArray[Any] | None:
        """Values of the instances, (n,), in the order of `ids`; None: no labels were given."""
        return self._targets

    def __len__(self) -> int:
        """Instances, not batches."""
        return len(self.ids)

    def count(self, part: int, parts: int) -> int:
        """Count the instances of a share of this epoch; see `part`."""
        return sum(len(self._shards.members(shard)) for shard in self._share(part, parts))

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; one under way keeps its own."""
        self.epoch = _whole(epoch, 0, "epoch")

    def __iter__(self) -> Iterator[Arrays]:
        """Yield all instances; see `part`."""
        return self.part(0, 1)

    def part(self, part: int, parts: int) -> Iterator[Arrays]:
        """Yield the share of one of several workers: every `parts`-th shard.

        Yields
        ------
        tuple
            Pixels (b, c, y, x), of volumes (b, c, z, y, x), in the dtype of the source; ids (b,)
            int64; and (b,) values, if labels were given. Without a `batch_size` the same of a
            single one: (c, y, x), and two scalars.
        """
        blocks = self._blocks(self._share(part, parts), self.epoch)
        if self.batch_size is not None:
            return _regrouped(blocks, self.batch_size)
        return (row for block in blocks for row in zip(*block, strict=True))

    def _share(self, part: int, parts: int) -> list[int]:
        """Shards of a share, in this epoch's order."""
        if not 0 <= part < parts:
            raise InputError(f"part {part} of {parts} is none: parts are counted from 0")
        shards = np.arange(len(self._shards))
        if self.shuffle:
            shards = self._rng(self.epoch, 0).permutation(shards)
        return list(shards[part::parts].tolist())

    def _rng(self, epoch: int, of: int) -> np.random.Generator:
        # A seed that differs by zeros at its end only would be the same.
        return np.random.default_rng([self.seed, epoch, 1 + of])

    def _blocks(self, shards: Iterable[int], epoch: int) -> Iterator[Arrays]:
        """Yield instances as they are read, shard by shard."""
        for shard in shards:
            members = self._shards.members(shard)
            if self.shuffle:
                members = self._rng(epoch, 1 + shard).permutation(members)
            done = 0
            for images in self._shards.read(members):
                rows = members[done : done + len(images)]
                done += len(images)
                more = () if self._targets is None else (self._targets[rows],)
                yield images, self.ids[rows], *more


def _regrouped(blocks: Iterable[Arrays], size: int) -> Iterator[Arrays]:
    """Join and cut blocks into batches of one size; what is left over comes last."""
    held: list[Arrays] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block[0])
        if count < size:
            continue
        joined = _joined(held)
        whole = count - count % size
        for start in range(0, whole, size):
            yield tuple(each[start : start + size] for each in joined)
        held, count = [tuple(each[whole:] for each in joined)], count - whole
    if count:
        yield _joined(held)


def _joined(blocks: list[Arrays]) -> Arrays:
    if len(blocks) == 1:
        return blocks[0]
    return tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True))


def _whole(value: Any, least: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{what}={value!r} is not allowed: a whole number from {least}")
    return int(value)
