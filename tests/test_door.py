"""What `import scportrait_like` gives, and its settings."""

from __future__ import annotations

import pytest

from scportrait_like.errors import ConfigError
from scportrait_like.project import Project


def test_names_of_the_door() -> None:
    import scportrait_like as sl
    from scportrait_like.io import read_h5sc
    from scportrait_like.steps import HDF5CellExtraction

    assert sl.Project is Project
    assert sl.pl.plot_image
    assert sl.io.read_h5sc is read_h5sc
    assert sl.datasets.tissue
    assert sl.steps.HDF5CellExtraction is HDF5CellExtraction
    assert {"Project", "datasets", "io", "pl", "settings", "steps"} <= set(dir(sl))
    assert sl.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sl.nothing
    with pytest.raises(ImportError, match="Nothing"):
        from scportrait_like.steps import Nothing  # type: ignore[attr-defined] # noqa: F401


def test_settings_are_checked_where_they_are_made() -> None:
    import scportrait_like as sl

    try:
        sl.settings.memory_limit = "4GB"
        assert sl.settings.memory_limit == "4GB"
        with pytest.raises(ConfigError, match="memory_limit: 'lots' is not allowed"):
            sl.settings.memory_limit = "lots"
        with pytest.raises(ConfigError, match="unknown setting; known settings: memory_limit"):
            sl.settings.memory = 4
        assert sl.settings.memory_limit == "4GB"
    finally:
        sl.settings.memory_limit = None
