"""What the tests of the aggregation share."""

from __future__ import annotations

import pytest

from scportrait_like.raster import tiles


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 16 pixels: small images have many."""
    monkeypatch.setattr(tiles, "TILE_EDGE", 16)
