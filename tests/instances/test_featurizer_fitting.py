"""Models that are fitted: the sample of windows that they see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scportrait_like.models import MODELS, ModelKind, resolve_model
from scportrait_like.raster import fitting
from scportrait_like.raster.fitting import fit_model
from scportrait_like.raster.instance_runs import Found, InstanceRun
from scportrait_like.raster.instance_statistics import WindowHead
from scportrait_like.raster.sources import source_of

from .cases import Array, odd_labels, odd_pixels
from .oracle import windows

pytestmark = pytest.mark.usefixtures("small_tiles")
SIZE = 11


def kept(batch: Array, *, embedding_dimension: int, fitted: Any) -> Array:
    return np.zeros((len(batch), embedding_dimension))


def kept_with_mask(batch: Array, mask: Array, *, embedding_dimension: int, fitted: Any) -> Array:
    return np.zeros((len(batch), embedding_dimension))


def keep(images: Array, masks: Array | None, *, embedding_dimension: int) -> dict[str, Array]:
    found = {"images": images}
    return found if masks is None else {**found, "masks": masks}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models that keep what they are fitted on."""
    monkeypatch.setitem(MODELS, "kept", ModelKind(kept, fit=keep, sample=9))
    monkeypatch.setitem(MODELS, "masked", ModelKind(kept_with_mask, fit=keep, sample=9))


def case(seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    shape = (2, 30, 40)
    return odd_labels(rng, shape, "int32"), odd_pixels(rng, (2, *shape), "uint16")


def run_of(mask: Array, image: Array) -> tuple[InstanceRun, Found]:
    run = InstanceRun(source_of(mask), source_of(image), SIZE, WindowHead(), executor="inline")
    return run, run.find()


def fitted_on(name: str, runs: list[tuple[InstanceRun, Found]], **kwargs: Any) -> Any:
    spec = fit_model(resolve_model(name, kwargs, 3), runs)
    assert spec.fit_sample == 0
    return spec.load().keywords["fitted"]


@pytest.mark.parametrize("name", ["kept", "masked"])
def test_all_windows_where_there_are_few(name: str) -> None:
    mask, image = case(1)
    found = fitted_on(name, [run_of(mask, image)], sample=1000)
    _, labels, images = windows(mask, image, SIZE)
    assert (found["images"] == images).all()
    assert ("masks" in found) == (name == "masked")
    if name == "masked":
        assert (found["masks"] == (labels != 0)).all()


def test_the_sample_is_always_the_same() -> None:
    mask, image = case(1)
    first, again = (fitted_on("kept", [run_of(mask, image)])["images"] for _ in range(2))
    assert len(first) == 9
    assert (first == again).all()
    known = {window.tobytes() for window in windows(mask, image, SIZE)[2]}
    assert {window.tobytes() for window in first} <= known


def test_a_sample_of_several_images() -> None:
    cases = [case(seed) for seed in (1, 2, 3)]
    cases.insert(1, (np.zeros_like(cases[0][0]), cases[0][1]))  # no label
    found = fitted_on("masked", [run_of(*each) for each in cases], sample=1000)
    expected = [windows(*each, SIZE) for each in cases]
    assert (found["images"] == np.concatenate([images for _, _, images in expected])).all()
    assert len(fitted_on("kept", [run_of(*each) for each in cases])["images"]) == 9


def test_nothing_to_fit() -> None:
    mask, image = case(1)
    spec = resolve_model("intensity_statistics")
    assert fit_model(spec, [run_of(mask, image)]) is spec
    spec = resolve_model("kept", None, 3)
    assert fit_model(spec, [run_of(np.zeros_like(mask), image)]) is spec


def test_windows_too_large_for_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are always more of them than numbers wanted, or nothing could be fitted."""
    monkeypatch.setattr(fitting, "SAMPLE_BYTES", 1)
    spec = fit_model(resolve_model("kept", None, 5), [run_of(*case(1))])
    assert len(spec.load().keywords["fitted"]["images"]) == 6
