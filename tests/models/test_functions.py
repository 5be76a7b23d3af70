"""Functions of the user as models: what is accepted, and what is said of the others."""

import functools
import importlib
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from scportrait_like.errors import ConfigError, InputError
from scportrait_like.models import MODELS, PREFIXES, ModelKind, embed, resolve_model

from . import functions

HERE = functions.__name__


def run(spec, batch, dimension, mask=None):
    return embed(spec, batch, mask, np.arange(len(batch)), dimension)


def test_a_function_and_its_name(windows):
    batch, _ = windows(4, channels=3)
    by_name, given = resolve_model(f"{HERE}:mean"), resolve_model(functions.mean)
    assert by_name.name == f"{HERE}:mean"
    assert given.name == f"{HERE}.mean"
    wanted = batch.mean(axis=(2, 3, 4)).astype(np.float32)
    for spec in (by_name, given):
        np.testing.assert_array_equal(run(spec, batch, 3), wanted)


def test_kwargs_and_dimension(windows):
    batch, _ = windows(4, channels=2)
    spec = resolve_model(f"{HERE}:scaled", {"factor": 2.0, "offset": 1.0}, 2)
    wanted = batch.mean(axis=(2, 3, 4)) * 2 + 1
    np.testing.assert_allclose(run(spec, batch, spec.dimension(2, 1)), wanted, rtol=1e-6)
    assert resolve_model(functions.mean).dimension(7, 1) == 3  # its default
    assert resolve_model(functions.mean, None, np.int64(2)).dimension(7, 1) == 2
    assert resolve_model(functions.mean).feature_names(["a"], []) == [
        "embedding_0",
        "embedding_1",
        "embedding_2",
    ]
    unknown = resolve_model(functions.anything, {"value": 3})
    with pytest.raises(InputError, match=r"functions\.anything: give embedding_dimension"):
        unknown.dimension(2, 1)
    for wrong in (0, -1, 2.0, True, "4"):
        with pytest.raises(InputError, match="embedding_dimension must be a whole number from 1"):
            resolve_model(functions.mean, None, wrong)


def test_masks_only_where_wanted(windows):
    batch, masks = windows(4, n_masks=2)
    spec = resolve_model(functions.of_mask)
    assert spec.wants_mask
    assert not resolve_model(functions.mean).wants_mask
    assert not resolve_model(functions.anything).wants_mask
    found = run(spec, batch, 2, masks)
    np.testing.assert_array_equal(found, masks.sum(axis=(2, 3, 4)))


def test_callables_of_all_kinds(windows):
    batch, _ = windows(4)
    wanted = functions.scaled(batch, 3.0, 2).astype(np.float32)

    def local(batch, embedding_dimension):
        return functions.scaled(batch, 3.0, embedding_dimension)

    for function in (
        local,
        lambda batch, embedding_dimension: local(batch, embedding_dimension),
        functools.partial(functions.scaled, factor=3.0),
    ):
        np.testing.assert_array_equal(run(resolve_model(function), batch, 2), wanted)
    for given in (functions.an_instance, f"{HERE}:an_instance"):
        assert run(resolve_model(given), batch, 5).shape == (4, 5)


def test_lambdas_are_not_mixed_up(windows):
    batch, _ = windows(2)
    specs = [
        resolve_model(lambda b, embedding_dimension, v=v: np.full((len(b), 1), v)) for v in (1, 2)
    ]
    assert [run(spec, batch, 1)[0, 0] for spec in specs] == [1, 2]


BAD = [
    (functions.no_dimension, {}, r"no_dimension: it must have the parameter 'embedding_dimension'"),
    (functions.no_dimension, {}, r"its parameters are \(batch, size=3\)"),
    (functions.no_batch, {}, r"no_batch: its first parameter must be the batch"),
    (lambda: 1, {}, r"<lambda>: its first parameter must be the batch of windows; .* \(\)"),
    (functions.mean, {"size": 4}, r"mean: it takes no 'size' of model_kwargs; .*\(batch, embedd"),
    (functions.scaled, {}, r"scaled: give factor in model_kwargs"),
    (functions.mean, {"batch": 1}, r"'batch' cannot be among model_kwargs"),
    (functions.mean, {"embedding_dimension": 1}, r"'embedding_dimension' cannot be among"),
    (functions.anything, {"mask": 1}, r"'mask' cannot be among model_kwargs"),
    (functions.AClass, {}, r"AClass: a function is needed, not a class"),
    (dict.fromkeys, {}, r"model dict.fromkeys: it must have the parameter 'embedding_dimension'"),
    (np.sin, {}, r"model numpy\.sin: (it must have|its parameters cannot be read)"),
    (3, {}, r"a function or a name is needed, not int"),
    (None, {}, r"a function or a name is needed, not NoneType"),
]


