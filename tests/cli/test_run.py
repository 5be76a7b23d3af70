"""`run`, `status` and `report`, and their exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .helpers import call


def test_run_status_report(folder: Path, tiffs: tuple[Path, Path]) -> None:
    assert "HDF5CellExtraction (data): absent" in call("status", folder).stdout
    missing = call("run", folder)
    assert missing.exit_code == 2
    assert "has no image" in missing.stderr
    assert call("load", folder, "--image", tiffs[0], "--labels", tiffs[1]).exit_code == 0
    done = call("run", folder, "HDF5CellExtraction")
    assert done.exit_code == 0, done.stderr
    assert "HDF5CellExtraction (data): complete" in done.stdout
    shown = call("status", folder)
    assert "input_image (3 x 200 x 260, uint16): DNA, CD45, CD3" in shown.stdout
    assert "HDF5CellExtraction (data): complete" in shown.stdout
    page = Path(call("report", folder).stdout.strip())
    assert page == folder / "report" / "report.html"
    assert page.is_file()
    (folder / "config.yml").write_text("HDF5CellExtraction:\n  image_size: 30\n")
    stale = call("run", folder)
    assert stale.exit_code == 1
    assert "image_size" in stale.stderr
    assert "processing.log" in stale.stderr
    assert call("run", folder, "--overwrite").exit_code == 0


@pytest.mark.parametrize("command", ["load", "run", "status", "report"])
def test_a_folder_that_is_not_there(command: str, tmp_path: Path) -> None:
    words = ["--image", __file__] if command == "load" else []
    refused = call(command, tmp_path / "no", *words)
    assert refused.exit_code == 2
    assert "no such project folder; make one: scportrait-like new" in refused.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("HDF5CellExtraction:\n  image_size: 31\n", "key image_size: 31"),
        ("HDF5CellExtraction:\n  imagesize: 32\n", "did you mean image_size?"),
        ("HDF5CellExtraction: [\n", "line 2"),
        ("nothing:Here:\n  threads: 1\n", "nothing:Here cannot be imported"),
        ("name: x\n", "no section names a step"),
    ],
)
def test_mistakes_in_the_config(text: str, said: str, folder: Path) -> None:
    (folder / "config.yml").write_text(text)
    refused = call("run", folder)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert str(folder / "config.yml") in refused.stderr
    assert not (folder / "processing.log").exists()


def test_unknown_steps_are_refused(folder: Path) -> None:
    refused = call("run", folder, "Extraction")
    assert refused.exit_code == 2
    assert "unknown step Extraction; steps of the config: HDF5CellExtraction" in refused.stderr


def test_status_writes_nothing(folder: Path) -> None:
    assert call("status", folder).exit_code == 0
    assert [p.name for p in folder.iterdir()] == ["config.yml"]


def test_without_words_the_help_is_shown() -> None:
    assert call().exit_code == 2
    assert "templates" in call().output
    version = call("--version")
    assert version.exit_code == 0
    assert version.stdout.startswith("scportrait-like 0.")
