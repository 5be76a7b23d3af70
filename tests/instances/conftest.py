"""What the tests of windows share."""

from __future__ import annotations

import pytest

from scportrait_like.raster import tiles
from scportrait_like.run import memory


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 16 pixels: small images have many."""
    monkeypatch.setattr(tiles, "TILE_EDGE", 16)


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is not looked at: that takes as long as a run over a small image."""
    monkeypatch.setattr(memory, "process_memory", lambda pid: 1 << 27)