@pytest.mark.parametrize(("function", "kwargs", "says"), BAD)
def test_what_cannot_be_called(function, kwargs, says):
    with pytest.raises(InputError, match=says):
        resolve_model(function, kwargs)


PLACES = [
    ("no_such_module_here:f", r"'no_such_module_here' cannot be imported \(ModuleNotFoundError"),
    ("no_such_module_here:f", r"name its folder in PYTHONPATH"),
    (f"{HERE}:nothing", rf"the module '{HERE}' has no 'nothing'; write the model as module:func"),
    (f"{HERE}:NOT_A_FUNCTION", r"NOT_A_FUNCTION' is of type int, not a function"),
    (f"{HERE}:AClass", r"AClass' is a class, not a function"),
    ("intensity", r"model 'intensity' is not known. Registered are intensity_statistics, shape, p"),
    ("torch:", r"model 'torch:' is not known.*torch:\.\.\., timm:\.\.\."),
    (":f", r"':f' is not known"),
    ("", r"'' is not known"),
]


@pytest.mark.parametrize(("place", "says"), PLACES)
def test_names_that_mean_nothing(place, says):
    with pytest.raises(ConfigError, match=says):
        resolve_model(place)


def test_a_module_that_fails(tmp_path, monkeypatch):
    (tmp_path / "failing_models.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be imported \(RuntimeError: no licence\)"):
        resolve_model("failing_models:f")


def test_identity_holds_what_results_depend_on(tmp_path, monkeypatch):
    specs = [
        resolve_model(functions.mean),
        resolve_model(functions.mean, None, 2),
        resolve_model(functions.anything),
        resolve_model(functions.anything, {"value": 2}),
        resolve_model("shape"),
        resolve_model("pca"),
        resolve_model("pca", {"sample": 50}),
    ]
    assert len({spec.identity for spec in specs}) == len(specs)
    again = resolve_model(functions.anything, {"value": 2})
    assert again.identity == specs[3].identity

    file = tmp_path / "changing_models.py"
    file.write_text("def f(batch, embedding_dimension): return 1")
    monkeypatch.syspath_prepend(tmp_path)
    before = resolve_model("changing_models:f").identity
    assert resolve_model("changing_models:f").identity == before
    file.write_text("def f(batch, embedding_dimension): return 2")
    del sys.modules["changing_models"]
    assert resolve_model("changing_models:f").identity != before


@pytest.mark.parametrize("name", [*MODELS, f"{HERE}:mean", "function"])
@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_pickles(windows, name, pickler):
    batch, masks = windows(5)
    spec = resolve_model(functions.mean if name == "function" else name, {}, None)
    if name == "pca":
        spec = resolve_model(name, {}, 2).fitted(batch, masks)
    back = pickler.loads(pickler.dumps(spec))
    assert back.identity == spec.identity
    dimension = 2 if name == "function" or ":" in name else spec.dimension(2, 1)
    wanted = run(spec, batch, dimension, masks)
    np.testing.assert_array_equal(run(back, batch, dimension, masks), wanted)


def test_a_lambda_goes_by_cloudpickle(windows):
    batch, _ = windows(2)
    spec = resolve_model(lambda batch, embedding_dimension: np.ones((len(batch), 1)))
    back = cloudpickle.loads(cloudpickle.dumps(spec))
    assert run(back, batch, 1).tolist() == [[1], [1]]


def brightest(batch, *, embedding_dimension):
    return batch.max(axis=(2, 3, 4))


def test_a_new_model_is_one_entry(windows, monkeypatch):
    """As the docstring of the registry has it."""
    kind = ModelKind(brightest, lambda channels, masks: [f"{name}_max" for name in channels])
    monkeypatch.setitem(MODELS, "brightest", kind)
    batch, _ = windows(4)
    spec = resolve_model("brightest")
    assert spec.feature_names(["a", "b"], ["m"]) == ["a_max", "b_max"]
    found = run(spec, batch, spec.dimension(2, 1))
    np.testing.assert_array_equal(found, batch.max(axis=(2, 3, 4)))


