"""The work below the aggregator: planes, and masks whose background is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scportrait_like.raster import aggregate as work
from scportrait_like.raster.aggregate import aggregate
from scportrait_like.raster.sources import ArraySource, ZarrSource

from .cases import write_zarr
from .oracle import STATISTICS, Array, check, check_centroid, expect

pytestmark = pytest.mark.usefixtures("small_tiles")


def plane() -> tuple[Array, Array]:
    """Labels in far pieces, with tiles between them that hold background alone."""
    rng = np.random.default_rng(1)
    mask = np.zeros((70, 90), "uint32")
    for label, (y, x) in enumerate(rng.integers(0, (60, 80), (20, 2)), 5):
        mask[y : y + 6, x : x + 5] = label
    mask[0, 0] = mask[69, 89] = 99
    return mask, rng.integers(0, 500, (2, 70, 90), "uint16")


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("heavy", [1 << 20, 10])
def test_planes(
    tmp_path: Path, background: bool, heavy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_HEAVY", heavy)
    mask, image = plane()
    found = aggregate(
        ZarrSource.open(write_zarr(tmp_path / "mask.zarr", mask, (16, 16))),
        ZarrSource.open(write_zarr(tmp_path / "image.zarr", image, (1, 16, 32))),
        STATISTICS,
        background=background,
    )
    ids = np.unique(mask) if background else np.unique(mask)[1:]
    expected = expect(mask[None], image[:, None], STATISTICS, ids)
    assert found.ids.dtype == found.count.dtype == np.int64
    assert found.ids.tolist() == ids.tolist()
    assert found.count.tolist() == expected.count.tolist()
    check_centroid(found.centroid, expected)
    for name in STATISTICS:
        check(name, found.values[name], expected)


def test_index_goes_before_background() -> None:
    mask, image = (ArraySource(array) for array in plane())
    index = [99, 0, 7, 1234]
    found = aggregate(mask, image, ["median", "sum"], index=index, background=False)
    expected = expect(plane()[0][None], plane()[1][:, None], ["median", "sum"], index)
    assert found.ids.tolist() == index
    assert found.count.tolist() == expected.count.tolist()
    for name in ("median", "sum"):
        check(name, found.values[name], expected)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own files go with the call, whether it ends well or not."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mask, image = (ArraySource(array) for array in plane())
    aggregate(mask, image, ["median"], executor="threads")
    assert list(tmp_path.iterdir()) == []
    negative = ArraySource(-plane()[0].astype("int32"))
    with pytest.raises(ValueError, match="negative"):
        aggregate(negative, image, ["mean"], executor="threads")
    assert list(tmp_path.iterdir()) == []
