"""``torch:path``: TorchScript and exported programs."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scportrait_like.errors import InputError, ModelError
from scportrait_like.models import _loading, embed, resolve_model
from scportrait_like.models import _torch as ours
from scportrait_like.models._torch import Network
from scportrait_like.raster.heads import ModelHead
from scportrait_like.raster.instance_runs import InstanceRun
from scportrait_like.raster.sources import source_of

torch = pytest.importorskip("torch", reason="PyTorch is not installed (make test-torch)")
networks = pytest.importorskip("models_torch.networks")

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:FutureWarning")

RNG = np.random.default_rng(1)
BATCH = RNG.integers(0, 65535, (9, 2, 1, 12, 12), np.uint16)
IDS = np.arange(9) + 5


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loading, "_models", {})


@pytest.fixture(scope="module")
def small() -> Any:
    torch.manual_seed(3)
    module = networks.Small(2, 5)
    for _ in range(3):  # what the batch normalisation has learned
        module(torch.rand(8, 2, 12, 12))
    return module


@pytest.fixture(params=["script", "export"])
def stored(request: pytest.FixtureRequest, small: Any, tmp_path: Path) -> str:
    if request.param == "script":
        return networks.script(small.train(), tmp_path / "model.pt")
    return networks.export(small, tmp_path / "model.pt2", torch.zeros(2, 2, 12, 12))


def call(name: str, batch: Any = BATCH, dimension: int = 5, **kwargs: Any) -> Any:
    model = resolve_model(name, kwargs)
    return embed(model, batch, None, IDS[: len(batch)], dimension)


def test_it_gives_what_the_module_gives(stored: str, small: Any) -> None:
    with torch.no_grad():
        pixels = torch.from_numpy(BATCH[:, :, 0].astype(np.float32) / 65535)
        wanted = small.eval()(pixels).numpy()
    for count in (9, 1, 4):
        found = call(stored, BATCH[:count])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted[:count], rtol=1e-5, atol=1e-6)


def test_it_is_loaded_once_and_pickles(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    monkeypatch.setattr(ours.TorchModel, "load", counted(ours.TorchModel.load, loads))
    model = resolve_model(stored)
    assert not loads
    assert len(pickle.dumps(model)) < 2000
    for _ in range(3):
        copy = pickle.loads(pickle.dumps(model))
        embed(copy, BATCH, None, IDS, 5)
    assert len(loads) == 1
    assert not model.on_gpu
    assert not model.wants_mask


def counted(function: Any, calls: list[Any]) -> Any:
    def counting(self: Any) -> Any:
        calls.append(self)
        return function(self)

    return counting


SCALES = [
    ("dtype", "u2", lambda x: x / 65535),
    ("dtype", "u1", lambda x: x / 255),
    ("dtype", "i2", lambda x: x / 32767),
    ("dtype", "u4", lambda x: x / (2**32 - 1)),
    ("dtype", "f4", lambda x: x),
    ("dtype", ">f8", lambda x: x),
    ("dtype", ">u2", lambda x: x / 65535),
    ("dtype", "?", lambda x: x),
    ("none", "u2", lambda x: x),
    ([10, 60], "u1", lambda x: (x - 10) / 50),
    ([-1.5, 2], "f2", lambda x: (x + 1.5) / 3.5),
]


@pytest.mark.parametrize(("scale", "dtype", "wanted"), SCALES)
def test_pixels_become_float32(tmp_path: Path, scale: Any, dtype: str, wanted: Any) -> None:
    name = networks.script(networks.Flat(), tmp_path / "model.pt")
    kind = np.dtype(dtype)
    top = 2 if kind.kind in "fb" else np.iinfo(kind).max
    batch = (RNG.random((4, 2, 1, 3, 3)) * top).astype(kind)
    found = call(name, batch, 18, scale=scale)
    pixels = wanted(batch.reshape(4, 18).astype(np.float64))
    np.testing.assert_allclose(found, pixels, rtol=1e-6, atol=1e-6 * np.abs(pixels).max())


def test_planes_and_volumes(tmp_path: Path) -> None:
    seen = []

    def forward(x: Any) -> Any:
        seen.append(tuple(x.shape))
        return x.flatten(1)

    network = Network(forward, "cpu", "none")
    for depth in (1, 3):
        network(np.ones((4, 2, depth, 5, 6), np.uint8), embedding_dimension=1)
    assert seen == [(4, 2, 5, 6), (4, 2, 3, 5, 6)]


def test_further_axes_and_short_floats_become_rows(tmp_path: Path) -> None:
    found = call(networks.script(networks.Deep(), tmp_path / "model.pt"), dimension=2)
    wanted = (BATCH / 65535).mean((2, 3, 4))
    np.testing.assert_allclose(found, wanted, rtol=1e-2)


def test_workers_do_not_compete_for_cores(tmp_path: Path) -> None:
    """A call computes in one thread; what others are set to stays."""
    if torch.get_num_threads() == 1:
        pytest.skip("PyTorch has one thread here")
    before = torch.get_num_threads()
    seen = []

    def forward(x: Any) -> Any:
        seen.append(torch.get_num_threads())
        return x.flatten(1)

    network = Network(forward, "cpu", "none")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: network(BATCH, embedding_dimension=1), range(20)))
    network(BATCH, embedding_dimension=1)
    assert set(seen) == {1}
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_run_with_workers(small: Any, tmp_path: Path, executor: str) -> None:
    mask = np.zeros((1, 60, 60), np.uint16)
    for label in range(1, 17):
        y, x = divmod(label - 1, 4)
        mask[0, 15 * y + 2 : 15 * y + 11, 15 * x + 2 : 15 * x + 9] = label
    image = RNG.integers(0, 65535, (2, *mask.shape), np.uint16)
    model = resolve_model(networks.script(small, tmp_path / "model.pt"), None, 5)
    found = {}
    for name in ("inline", executor):
        head = ModelHead(model, 5)
        run = InstanceRun(source_of(mask), source_of(image), 12, head, batch_size=5, executor=name)
        found[name] = run.collect(run.find())["embedding"]
    assert found[executor].shape == (16, 5)
    assert np.abs(found[executor]).sum() > 0
    np.testing.assert_allclose(found[executor], found["inline"], rtol=1e-5, atol=1e-6)


def test_the_identity_knows_file_and_arguments(small: Any, tmp_path: Path) -> None:
    name = networks.script(small, tmp_path / "model.pt")
    first = resolve_model(name).identity
    assert resolve_model(name, {"device": "cpu", "scale": "dtype"}).identity == first
    assert resolve_model(name, {"scale": "none"}).identity != first
    networks.script(networks.Flat(), tmp_path / "model.pt")
    assert resolve_model(name).identity != first


# What is wrong


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"devices": "cpu"}, "takes no 'devices'.*takes device, scale"),
        ({"device": "gpu"}, "device 'gpu' is not allowed"),
        ({"device": "cuda:99"}, "no device cuda:99 on this machine; it has 1 cpu"),
        ({"device": 0}, "device 0 is not allowed"),
        ({"scale": "max"}, "scale 'max' is not allowed"),
        ({"scale": [3, 1]}, "scale"),
        ({"scale": [0, float("inf")]}, "scale"),
        ({"scale": [0, "1"]}, "scale"),
        ({"scale": [0, 1, 2]}, "scale"),
    ],
)
def test_bad_arguments(tmp_path: Path, kwargs: dict[str, Any], message: str) -> None:
    name = networks.script(networks.Flat(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=message):
        resolve_model(name, kwargs)


def test_files_of_other_kinds(small: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(InputError, match="there is no file"):
        resolve_model(f"torch:{path}")
    path.write_text("no model")
    with pytest.raises(InputError, match="neither an exported program nor TorchScript; write"):
        resolve_model(f"torch:{path}")
    for pickled in (small.state_dict(), small):
        torch.save(pickled, path)
        with pytest.raises(InputError, match="weights or a pickled module"):
            resolve_model(f"torch:{path}")


def test_a_damaged_file(small: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    name = networks.script(small, path)
    model = resolve_model(name)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ModelError, match=rf"model {name}: torch .* cannot load it"):
        embed(model, BATCH, None, IDS, 5)


def test_a_program_for_one_size_only(small: Any, tmp_path: Path) -> None:
    example = torch.zeros(2, 2, 12, 12)
    name = networks.export(small, tmp_path / "model.pt2", example, dynamic=False)
    with pytest.raises(ModelError, match=r"exported for inputs \[\(2, 2, 12, 12\)\].*DYNAMIC"):
        call(name)


def test_wrong_answers(small: Any, tmp_path: Path) -> None:
    pair = networks.script(networks.Pair(), tmp_path / "pair.pt")
    with pytest.raises(ModelError, match="a tuple, wanted is one tensor"):
        call(pair)
    name = networks.script(small, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"\(9, 5\), wanted is \(9, 6\)"):
        call(name, dimension=6)
    with pytest.raises(ModelError, match=r"windows \(9, 3, 1, 12, 12\) of uint8"):
        call(name, np.ones((9, 3, 1, 12, 12), np.uint8))
    bad = RNG.random((9, 2, 1, 12, 12), np.float32)
    bad[4] = np.nan
    with pytest.raises(ModelError, match=r"NaN.*instances 9"):
        call(name, bad)


# With a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu(stored: str) -> None:
    model = resolve_model(stored)
    assert model.on_gpu
    found = embed(model, BATCH, None, IDS, 5)
    wanted = call(stored, device="cpu")
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert resolve_model(stored, {"device": "cpu"}).identity != model.identity
