"""What a head makes of windows, as dask arrays that any scheduler computes.

The graph has two kinds of tasks. A tile's reads its pixels once and leaves a fragment of each cell
that it holds, be it on a border or not. A block of rows has cells of neighbouring ids, wherever
they lie: its task joins their fragments and hands the cells to the head, batch by batch. So all
arrays that are computed together decode each chunk once, and a slice asks only the tiles that hold
its cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.raster.cells import Cells, Pieces
from scportrait_like.raster.instance_runs import Found, InstanceRun, default_batch
from scportrait_like.raster.instance_task import InstanceTask
from scportrait_like.raster.instances import Head, Instances
from scportrait_like.raster.reading import Reading
from scportrait_like.raster.sources import ArraySource, DaskSource, Source, ViewSource, view
from scportrait_like.raster.tile_pixels import Boxes, cut_tile, join_boxes, leave
from scportrait_like.raster.tiles import Tile, TileGrid

if TYPE_CHECKING:
    import dask.array as da

# Windows of a block of rows, where nobody chose: at most about this many bytes.
BLOCK_BYTES: Final = 32 << 20


@dataclass(frozen=True)
class Made:
    """What a head makes of a cell: an array of a shape and a dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def lazy_arrays(
    run: InstanceRun, found: Found, made: Mapping[str, Made], token: str
) -> dict[str, da.Array]:
    """Dask arrays of what a run's head makes.

    Parameters
    ----------
    run
        Its executor and memory limit are not looked at: a dask scheduler does the work. With a
        `batch_size` this is the length of the blocks, else they follow the tiles.
    found
        The labels, a row each, in their order.
    made
        What the head gives a cell, by name.
    token
        Tells apart pixels of labels and image: equal tokens, equal pixels.

    Returns
    -------
    dict
        (n, ...) by name. Equal calls give equal keys.
    """
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    new_array: Any = da.Array  # it carries no annotations
    n = len(found.ids)
    if not n:
        return {name: da.zeros((0, *each.shape), dtype=each.dtype) for name, each in made.items()}
    plan = run.plan(found, finish_inside=False)
    tiles = [unit.what for unit in plan.units if unit.stage == 0]
    rows = _rows_of_block(run, n, len(tiles))
    cut = tokenize(token, found.ids, run.size, run.taken, run.remove_background, run.keep_labels)
    one = tokenize(cut, run.head, run.batch_size, rows)
    head, tile, block = f"head-{one}", f"cut-instances-{cut}", f"instances-{one}"
    layers: dict[str, Any] = {
        head: {head: run.head},
        tile: {(tile, what["tile"]): part for what, part in _tile_tasks(run, plan.arrays, tiles)},
        block: {
            (block, number): (make_rows, part, head, [(tile, each) for each in part.tiles])
            for number, part in enumerate(_blocks(run, plan.arrays, n, rows))
        },
    }
    needs: dict[str, set[str]] = {head: set(), tile: set(), block: {head, tile}}
    lengths = tuple(min(rows, n - start) for start in range(0, n, rows))
    arrays = {}
    for name, each in made.items():
        own = f"{name}-{one}"
        zeros = (0,) * len(each.shape)
        items = {(own, i, *zeros): (getitem, (block, i), name) for i in range(len(lengths))}
        own_layers: dict[str, Any] = {**layers, own: items}
        graph = HighLevelGraph(own_layers, {**needs, own: {block}})
        chunks = (lengths, *((edge,) for edge in each.shape))
        arrays[name] = new_array(graph, own, chunks, dtype=each.dtype)
    return arrays


