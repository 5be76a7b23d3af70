"""The config: every mistake is one clear error, and scPortrait's files work as they are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scportrait_like.config import StepConfig, load_config, parse_section, parse_size, parse_yaml
from scportrait_like.errors import ConfigError
from scportrait_like.project import Project
from scportrait_like.steps.extraction import ExtractionConfig, HDF5CellExtraction

SECTION = "HDF5CellExtraction"


def parse(**values: Any) -> ExtractionConfig:
    return parse_section(ExtractionConfig, SECTION, values, "my.yml")


def message(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(**values)
    return str(caught.value)


# One value a key


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("threads", "4", "valid integer"),
        ("threads", True, "valid integer"),
        ("threads", 2.0, "valid integer"),
        ("threads", 0, "greater than or equal to 1"),
        ("threads", "None", "valid integer"),
        ("image_size", "64", "valid integer"),
        ("image_size", True, "even number of pixels"),
        ("image_size", 64.0, "valid integer"),
        ("image_size", 0, "even number of pixels above zero"),
        ("image_size", -2, "even number of pixels above zero"),
        ("image_size", 33, "even number of pixels above zero"),
        ("image_size", None, "valid integer"),
        ("normalize_output", 1, "valid boolean"),
        ("normalize_output", "yes", "valid boolean"),
        ("normalization_range", [0.9, 0.1], "0 <= lower < upper <= 1"),
        ("normalization_range", [0.5, 0.5], "0 <= lower < upper <= 1"),
        ("normalization_range", [-0.1, 0.5], "0 <= lower < upper <= 1"),
        ("normalization_range", [0.1, 1.5], "0 <= lower < upper <= 1"),
        ("normalization_range", [0.1], "two quantiles"),
        ("normalization_range", 0.1, "two quantiles"),
        ("compression", "zip", "'lzf', 'gzip' or 'none'"),
        ("compression", 4, "'lzf', 'gzip' or 'none'"),
        ("border", "keep", "'discard' or 'pad'"),
        ("border", None, "'discard' or 'pad'"),
        ("memory_limit", "lots", "'4GB'"),
        ("memory_limit", True, "'4GB'"),
        ("memory_limit", 0, "above zero"),
        ("memory_limit", "-4GB", "'4GB'"),
        ("memory_limit", float("inf"), "'4GB'"),
        ("memory_limit", float("nan"), "'4GB'"),
        ("target_ram_utilization", 0, "greater than 0"),
        ("target_ram_utilization", 1.01, "less than or equal to 1"),
        ("target_ram_utilization", "0.5", "valid number"),
        ("max_batch_size", 0, "greater than or equal to 1"),
        ("max_batch_size", "1000", "valid integer"),
        ("max_inflight_result_batches", 0, "greater than or equal to 1"),
        ("flush_every", 0, "greater than or equal to 1"),
        ("channels", 3, "valid list"),
        ("channels", ("DNA",), "valid list"),
        ("image", 5, "valid string"),
        ("labels", ["a"], "valid string"),
        ("cache", 1, "valid string"),
        ("debug", "True", "valid boolean"),
        ("name", 3, "valid string"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    text = message(**{key: value})
    assert text.startswith(f"my.yml: section {SECTION}: key {key}: {value!r} (")
    assert allowed in text
    assert "\n" not in text


def test_the_place_inside_a_list_is_named() -> None:
    assert "key channels.1: 5 (int) is not allowed" in message(channels=["DNA", 5])


def test_several_mistakes_are_one_error_with_a_line_each() -> None:
    lines = message(threads=0, image_size=33, color="red").splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"my.yml: section {SECTION}: key ") for line in lines)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("image_sze", "image_size"), ("thread", "threads"), ("Border", "border")],
)
def test_an_unknown_key_names_the_nearest_and_all_known(written: str, meant: str) -> None:
    text = message(**{written: 1})
    assert f"key {written}: unknown key (did you mean {meant}?); known keys: " in text
    assert "normalize_output" in text


def test_an_unknown_key_unlike_all_others_gets_no_suggestion() -> None:
    assert "did you mean" not in message(channel_remap="0,1,2")


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="section X: key 5"):
        parse_section(StepConfig, "X", {5: 1}, "my.yml")


@pytest.mark.parametrize(
    ("key", "given", "meant"),
    [
        ("normalize_output", None, False),
        ("normalize_output", "None", False),
        ("normalize_output", False, False),
        ("normalize_output", True, True),
        ("normalization_range", None, (0.001, 0.999)),
        ("normalization_range", "None", (0.001, 0.999)),
        ("normalization_range", [0, 1], (0.0, 1.0)),
        ("normalization_range", (0.01, 0.99), (0.01, 0.99)),
        ("compression", True, "lzf"),
        ("compression", "lzf", "lzf"),
        ("compression", "gzip", "gzip"),
        ("compression", False, "none"),
        ("compression", None, "none"),
        ("compression", "None", "none"),
        ("channels", "DNA", ["DNA"]),
        ("channels", ["DNA"], ["DNA"]),
        ("memory_limit", "4GB", 4_000_000_000),
        ("memory_limit", "1.5 GiB", 3 << 29),
        ("memory_limit", "None", None),
        ("memory_limit", 10**9, 10**9),
        ("target_ram_utilization", 1, 1.0),
        ("cache", ".", "."),
    ],
)
def test_what_is_accepted_and_what_it_means(key: str, given: Any, meant: Any) -> None:
    assert getattr(parse(**{key: given}), key) == meant


def test_defaults() -> None:
    config = parse()
    assert config.image_size == 128
    assert config.normalize_output is True
    assert config.normalization_range == (0.001, 0.999)
    assert (config.compression, config.border) == ("lzf", "discard")
    assert (config.target_ram_utilization, config.max_batch_size) == (0.85, 1000)
    assert (config.image, config.instance_key, config.region_key) == (
        "input_image",
        "scportrait_cell_id",
        "region",
    )


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse().threads = 3


def test_run_keys_are_not_part_of_the_fingerprint() -> None:
    ours = parse(threads=1, cache=".", memory_limit="1GB", max_batch_size=10, debug=True)
    assert ours.result_keys() == parse().result_keys()
    assert parse(image_size=64).result_keys() != parse().result_keys()


@pytest.mark.parametrize(("text", "size"), [("1kb", 1000), ("2 MiB", 2 << 20), ("7", 7)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


# Sections


@pytest.mark.parametrize("values", [5, "text", ["a"], [[1]]])
def test_a_section_that_is_no_mapping(tmp_path: Path, values: Any) -> None:
    with pytest.raises(ConfigError, match=f"config: section {SECTION}: "):
        Project(tmp_path / "p", {SECTION: values})


def test_an_empty_section_takes_the_defaults(tmp_path: Path) -> None:
    project = Project(tmp_path / "p", {SECTION: None})
    assert project.extraction_f is not None
    assert project.extraction_f.config == parse()


@pytest.mark.parametrize(
    "values",
    [[], [{"name": "a"}, {"name": "a"}], [{"name": "a"}, {}], [{"name": [1]}, {"name": [1]}]],
)
def test_a_list_of_sections_needs_distinct_names(tmp_path: Path, values: Any) -> None:
    with pytest.raises(ConfigError, match="a name of its own; names: "):
        Project(tmp_path / "p", {SECTION: values})


def test_a_step_with_one_output_takes_one_mapping(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds 2 mappings, but the step has one output, .*data"):
        Project(tmp_path / "p", {SECTION: [{"name": "a"}, {"name": "b"}]})
    assert len(Project(tmp_path / "p", {SECTION: [{"name": "a"}]}).steps[SECTION]) == 1


def test_a_missing_section_of_a_named_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"section {SECTION} is missing; sections: Other"):
        Project(tmp_path / "p", {"Other": {}}, extraction_f=HDF5CellExtraction)
    assert not (tmp_path / "p").exists()


def test_extract_without_a_section_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=f"section {SECTION} is missing.*steps of the config: none"
    ):
        Project(tmp_path / "p", {"name": "x"}).extract()


@pytest.mark.parametrize(
    "written",
    [
        "HDF5CellExtracton",
        "HDF5Extraction",
        "hdf5_cell_extraction",
        "CellExtraction",
        "hdf5CellExtractions",
    ],
)
@pytest.mark.parametrize("values", [{}, None, []])
def test_a_misspelt_step_is_refused(tmp_path: Path, written: str, values: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Project(tmp_path / "p", {written: values})
    text = str(caught.value)
    assert text.startswith(
        f"config: unknown step {written} (did you mean {SECTION}?); known steps: "
    )
    assert not (tmp_path / "p").exists()


def test_a_step_that_cannot_be_imported(tmp_path: Path) -> None:
    for name in ("no_such_module:Step", "json:Missing"):
        with pytest.raises(ConfigError, match=f"config: step {name} cannot be imported"):
            Project(tmp_path / "p", {name: {}})
    with pytest.raises(ConfigError, match="json:JSONDecoder is not a subclass of ProcessingStep"):
        Project(tmp_path / "p", {"json:JSONDecoder": {}})


def test_two_sections_of_one_step(tmp_path: Path) -> None:
    twice = {SECTION: {}, f"scportrait_like.steps.extraction:{SECTION}": {}}
    with pytest.raises(ConfigError, match="another section of a step named HDF5CellExtraction"):
        Project(tmp_path / "p", twice)


def test_an_unknown_executor(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"section HDF5CellExtraction: key executor: 'thread'"):
        Project(tmp_path / "p", {SECTION: {"executor": "thread"}})
    with pytest.raises(ConfigError, match=r"Project: key executor: 'thread'"):
        Project(tmp_path / "p", executor="thread")


def test_a_wrong_memory_limit_of_the_project(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory_limit 'much' is not allowed"):
        Project(tmp_path / "p", memory_limit="much")


# YAML


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A:\n  b: [1, 2\nC: 1\n", 3),
        ("A:\n  b: 1\n c: 2\n", 3),
        ("A:\n\tb: 1\n", 2),
        ("A: !!python/object:os.system x\n", 1),
        ("A: 1\n---\nB: 2\n", 2),
        ("A: 1\nB: \x07\n", 2),
        ("A: {b: 1, b: 2}\n", 1),
        ("A:\n  b: 1\n  c: 2\n  b: 3\n", 4),
        ("A: 1\nB: 2\nA: 3\n", 3),
        ("A: *x\n", 1),
        ("? [a, b]\n: 1\n", 1),
    ],
)
def test_yaml_errors_name_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "my.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}, line {line}")
    assert "\n" not in str(caught.value)


def test_a_key_that_stands_twice_is_named() -> None:
    with pytest.raises(ConfigError, match=r"my.yml, line 3: key b stands twice"):
        parse_yaml("A:\n  b: 1\n  b: 2\n", "my.yml")


def test_merged_keys_may_be_given_again() -> None:
    text = "a: &a {x: 1, y: 2}\nb:\n  c: &c\n    <<: *a\n    x: 5\nd:\n  <<: *c\n  y: 7\n"
    assert parse_yaml(text, "my.yml")["d"] == {"x": 5, "y": 7}


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "5\n"])
def test_a_file_that_holds_no_sections(tmp_path: Path, text: str) -> None:
    path = tmp_path / "my.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="expected sections"):
        load_config(path)


def test_an_impossible_date_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"my.yml: not valid YAML: month must be in"):
        parse_yaml("A: 2020-13-45\n", "my.yml")


def test_an_empty_file_has_no_sections(tmp_path: Path) -> None:
    path = tmp_path / "my.yml"
    path.write_text("# nothing\n")
    assert load_config(path).sections == {}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yml: no such config file"):
        Project(tmp_path / "p", tmp_path / "none.yml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "latin.yml").write_bytes("name: Müller\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.yml: the config file cannot be read: 'utf-8'"):
        load_config(tmp_path / "latin.yml")
    with pytest.raises(ConfigError, match="path of a YAML file or a mapping, got int"):
        load_config(5)  # type: ignore[arg-type]


# Mappings


def test_a_mapping_means_what_it_means_once_stored(tmp_path: Path) -> None:
    config = {
        SECTION: {
            "normalization_range": (0.01, 0.99),
            "image_size": np.int64(32),
            "cache": tmp_path,
            "threads": 1,
        }
    }
    first = Project(tmp_path / "p", config)
    assert first.config[SECTION]["normalization_range"] == [0.01, 0.99]
    again = Project(tmp_path / "p", config)
    stored = Project(tmp_path / "p")
    assert first.config == again.config == stored.config
    assert yaml.safe_load(first.config_path.read_text()) == first.config


def test_a_value_that_no_file_can_hold(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"config: HDF5CellExtraction.labels: a ndarray is not allowed"
    ):
        Project(tmp_path / "p", {SECTION: {"labels": np.zeros((3, 3))}})


# scPortrait's own files

SCPORTRAIT = """\
---
name: "Cell Cycle Example"
input_channels: 3
ShardedCytosolSegmentation:
    shard_size: 4000000
    cache: "."
    nucleus_segmentation: {lower_quantile_normalization: 0.001, min_distance: 8}
