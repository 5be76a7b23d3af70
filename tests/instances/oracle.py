"""Windows in plain numpy, heads that hand them out as they are, and the comparison of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like.raster.instance_runs import InstanceRun
from scportrait_like.raster.instances import Instances
from scportrait_like.raster.sources import source_of


def windows(
    mask: NDArray[Any],
    image: NDArray[Any] | None,
    size: int,
    remove_background: bool = True,
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any] | None]:
    """Ids, windows of the mask (n, 1, z, d, d) and of the image (n, c, z, d, d)."""
    ids = np.array([i for i in np.unique(mask) if i != 0], np.int64)
    far = ((0, 0), (size, size), (size, size))
    wide_mask = np.pad(mask, far)
    wide_image = None if image is None else np.pad(image, ((0, 0), *far))
    masks, images = [], []
    for label in ids:
        there = mask == label
        _, y, x = np.nonzero(there)
        top, left = (int(np.rint(axis.mean())) - size // 2 + size for axis in (y, x))
        here = (..., slice(top, top + size), slice(left, left + size))
        seen = wide_mask[here]
        masks.append(np.where(seen == label, seen, 0) if remove_background else seen)
        if wide_image is not None:
            pixels = wide_image[here]
            images.append(np.where(seen == label, pixels, 0) if remove_background else pixels)
    if not len(ids):
        edges = (mask.shape[0], size, size)
        empty = None if image is None else np.zeros((0, len(image), *edges), image.dtype)
        return ids, np.zeros((0, 1, *edges), mask.dtype), empty
    shown = None if image is None else np.stack(images).astype(image.dtype)
    return ids, np.stack(masks)[:, None].astype(mask.dtype), shown


@dataclass(frozen=True)
class Show:
    """A head that returns the windows themselves."""

    image: bool = True
    labels: bool = False

    def __call__(self, instances: Instances) -> Mapping[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {"own": instances.masks(), "ids": instances.ids}
        if self.image:
            found["image"] = instances.images()
        if self.labels:
            found["labels"] = instances.label_windows()
        return found


@dataclass(frozen=True)
class Note:
    """A head that notes which cells it got in which batch; for threads."""

    batches: list[list[int]] = field(default_factory=list)

    def __call__(self, instances: Instances) -> Mapping[str, NDArray[Any]]:
        self.batches.append(instances.ids.tolist())
        return {"ids": instances.ids}


@dataclass(frozen=True)
class OwnPixels:
    """A head that sums and counts each cell's own pixels, channel by channel: (c, 2)."""

    def __call__(self, instances: Instances) -> Mapping[str, NDArray[Any]]:
        own = [instances.pixels(number) for number in range(len(instances))]
        rows = [[[len(line), line.sum(dtype=np.int64)] for line in pixels] for pixels in own]
        return {"own": np.array(rows, np.int64)}


@dataclass(frozen=True)
class Sums:
    """A head that sums each window, all channels and planes together."""

    def __call__(self, instances: Instances) -> Mapping[str, NDArray[Any]]:
        return {"sums": instances.images().sum((1, 2, 3, 4), dtype=np.int64)}


def same_bits(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Whether two arrays hold the same bits, those of NaN too, in the machine's byte order."""
    wanted = np.ascontiguousarray(wanted, wanted.dtype.newbyteorder("="))
    same = found.dtype == wanted.dtype and found.shape == wanted.shape
    return same and found.tobytes() == wanted.tobytes()


def shown(mask: Any, image: Any, size: int, **options: Any) -> Mapping[str, NDArray[Any]]:
    """What a run makes of arrays or sources: windows of image and mask, own pixels, and ids."""
    labels = mask if hasattr(mask, "read") else source_of(mask)
    if image is not None and not hasattr(image, "read"):
        image = source_of(image)
    options = {"executor": "inline", **options}
    head = Show(image is not None, labels=True)
    run = InstanceRun(labels, image, size, head, keep_labels=True, **options)
    return run.collect(run.find())


def check(
    found: Mapping[str, NDArray[Any]],
    mask: NDArray[Any],
    image: NDArray[Any] | None,
    size: int,
    remove_background: bool = True,
    channels: Sequence[int] | None = None,
) -> None:
    """Compare what `shown` found with the oracle, bit for bit."""
    if image is not None and channels is not None:
        image = image[list(channels)]
    ids, labels, images = windows(mask, image, size, remove_background)
    assert len(ids), "a mask without a label is another test"
    assert same_bits(found["ids"], ids)
    assert same_bits(found["labels"], labels)
    own = windows(mask, None, size)[1] != 0
    assert same_bits(found["own"], own)
    assert ("image" in found) == (images is not None)
    if images is not None:
        assert same_bits(found["image"], images)
