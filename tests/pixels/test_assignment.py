"""What tiles of an assignment leave, and how it is put together, ties above all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scportrait_like.pixels.assignment import ASSIGN, Assigned, assignment_stage
from scportrait_like.pixels.images import PixelImage
from scportrait_like.pixels.stages import PixelTask, tile_unit, units_of
from scportrait_like.pixels.trained_som import TrainedSom
from scportrait_like.raster.sources import ArraySource
from scportrait_like.raster.tiles import TileGrid
from scportrait_like.run.unitfile import UnitReader, UnitWriter


def trained(codes: np.ndarray, batch: bool = False) -> TrainedSom:
    model = "batch.som_estimator:BatchSOMEstimator" if batch else "som_estimator:SOMEstimator"
    k, c = codes.shape
    return TrainedSom(
        tuple(f"c{n}" for n in range(c)),
        codes.astype(np.float64),
        np.arange(k) % 3 + 1,
        k,
        1,
        f"flowsom.models.{model}",
        "flowsom.models.flowsom_estimator:FlowSOMEstimator",
    )


def assign(
    pixels: np.ndarray, som: TrainedSom, folder: Path, labels: Any = None, edge: int = 16
) -> tuple[np.ndarray, Assigned, dict[str, int]]:
    """Clusters of an image, their totals, and the sizes of what the tiles left."""
    grid = TileGrid(pixels.shape[1:], (edge, edge))
    cells = None if labels is None else ArraySource(labels)
    image = PixelImage("image", ArraySource(pixels), tuple(range(len(pixels))), grid, cells)
    stage = assignment_stage(som, totals=True)
    task = PixelTask((image,), {stage.name: stage.work}, folder)
    clusters, merged = np.zeros(pixels.shape[1:], np.int64), Assigned(som)
    left = {"tie.pixels": 0, "tie.rows": 0}
    for unit in units_of([image], [stage]):
        with (folder / unit.name).open("wb") as file:
            writer = UnitWriter(file)
            task(unit, writer, 1, lambda: None)
            writer.close()
        tile = grid[unit.what["tile"]]
        result = UnitReader(folder / tile_unit(ASSIGN, 0, unit.what["tile"]))
        left = {name: n + len(result[name]) for name, n in left.items()}
        extents = [part.stop - part.start for part in tile.region]
        clusters[tile.region] = merged.take(result).reshape(extents)
    return clusters, merged, left


@pytest.mark.parametrize("batch", [False, True])
def test_ties_are_settled_and_counted(tmp_path: Path, batch: bool) -> None:
    """Nodes that are there twice: all of their pixels tie."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (12, 3))
    codes[6:] = codes[:6]
    pixels = rng.integers(0, 4, (3, 40, 50)).astype(np.uint8)
    labels = rng.choice([0, 4, 2**40], (40, 50))
    som = trained(codes, batch)
    clusters, merged, left = assign(pixels, som, tmp_path, labels)
    rows = pixels.reshape(3, -1).T.astype(np.float64)
    wanted = som.predict(rows) + 1
    np.testing.assert_array_equal(clusters.ravel(), wanted)
    assert left["tie.pixels"] == 2000
    assert left["tie.rows"] <= 12 * 64, "each row once a tile"
    np.testing.assert_array_equal(merged.counts, np.bincount(wanted, minlength=13)[1:])
    for cluster in range(1, 13):
        mine = rows[wanted == cluster]
        if len(mine):
            np.testing.assert_allclose(merged.means[cluster - 1], mine.mean(axis=0), rtol=1e-14)
        else:
            assert np.isnan(merged.means[cluster - 1]).all()
    groups, counts = merged.merged(som.metaclusters)
    assert counts.sum() == 2000
    np.testing.assert_allclose((groups * counts[:, None]).sum(axis=0), rows.sum(axis=0))
    ids, of, n = merged.cells()
    pairs = {(i, k): m for i, k, m in zip(ids.tolist(), of.tolist(), n.tolist(), strict=True)}
    inside = labels.ravel() > 0
    wanted_pairs: dict[tuple[int, int], int] = {}
    for pair in zip(labels.ravel()[inside].tolist(), wanted[inside].tolist(), strict=True):
        wanted_pairs[pair] = wanted_pairs.get(pair, 0) + 1
    assert pairs == wanted_pairs
    assert list(pairs) == sorted(pairs)


def test_a_tied_background_is_one_row(tmp_path: Path) -> None:
    codes = np.zeros((4, 5))
    codes[3] = 9
    pixels = np.zeros((5, 64, 64), np.float32)
    pixels[:, 20:30, 20:30] = 10
    clusters, _, left = assign(pixels, trained(codes), tmp_path, edge=64)
    assert left == {"tie.pixels": 64 * 64 - 100, "tie.rows": 1}
    assert set(np.unique(clusters)) == {1, 4}


def test_negative_ids_are_refused(tmp_path: Path) -> None:
    from scportrait_like.errors import InputError

    labels = np.full((16, 16), -3)
    with pytest.raises(InputError, match="mask of image holds negative ids"):
        assign(np.ones((2, 16, 16)), trained(np.eye(2)), tmp_path, labels)
