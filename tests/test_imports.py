"""The law of imports: they point one way, and workers load only what they need."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "scportrait_like"

# Each room, and the rooms that it may import. What is not listed is forbidden.
BASE = {"errors", "names", "config", "identity", "log", "lazy", "notes", "settings", "status"}
MACHINE = BASE | {"run", "kernels"}
STORE = MACHINE | {"models", "raster", "pixels", "io", "filehandler"}
ENGINE = STORE | {"step", "table_step", "model_step", "loading"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "names": set(),
    "lazy": set(),
    "notes": {"log"},
    "status": set(),
    "identity": set(),
    "log": set(),
    "config": {"errors", "names", "notes"},
    "kernels": set(),
    "run": BASE,
    "models": MACHINE,
    "raster": MACHINE | {"models"},
    "pixels": MACHINE | {"raster"},
    "io": STORE,
    "filehandler": STORE,
    "loading": STORE,
    "writing": STORE,
    "step_state": MACHINE,
    "step": STORE | {"step_state", "writing"},
    "step_registry": {"errors", "step"},
    "table_step": STORE | {"step"},
    "model_step": STORE | {"table_step"},
    "steps": ENGINE,
    "im": {"errors", "names", "lazy", "io", "pixels", "raster", "run", "settings"},
    "tb": {"errors", "io", "models", "raster", "utils"},
    "utils": {"errors", "io", "models", "raster", "run"},
    "training": STORE | {"project"},
    "settings": {"errors", "config"},
    "datasets": STORE,
    "plot": BASE,
    "pictures": ENGINE | {"plot", "report"},
    "report": ENGINE | {"plot"},
    "inputs": STORE | {"loading"},
    "project": ENGINE | {"inputs", "pictures", "step_registry", "writing"},
    "cli": ENGINE | {"project", "plot", "datasets", "project_templates", "report", "settings", ""},
    "project_templates": {""},
    # The door is above all; it imports lazily, and for type checkers.
    "": {"lazy", "project", "datasets", "im", "io", "plot", "settings", "tb", "training", "utils"},
}


def room_of(module: str) -> str:
    """Room of a module of this package: the first name below it."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def files() -> list[tuple[str, Path]]:
    found = []
    for folder, prefix in (
        (PACKAGE, PACKAGE),
        ("steps", f"{PACKAGE}.steps"),
        ("project_templates", f"{PACKAGE}.project_templates"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "project_templates" and len(inner) > 1:
                continue  # scripts that users get, no modules of ours
            found.append((".".join([prefix, *(p for p in inner if p != "__init__")]), path))
    return found


def imports_of(module: str, path: Path) -> list[tuple[int, str]]:
    """Every import of a file, the lazy ones and those for types too, as absolute names."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            if base == PACKAGE:  # from scportrait_like import names
                found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, base))
    return found


def test_imports_point_one_way() -> None:
    broken = []
    for module, path in files():
        room = room_of(module)
        for line, name in imports_of(module, path):
            if name.split(".")[0] == "steps":
                broken.append(f"{path}:{line}: a bare import of steps")
            if name.split(".")[0] != PACKAGE:
                continue
            target = room_of(name)
            if target != room and target not in ALLOWED.get(room, set()):
                broken.append(f"{path.relative_to(ROOT)}:{line}: {room or 'the door'} -> {target}")
    assert not broken, "imports against the law:\n" + "\n".join(broken)


def test_every_room_has_its_law() -> None:
    rooms = {room_of(module) for module, _ in files()}
    assert rooms <= set(ALLOWED), f"rooms without a law: {rooms - set(ALLOWED)}"


def test_a_step_never_imports_another() -> None:
    door = f"{PACKAGE}.steps"
    steps = [(m, path) for m, path in files() if room_of(m) == "steps" and m != door]
    for module, path in steps:
        others = {other for other, _ in steps} - {module}
        assert not others & {name for _, name in imports_of(module, path)}, path


def test_the_law_would_be_noticed(tmp_path: Path) -> None:
    guilty = tmp_path / "sources.py"
    guilty.write_text("def read():\n    from scportrait_like.project import Project\n")
    assert imports_of(f"{PACKAGE}.raster.sources", guilty) == [(2, f"{PACKAGE}.project")]
    assert "project" not in ALLOWED["raster"]
    relative = tmp_path / "boxes.py"
    relative.write_text("from ..run import plan\nfrom ._jit import jit\n")
    assert [name for _, name in imports_of(f"{PACKAGE}.kernels.boxes", relative)] == [
        f"{PACKAGE}.run",
        f"{PACKAGE}.kernels._jit",
    ]


HEAVY = {"spatialdata", "dask", "distributed", "matplotlib", "torch", "anndata", "pandas", "xarray"}


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_workers_import_only_what_they_need() -> None:
    """All that the pickled work of a step brings into a worker process."""
    tasks = ("cutting", "aggregation", "instance_task", "heads", "featurizing")
    work = ("run.runner", *(f"raster.{name}" for name in tasks))
    modules = ", ".join(f"scportrait_like.{name}" for name in work)
    assert not modules_after(f"import {modules}, zarr") & HEAVY


@pytest.mark.parametrize("code", ["import scportrait_like", "import scportrait_like.cli"])
def test_the_door_is_light(code: str) -> None:
    loaded = modules_after(code)
    assert not loaded & (HEAVY | {"numba", "zarr", "scipy", "skimage", "h5py"})


@pytest.mark.parametrize("arguments", [["-c", "import scportrait_like"], ["--help"]])
def test_starting_takes_under_half_a_second(arguments: list[str]) -> None:
    """The best of five: other load on the machine can only add."""
    program = [sys.executable, *arguments]
    if arguments == ["--help"]:
        program = [str(Path(sys.executable).with_name("scportrait-like")), *arguments]
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(program, check=True, capture_output=True)
        best = min(best, time.perf_counter() - began)
    assert best < 0.5
