"""Where PyTorch, timm or transformers are not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scportrait_like.errors import MissingExtraError
from scportrait_like.models import resolve_model


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [
        ("torch:{}", "torch", "torch"),
        ("timm:resnet18", "timm", "vision"),
        ("transformers:facebook/dinov2-small", "transformers", "vision"),
    ],
)
def test_the_message_names_the_extra(
    name: str, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import zipfile

    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:  # as much of TorchScript as is looked at
        archive.writestr("model/constants.pkl", b"")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf'"scportrait-like\[{extra}\]"') as caught:
        resolve_model(name.format(path))
    assert f"needs the package {missing}" in str(caught.value)