def test_a_new_prefix_is_one_entry(monkeypatch, tmp_path, windows):
    monkeypatch.setitem(PREFIXES, "counted", f"{HERE}:make_counted")
    spec = resolve_model(f"counted:{tmp_path}", {"on_gpu": True})
    assert spec.on_gpu
    assert spec.name == "counted"
    assert spec.dimension(3, 1) == 2
    assert spec.fitted(np.zeros((2, 1, 1, 3, 3)), None) is spec


def test_a_file_that_changed_after_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "def f(batch, embedding_dimension):\n    return batch.sum(axis=(2, 3, 4)) * {}\n"
    file = tmp_path / "edited_model.py"
    file.write_text(source.format(1))
    monkeypatch.syspath_prepend(tmp_path)
    first = resolve_model("edited_model:f", embedding_dimension=2)
    file.write_text(source.format(20))
    with pytest.raises(ConfigError, match=r"changed since this process imported it.*reload"):
        resolve_model("edited_model:f", embedding_dimension=2)
    importlib.reload(sys.modules["edited_model"])
    again = resolve_model("edited_model:f", embedding_dimension=2)
    assert again.identity != first.identity
    assert (again.load()(np.ones((1, 2, 1, 1, 1)), embedding_dimension=2) == 20).all()


def test_a_file_that_changed_before_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "early_model.py"
    file.write_text("def f(batch, embedding_dimension):\n    return batch * 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("early_model")
    file.write_text("def f(batch, embedding_dimension):\n    return batch * 20\n")
    with pytest.raises(ConfigError, match="changed since this process imported it"):
        resolve_model("early_model:f", embedding_dimension=2)


@pytest.mark.parametrize("made", ["partial(f, k=3)", "Model()"])
def test_code_behind_partials_and_objects_counts(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"""from functools import partial
def f(batch, embedding_dimension, k):
    return batch * k
class Model:
    def __call__(self, batch, embedding_dimension):
        return batch * 1
model = {made}
"""
    file = tmp_path / "made_model.py"
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for content in (text, text.replace("k=3", "k=4").replace("* 1", "* 2")):
        file.write_text(content)
        sys.modules.pop("made_model", None)
        importlib.invalidate_caches()
        found.append(resolve_model("made_model:model", embedding_dimension=2).identity)
    assert found[0] != found[1]


@dataclass(frozen=True)
class Network:
    """An adapter that knows how many numbers it gives."""

    download: bool = False
    name: str = "network:of_mine"
    dimension: int = 5
    on_gpu: bool = False
    wants_mask: bool = False
    identity: str = "network"


def make_network(rest, kwargs):
    return Network(**kwargs)


def test_a_network_gives_what_it_gives(monkeypatch):
    monkeypatch.setitem(PREFIXES, "network", f"{__name__}:make_network")
    assert resolve_model("network:of_mine").dimension(3, 1) == 5
    assert resolve_model("network:of_mine", None, 5).dimension(3, 1) == 5
    spec = resolve_model("network:of_mine", None, 6)
    with pytest.raises(InputError, match="gives 5 numbers, not embedding_dimension=6"):
        spec.dimension(3, 1)


@pytest.mark.parametrize("download", [True, False])
def test_weights_are_fetched_when_permitted_only(monkeypatch, download):
    monkeypatch.setitem(PREFIXES, "network", f"{__name__}:make_network")
    for fetch in (True, False):
        spec = resolve_model("network:of_mine", {"download": download}, fetch=fetch)
        assert spec.adapter.download == (fetch and download)
    # A kwarg of a function is its own business.
    given = resolve_model(f"{HERE}:anything", {"download": True}, 2, fetch=False)
    assert given.adapter.kwargs == {"download": True}


@pytest.mark.parametrize("head", ["@dataclass\nclass Model:", "class Model:\n    __slots__ = ()"])
def test_objects_of_any_class(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = "    def __call__(self, batch, embedding_dimension):\n        return batch\n"
    file = tmp_path / "object_model.py"
    file.write_text(f"from dataclasses import dataclass\n{head}\n{call}model = Model()\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("object_model", None)
    importlib.invalidate_caches()
    for _ in range(2):
        resolve_model("object_model:model", embedding_dimension=2)
    file.write_text("def half written(")
    with pytest.raises(ConfigError, match="has changed"):
        resolve_model("object_model:model", embedding_dimension=2)