def _rows_of_block(run: InstanceRun, n: int, n_tiles: int) -> int:
    """Rows of a block: those of a batch, or as many as suit memory and come from about one tile."""
    if run.batch_size is not None:
        return default_batch(run.image, len(run.taken), run.labels.shape[0], 1, run.batch_size)
    pixel = run.labels.dtype.itemsize if run.keep_labels else 1
    if run.image is not None:
        pixel += len(run.taken) * run.image.dtype.itemsize
    window = pixel * run.labels.shape[0] * run.size**2
    return max(1, min(BLOCK_BYTES // window, -(-n // n_tiles)))


@dataclass(frozen=True, eq=False)
class TileWork:
    """The work of one tile; it carries its own part of labels and image, or where they are.

    Attributes
    ----------
    task
        Its sources begin and end with the tile.
    fragments
        What the tile holds of cells.
    """

    task: InstanceTask
    fragments: Cells


@dataclass(frozen=True, eq=False)
class BlockWork:
    """The work of one block of rows.

    Attributes
    ----------
    task
        Its sources have no pixels.
    cells, pieces
        The cells, and where their fragments are.
    tiles
        The tiles that hold fragments, ascending.
    batch
        Most cells that the head gets at once.
    """

    task: InstanceTask
    cells: Cells
    pieces: Pieces
    tiles: tuple[int, ...]
    batch: int


def cut_fragments(work: TileWork) -> dict[str, NDArray[Any]]:
    """Read a tile, and return the fragments of its cells."""
    task = work.task
    held: dict[str, NDArray[Any]] = {}
    boxes = Boxes.empty(task, work.fragments)
    edges = task.labels.shape[1:]
    cut_tile(task, Tile(0, (0,) * len(edges), edges), [boxes], Reading(_go_on))
    leave(boxes, held.__setitem__)
    return held


def make_rows(
    work: BlockWork, head: Head, left: Sequence[Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Join the cells of a block from what its tiles left, and hand them to the head."""
    held = dict(zip(work.tiles, left, strict=True))
    boxes = join_boxes(work.task, work.cells, work.pieces, held, _go_on)
    made = [head(boxes.take(work.task, rows)) for rows in work.cells.batches(work.batch)]
    return {name: np.concatenate([each[name] for each in made]) for name in made[0]}


def _tile_tasks(
    run: InstanceRun, arrays: Mapping[str, NDArray[Any]], tiles: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], tuple[Any, ...]]]:
    grid, task = TileGrid.of(arrays["grid"]), _plain_task(run)
    for what in tiles:
        tile = grid[what["tile"]]
        region = slice(0, run.labels.shape[0]), *tile.region
        image = run.image
        if image is not None:
            image = _part(image, (slice(0, image.shape[0]), *region))
        own = replace(task, labels=_part(run.labels, region), image=image)
        fragments = Cells.fragments(arrays, slice(*what["parts"]), tile)
        yield what, (cut_fragments, TileWork(own, fragments))


def _blocks(
    run: InstanceRun, arrays: Mapping[str, NDArray[Any]], n: int, rows: int
) -> Iterator[BlockWork]:
    depth = run.labels.shape[0]
    task = _plain_task(run)
    image = None if run.image is None else _without_pixels(run.image, (0, depth, 0, 0))
    task = replace(task, labels=_without_pixels(run.labels, (depth, 0, 0)), image=image)
    batch = default_batch(run.image, len(run.taken), depth, run.size, run.batch_size)
    for start in range(0, n, rows):
        here = slice(start, min(start + rows, n))
        pieces = Pieces.of(arrays, here)
        tiles = tuple(np.unique(pieces.tiles).tolist())
        yield BlockWork(task, Cells.of(arrays, "border", here, run.size), pieces, tiles, batch)


def _plain_task(run: InstanceRun) -> InstanceTask:
    """Work without a folder, and without the head, which may be large: it is in the graph once."""
    return replace(run, head=_no_head).task(Path(), Path(), 0, None)


def _no_head(instances: Instances) -> Mapping[str, NDArray[Any]]:
    """Make nothing of a batch."""
    return {}


def _go_on() -> None:
    """Nothing interrupts: the scheduler does."""


def _without_pixels(source: Source, shape: tuple[int, ...]) -> Source:
    return ArraySource(np.empty(shape, source.dtype))


def _part(source: Source, region: tuple[slice, ...]) -> Source:
    """Part of a source, such that it pickles without the rest."""
    if _is_at_hand(source):
        return ArraySource(source.read(region))
    if isinstance(source, DaskSource):
        import dask

        optimize: Any = dask.optimize  # type: ignore[attr-defined]
        return DaskSource(optimize(source.array[region])[0])
    return view(source, region)


def _is_at_hand(source: Source) -> bool:
    """Whether reading it is a view of pixels in memory."""
    if isinstance(source, ViewSource):
        return _is_at_hand(source.source)
    return isinstance(source, ArraySource)
