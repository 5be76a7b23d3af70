"""Where there is no PyTorch."""

from __future__ import annotations

import sys

import pytest

from scportrait_like.errors import MissingExtraError


def test_the_data_set_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import scportrait_like.training as training

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "scportrait_like.training.dataset", raising=False)
    monkeypatch.delitem(vars(training), "InstanceDataset", raising=False)
    with pytest.raises(MissingExtraError, match=r'pip install "scportrait-like\[torch\]"'):
        training.InstanceDataset  # noqa: B018
    assert "InstanceDataset" in dir(training)
