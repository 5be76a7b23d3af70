"""Dask arrays that are views: a stored array, and basic indexing of it.

A graph is taken for a view only if each of its tasks says so. Names are not trusted: a block that
was overwritten, moved or taken with a step stands among thousands that were not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise, product
from math import prod
from types import NoneType
from typing import Any

import numpy as np
import zarr
from dask._task_spec import Alias, DataNode, Task, TaskRef
from dask.array.chunk import getitem
from dask.array.core import getter, getter_inline, getter_nofancy
from dask.blockwise import Blockwise, blockwise_token
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.layers import ArraySliceDep

Chunks = tuple[tuple[int, ...], ...]
Index = tuple[slice | int | None, ...]

_GETTERS = (getter, getter_inline, getter_nofancy)
# Untyped as yet.
_token: Any = blockwise_token
_BASIC = (slice, int, NoneType)
_EVERYTHING = slice(None)


def stored_view(array: Any) -> tuple[Any, list[Index]] | None:
    """Stored array and the basic indexes of which a dask array consists.

    Parameters
    ----------
    array
        A `dask.array.Array`.

    Returns
    -------
    The `zarr.Array` or numpy array that is read, and what is applied to it, in this order: slices
    with plain starts and stops, integers of zero or more, and None for a new axis. None: the array
    is something else, or cannot be seen to be this.
    """
    if not isinstance(array.dask, HighLevelGraph):
        return None
    layers = dict(array.dask.layers)
    steps: list[tuple[str, Mapping[Any, Any], str]] = []
    name = array.name
    while (below := _name_below(name, layers.get(name))) is not None:
        steps.append((name, layers.pop(name), below))
        name = below
    found = _stored(name, layers)
    if found is None or layers:  # any other layer is something that is not understood
        return None
    stored, chunks = found
    indices = []
    for made, layer, below in reversed(steps):
        understood = _index(made, layer, below, chunks)
        if understood is None:
            return None
        index, chunks = understood
        indices.append(index)
    same = chunks == array.chunks and stored.dtype == array.dtype
    return (stored, indices) if same else None


def _name_below(name: str, layer: Any) -> str | None:
    """Name of the array that a layer indexes, as its first task says; None: it does not index."""
    if not isinstance(layer, MaterializedLayer) or not layer:
        return None
    found = _indexed(next(iter(layer.values())), 0)
    below = found[0][0] if found is not None else None
    return below if isinstance(below, str) and below != name else None


def _indexed(task: Any, ndim: int) -> tuple[tuple[Any, ...], Index] | None:
    """Key of the block that a task takes, and its index there; None: the task does more."""
    if isinstance(task, Alias):
        key: Any = task.target
        index: Any = (_EVERYTHING,) * ndim
    elif isinstance(task, Task) and task.func is getitem and not task.kwargs:
        if len(task.args) != 2 or not isinstance(task.args[0], TaskRef):
            return None
        key, index = task.args[0].key, task.args[1]
    else:
        return None
    plain = type(index) is tuple and all(type(item) in _BASIC for item in index)
    return (key, index) if isinstance(key, tuple) and plain else None


def _index(
    name: str, layer: Mapping[Any, Any], below: str, chunks: Chunks
) -> tuple[Index, Chunks] | None:
    """Index that a layer applies to the array below, and the chunks that come out."""
    first = _indexed(layer.get((name, *_zeros(name, layer))), len(chunks))
    if first is None or len(first[0]) != len(chunks) + 1:
        return None
    if sum(item is not None for item in first[1]) != len(chunks):
        return None
    index: list[slice | int | None] = []
    made: list[tuple[int, ...]] = []
    # What all tasks must say: for each axis of the result its blocks below with their items.
    options: list[list[tuple[int | None, Any]]] = []
    axis = 0
    for item in first[1]:
        if item is None:
            index.append(None)
            made.append((1,))
            options.append([(None, None)])
            continue
        edges = chunks[axis]
        if isinstance(item, slice):
            line = _line(name, layer, len(made), axis, len(index), len(chunks))
            joined = _joined(line, edges)
            if joined is None:
                return None
            index.append(joined[0])
            made.append(joined[1])
            options.append(list(line))
        else:
            block = first[0][axis + 1]
            if not 0 <= item < edges[block]:
                return None
            index.append(sum(edges[:block]) + int(item))
            options.append([(block, item)])
        axis += 1
    if len(layer) != prod(len(sizes) for sizes in made):
        return None
    return (tuple(index), tuple(made)) if _all_say(name, layer, below, options) else None


def _zeros(name: str, layer: Mapping[Any, Any]) -> tuple[int, ...]:
    key = next(iter(layer))
    return (0,) * (len(key) - 1 if isinstance(key, tuple) else 0)


def _line(
    name: str, layer: Mapping[Any, Any], out: int, axis: int, place: int, ndim: int
) -> list[tuple[int, Any]]:
    """Blocks below and the items of the tasks along one axis, from the first one on."""
    key = [name, *_zeros(name, layer)]
    line: list[tuple[int, Any]] = []
    if out + 1 >= len(key):
        return line
    while True:
        key[out + 1] = len(line)
        found = _indexed(layer.get(tuple(key)), ndim)
        if found is None or len(found[0]) != ndim + 1 or len(found[1]) <= place:
            return line
        line.append((found[0][axis + 1], found[1][place]))


def _joined(
    line: Sequence[tuple[int, Any]], edges: tuple[int, ...]
) -> tuple[slice, tuple[int, ...]] | None:
    """One slice that slices of neighbouring blocks make, and their lengths; None: they do not."""
    borders = list(accumulate(edges, initial=0))
    spans = []
    for block, item in line:
        if not isinstance(item, slice) or not 0 <= block < len(edges):
            return None
        start, stop, step = item.indices(edges[block])
        if step != 1 or stop < start:
            return None
        spans.append((borders[block] + start, borders[block] + stop))
    if not spans or any(a[1] != b[0] for a, b in pairwise(spans)):
        return None
    return slice(spans[0][0], spans[-1][1]), tuple(stop - start for start, stop in spans)


def _all_say(
    name: str,
    layer: Mapping[Any, Any],
    below: str,
    options: Sequence[Sequence[tuple[int | None, Any]]],
) -> bool:
    """Whether every task of a layer takes the block and the index that its place demands."""
    ndim = sum(choice[0][0] is not None for choice in options)
    numbered = [list(enumerate(choice)) for choice in options]
    for choice in product(*numbered):
        place = tuple(
            number for number, (_, item) in choice if item is None or isinstance(item, slice)
        )
        blocks = tuple(block for _, (block, _) in choice if block is not None)
        expected = ((below, *blocks), tuple(item for _, (_, item) in choice))
        if _indexed(layer.get((name, *place)), ndim) != expected:
            return False
    return True


def _stored(name: str, layers: dict[str, Any]) -> tuple[Any, Chunks] | None:
    """Array that the lowest layers hold, and its chunks; takes these layers out of `layers`."""
    layer = layers.pop(name, None)
    if isinstance(layer, MaterializedLayer):
        return _numpy_blocks(name, layer)
    if not _only_gets(layer):
        return None
    (held, _), (slices, _) = layer.indices
    if isinstance(held, TaskRef):
        key: Any = held.key
        original = layers.pop(key, None)
        if not isinstance(original, MaterializedLayer) or set(original) != {key}:
            return None
        held = original[key]
    stored = held.value if isinstance(held, DataNode) else held
    if not isinstance(stored, zarr.Array) and type(stored) not in (np.ndarray, np.memmap):
        return None
    chunks = layer.io_deps[slices].chunks
    return (stored, chunks) if stored.shape == tuple(map(sum, chunks)) else None


def _only_gets(layer: Any) -> bool:
    """Whether a layer takes blocks out of one array, each at its own place, and nothing more."""
    if not isinstance(layer, Blockwise):
        return False
    task: Any = layer.task
    if type(task) is not Task or task.func not in _GETTERS or task.kwargs:
        return False
    if task.args != (TaskRef(_token(0)), TaskRef(_token(1))):
        return False
    if layer.new_axes or layer.concatenate or layer.output_blocks is not None:
        return False
    if len(layer.indices) != 2 or layer.indices[0][1] is not None:
        return False
    slices: Any
    slices, axes = layer.indices[1]
    return axes == layer.output_indices and isinstance(layer.io_deps.get(slices), ArraySliceDep)


def _numpy_blocks(name: str, layer: Mapping[Any, Any]) -> tuple[Any, Chunks] | None:
    """Numpy array that dask cut into blocks, and its chunks; the blocks still are views of it."""
    blocks = {
        key: block.value if isinstance(block, DataNode) else block for key, block in layer.items()
    }
    first = blocks.get((name, *_zeros(name, layer)))
    if type(first) is not np.ndarray:
        return None
    if len(blocks) == 1:
        return first, tuple((n,) for n in first.shape)
    whole = first.base
    if type(whole) is not np.ndarray or whole.ndim != first.ndim:
        return None
    made = []
    for axis in range(whole.ndim):
        line, edges = [0] * whole.ndim, []
        while type(block := blocks.get((name, *line))) is np.ndarray:
            edges.append(block.shape[axis])
            line[axis] += 1
        made.append(tuple(edges))
    chunks = tuple(made)
    if whole.shape != tuple(map(sum, chunks)) or len(blocks) != prod(map(len, chunks)):
        return None
    borders = [list(accumulate(edges, initial=0)) for edges in chunks]
    for place in product(*(range(len(edges)) for edges in chunks)):
        region = tuple(slice(ends[n], ends[n + 1]) for ends, n in zip(borders, place, strict=True))
        if not _is_view(blocks.get((name, *place)), whole[region]):
            return None
    return whole, chunks


def _is_view(block: Any, expected: np.ndarray[Any, Any]) -> bool:
    """Whether two arrays are the same pixels in memory."""
    if type(block) is not np.ndarray or block.dtype != expected.dtype:
        return False
    return block.__array_interface__ == expected.__array_interface__
