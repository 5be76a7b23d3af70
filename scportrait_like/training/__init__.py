"""Instances of a project, as networks are trained on them: shuffled, epoch after epoch.

>>> from scportrait_like.training import InstanceDataset
>>> dataset = InstanceDataset(project, diameter=64, batch_size=64)
>>> for images, ids in torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2):
...     ...

`InstanceStream` yields the same as numpy arrays and needs no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scportrait_like.lazy import lazy_attributes

if TYPE_CHECKING:
    from scportrait_like.training.dataset import InstanceDataset as InstanceDataset
    from scportrait_like.training.stream import InstanceStream as InstanceStream

__all__ = ["InstanceDataset", "InstanceStream"]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "InstanceDataset": "scportrait_like.training.dataset:InstanceDataset",
        "InstanceStream": "scportrait_like.training.stream:InstanceStream",
    },
)
