"""Tiles cover a plane once, and share borders with the chunks that are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scportrait_like.raster.tiles import TILE_EDGE, TileGrid, tile_edge, tile_grid

AXIS = st.tuples(st.integers(1, 25), st.integers(1, 30), st.integers(0, 29))


@settings(deadline=None)
@given(st.lists(AXIS, min_size=2, max_size=3))
def test_tiles_cover_each_pixel_once(axes: list[tuple[int, int, int]]) -> None:
    shape, edges, phase = zip(*axes, strict=True)
    phase = tuple(before % edge for before, edge in zip(phase, edges, strict=True))
    grid = TileGrid(shape, edges, phase)
    assert TileGrid.of(grid.array) == grid
    seen = np.zeros(shape, int)
    for number, tile in enumerate(grid):
        assert tile.index == number
        seen[tile.region] += 1
        for place, edge, before in zip(tile.stop, edges, phase, strict=True):
            assert place in shape or (place + before) % edge == 0
    assert len(grid) == number + 1
    assert (seen == 1).all()


@settings(deadline=None)
@given(st.integers(1, 100_000), st.lists(st.integers(1, 5000), min_size=1, max_size=3))
def test_an_edge_is_whole_chunks_wherever_that_stays_small(length: int, chunks: list[int]) -> None:
    edge = tile_edge(length, chunks, TILE_EDGE)
    assert 1 <= edge <= length
    if any(chunk >= length for chunk in chunks):
        assert edge == length
    elif edge < length:
        # The first array's chunks are never cut; all are respected while their multiple is small.
        assert edge % chunks[0] == 0
        if np.lcm.reduce(chunks) <= 8192:
            assert all(edge % chunk == 0 for chunk in chunks)


@pytest.mark.parametrize(
    ("length", "chunks", "expected"),
    [
        (8192, [2048, 2048], 2048),
        (8192, [256, 256], 2048),
        (8192, [1000, 1000], 2000),
        (8192, [1024, 768], 3072),
        (8192, [4096, 2048], 4096),
        (20_000, [20_000, 2048], 20_000),  # one chunk along the axis: any cut decodes it again
        (8192, [1, 1], 2048),
    ],
)
def test_edges(length: int, chunks: list[int], expected: int) -> None:
    assert tile_edge(length, chunks, TILE_EDGE) == expected


def test_grid_takes_each_axis_by_itself() -> None:
    grid = tile_grid((5000, 3000), (16, 3000), (1024, 1024))
    assert grid.edges == (2048, 3000)
    assert grid.counts == (3, 1)


@pytest.mark.parametrize(
    ("chunks", "edges"),
    [
        ((1, 512, 512), (1, 2048, 2048)),  # planes of their own stay apart
        ((4, 512, 512), (4, 1024, 1024)),  # as many pixels as a plane's tile
        ((64, 64, 64), (64, 256, 256)),
        ((100, 64, 64), (100, 192, 192)),
        ((7, 4096, 64), (7, 4096, 768)),
    ],
)
def test_a_tile_of_a_volume_holds_as_much_as_one_of_a_plane(
    chunks: tuple[int, ...], edges: tuple[int, ...]
) -> None:
    assert tile_grid((100, 8192, 8192), chunks).edges == edges