ShardedWGASegmentation:
    shard_size: 120000000
DAPISegmentationCellpose:
    cache: "."
    nucleus_segmentation: {model: nuclei}
TimecourseHDF5CellExtraction:
    image_size: 128
HDF5CellExtraction:
    compression: True
    threads: 80 # threads used in multithreading
    image_size: 32 # image size in pixel
    cache: "."
    hdf5_rdcc_nbytes: 5242880000 # 5gb 1024 * 1024 * 5000
    hdf5_rdcc_w0: 1
    hdf5_rdcc_nslots: 50000
    overwrite_run_path: True
    normalization_range: None #turn of percentile normalization for cell normalization
CellFeaturizer:
    batch_size: 900
    dataloader_worker_number: 0
    inference_device: "cpu"
    label: "Ch1"
MLClusterClassifier:
    channel_classification: 4
    threads: 24
LMDSelection:
    processes: 20
"""


def test_a_config_of_scportrait_works_as_it_is(
    tmp_path: Path,
    image: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    log_of: Callable[[Project], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scportrait.yml"
    path.write_text(SCPORTRAIT)
    project = Project(tmp_path / "p", path, extraction_f=HDF5CellExtraction)
    assert project.config_path.read_bytes() == path.read_bytes()
    config = project.extraction_f.config  # type: ignore[union-attr]
    assert config.normalization_range == (0.001, 0.999)  # type: ignore[attr-defined]
    assert list(project.steps) == [SECTION, "Featurization"]
    log = log_of(project)
    assert "section CellFeaturizer: step Featurization does it" in log
    for name in ("ShardedCytosolSegmentation", "MLClusterClassifier", "LMDSelection"):
        assert f"section {name} belongs to no step here; left alone" in log
    assert "section TimecourseHDF5CellExtraction belongs to no step here" in log
    assert "key name belongs to no step here; left alone" in log
    for key in ("hdf5_rdcc_nbytes", "hdf5_rdcc_w0", "overwrite_run_path"):
        assert f"section {SECTION}: key {key} is accepted and not needed" in log

    project.load_input_from_array(image)
    project.load_labels(labels)
    project.extract()
    assert "WARNING" in log_of(project)
    assert f"section {SECTION}: threads: 80 reduced to" in log_of(project)


def test_notes_reach_the_log_where_a_step_writes_first(
    loaded: Project, log_of: Callable[[Project], str]
) -> None:
    content = loaded.config_path.read_text()
    loaded.config_path.write_text(content + "LMDSelection: {processes: 2}\n")
    before = log_of(loaded)
    again = Project(loaded.project_location)
    again.status()
    assert log_of(loaded) == before  # looking writes nothing
    again.extract()
    said = log_of(loaded).removeprefix(before)
    assert said.count("section LMDSelection belongs to no step here") == 1
    again.extract()
    assert log_of(loaded).removeprefix(before).count("LMDSelection") == 1


def test_the_config_is_read_without_heavy_imports() -> None:
    import subprocess

    code = (
        "import sys, scportrait_like.config as c;"
        "c.parse_section(c.StepConfig, 'X', {'threads': 1});"
        "print([m for m in ('numpy', 'zarr', 'dask', 'spatialdata') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
