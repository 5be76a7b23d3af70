"""`new` and the templates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scportrait_like.cli.templates import templates
from scportrait_like.config import StepConfig, load_config, parse_section
from scportrait_like.project import Project
from scportrait_like.step_registry import find_step, registered_steps

from .helpers import call

ROOT = Path(__file__).parent.parent.parent


def test_templates_are_listed_with_what_they_are_for() -> None:
    shown = call("templates")
    assert shown.exit_code == 0
    first = "default  Single-cell images, intensities and features of every cell of a mask."
    assert shown.stdout.splitlines()[0] == first
    assert {"default", "demo"} <= set(templates())


def test_new_makes_a_folder_and_leaves_it_alone_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "project"
    made = call("new", folder)
    assert made.exit_code == 0
    assert sorted(p.name for p in folder.iterdir()) == ["config.yml", "run.py"]
    assert str(folder / "run.py") in made.stdout
    assert "set up already" in call("new", folder).stdout
    (folder / "config.yml").write_text("HDF5CellExtraction:\n  image_size: 64\n")
    refused = call("new", folder)
    assert refused.exit_code == 2
    assert "config.yml is there already and differs" in refused.stderr
    assert "64" in (folder / "config.yml").read_text()


def test_new_with_an_unknown_template_or_place(tmp_path: Path) -> None:
    refused = call("new", tmp_path / "p", "--template", "nothing")
    assert refused.exit_code == 2
    assert "template 'nothing' is not known; templates: default, demo" in refused.stderr
    assert not (tmp_path / "p").exists()
    (tmp_path / "file").write_text("")
    failed = call("new", tmp_path / "file" / "p")
    assert failed.exit_code == 1
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize("template", sorted(templates()))
def test_templates_load(template: str, tmp_path: Path) -> None:
    assert call("new", tmp_path, "--template", template).exit_code == 0
    project = Project(tmp_path)
    steps = ["HDF5CellExtraction", "Aggregation", "Featurization", "PixelClustering"]
    assert list(project.steps) == steps
    compile((tmp_path / "run.py").read_text(), "run.py", "exec")


def test_the_scripts_of_the_templates_differ_in_the_kind_of_the_mask_only() -> None:
    """Two files, since a template is a folder; but one text."""
    default, demo = (
        (ROOT / "project_templates" / name / "run.py").read_text().splitlines()
        for name in ("default", "demo")
    )
    differing = [pair for pair in zip(default, demo, strict=True) if pair[0] != pair[1]]
    assert len(differing) == 1
    assert 'kind="cytosol"' in differing[0][0]
    assert 'kind="nucleus"' in differing[0][1]


def options_of(text: str) -> tuple[str, dict[str, set[str]]]:
    """The config with all options that are left alone put in, and their names by section."""
    text = re.sub(r"^  #(\w+:)", r"  \1", text, flags=re.MULTILINE)
    _, *parts = re.split(r"^(\w+):$", text, flags=re.MULTILINE)
    options = (set(re.findall(r"^  (\w+):", part, flags=re.MULTILINE)) for part in parts[1::2])
    return text, dict(zip(parts[::2], options, strict=True))


def test_the_default_template_shows_every_option_with_its_default(tmp_path: Path) -> None:
    text = (ROOT / "project_templates" / "default" / "config.yml").read_text()
    full, shown = options_of(text)
    assert set(shown) == set(registered_steps())
    (tmp_path / "config.yml").write_text(full)
    sections = load_config(tmp_path / "config.yml").sections
    for name, options in shown.items():
        model = find_step(name, "the template").Config
        assert options == set(model.model_fields), name
        assert set(StepConfig.model_fields) < options
        assert parse_section(model, name, sections[name]) == model()
    # Each has a comment right above it, or above the options that it stands with.
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"  #?\w+:", line):
            assert re.match(r"  #", lines[number - 1]), line
