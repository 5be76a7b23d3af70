"""The kernels as a package: where they may import from, and their cache."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scportrait_like import kernels

FILES = sorted(Path(kernels.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        assert not isinstance(node, ast.ImportFrom) or node.level <= 1, "only from this folder"
        allowed = {"__future__", "collections", "math", "numba", "numpy", "typing"}
        assert {name.split(".")[0] for name in names} <= allowed


def test_small_files():
    assert max(len(path.read_text().splitlines()) for path in FILES) < 400


def test_warm_up_compiles_what_a_worker_needs(rng):
    kernels.warm_up("uint16", "uint32")
    module = sys.modules["scportrait_like.kernels._portrait_loops"]
    before = len(module.portrait_windows.signatures)
    boxes = np.array([[1, 2, 9, 12], [0, 0, 4, 4]])
    offsets = kernels.ragged_offsets(boxes)
    out = np.empty((2, 3, 16, 16), np.uint16)
    corners = np.zeros((2, 2), np.int32)
    values = rng.integers(0, 9, offsets[-1]).astype(np.uint16)
    blurred = rng.random(offsets[-1])
    blurred.flags.writeable = False
    for pixels in (values, values.astype(float)):
        for how in (kernels.Quantiles(0.1, 0.9), kernels.Scale(65535), kernels.Plain()):
            kernels.portraits(pixels, blurred, boxes, offsets, corners, 16, how, out[:, 1])
    assert len(module.portrait_windows.signatures) == before


def test_without_a_folder_for_the_cache_kernels_still_compile(tmp_path):
    package = tmp_path / "pkg"
    package.mkdir()
    source = Path(kernels.__file__).parent / "_jit.py"
    (package / "_jit.py").write_text(source.read_text())
    (package / "__init__.py").write_text("")
    code = (
        "import numba.core.caching as c; c.CompileResultCacheImpl._locator_classes = [];\n"
        "from pkg._jit import jit\n"
        "def f(x): return x + 1\n"
        "assert jit(f)(1) == 2"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
