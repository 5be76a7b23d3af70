"""``timm:name`` and ``transformers:name``, with weights that were made up."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scportrait_like.errors import InputError, ModelError
from scportrait_like.models import ModelSpec, _loading, embed, resolve_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed (make test-torch)")
timm = pytest.importorskip("timm", reason="timm is not installed (make test-torch)")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (make test-torch)"
)

RNG = np.random.default_rng(1)
IDS = np.arange(5)
NAME = "test_resnet"  # timm's smallest
KINDS = pytest.mark.parametrize("kind", ["timm", "transformers"])


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loading, "_models", {})


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing is asked of a server, and the cache of Hugging Face is an empty folder."""
    import socket

    def refuse(*args: Any, **more: Any) -> None:
        raise AssertionError("a server is asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A network of timm, and a file of its weights, those of the classes too."""
    torch.manual_seed(1)
    module = timm.create_model(NAME, pretrained=False).eval()
    path = tmp_path_factory.mktemp("timm") / "weights.pth"
    torch.save(module.state_dict(), path)
    return module, path


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A network of transformers, and its folder."""
    torch.manual_seed(1)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=32,
        patch_size=8,
    )
    module = transformers.ViTModel(config).eval()
    folder = tmp_path_factory.mktemp("transformers") / "vit"
    module.save_pretrained(folder)
    write_processor(folder)
    return module, folder


def write_processor(folder: Path, **more: Any) -> None:
    facts = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.3, 0.1],
        **more,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


@pytest.fixture
def resolve(resnet: tuple[Any, Path], vit: tuple[Any, Path]) -> Any:
    def make(kind: str, **kwargs: Any) -> ModelSpec:
        name = NAME if kind == "timm" else "some/vit"
        weights = resnet[1] if kind == "timm" else vit[1]
        return resolve_model(f"{kind}:{name}", {"weights": str(weights), **kwargs})

    return make


@pytest.fixture
def wanted_of(resnet: tuple[Any, Path], vit: tuple[Any, Path]) -> Any:
    """Embeddings of pictures (n, 3, y, x) float32 by the libraries themselves."""

    def find(kind: str, pictures: Any) -> Any:
        if kind == "timm":
            module, data = resnet[0], timm.data.resolve_model_data_config(resnet[0])
            size, mean, std = data["input_size"][1:], data["mean"], data["std"]
        else:
            module, size, mean, std = vit[0], (32, 32), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
        tensor = torch.nn.functional.interpolate(
            torch.from_numpy(pictures), size, mode="bilinear", antialias=True
        )
        mean, std = (torch.tensor(each)[:, None, None] for each in (mean, std))
        with torch.no_grad():
            if kind == "timm":
                features = module.forward_features((tensor - mean) / std)
                return module.forward_head(features, pre_logits=True).numpy()
            return module(pixel_values=(tensor - mean) / std).pooler_output.numpy()

    return find


def windows(channels: int, size: int = 20) -> Any:
    return RNG.integers(0, 65535, (5, channels, 1, size, size), np.uint16)


@KINDS
@pytest.mark.parametrize("size", [20, 32, 70])
def test_each_channel_is_a_grey_picture(kind: str, size: int, resolve: Any, wanted_of: Any) -> None:
    batch = windows(4, size)
    pixels = batch[:, :, 0].astype(np.float32) / 65535
    rows = [wanted_of(kind, np.repeat(pixels[:, c, None], 3, axis=1)) for c in range(4)]
    wide = np.concatenate(rows, axis=1)
    dimension = rows[0].shape[1]

    each = resolve(kind, channels="each")
    with pytest.raises(InputError, match="give embedding_dimension"):
        each.dimension(4, 1)
    found = embed(each, batch, None, IDS, 4 * dimension)
    np.testing.assert_allclose(found, wide, rtol=1e-4, atol=1e-4)

    mean = resolve(kind)
    assert mean.dimension(4, 1) == dimension
    found = embed(mean, batch, None, IDS, dimension)
    np.testing.assert_allclose(found, np.mean(rows, axis=0), rtol=1e-4, atol=1e-4)


@KINDS
def test_three_channels_as_colours(kind: str, resolve: Any, wanted_of: Any) -> None:
    batch = windows(4)
    model = resolve(kind, channels="first3")
    wanted = wanted_of(kind, batch[:, :3, 0].astype(np.float32) / 65535)
    found = embed(model, batch, None, IDS, model.dimension(4, 1))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="first3 needs windows and a model of 3 channels"):
        embed(model, windows(2), None, IDS, model.dimension(2, 1))


@KINDS
def test_many_windows_go_through_in_parts(kind: str, resolve: Any) -> None:
    batch = np.concatenate([windows(3)] * 30)
    model = resolve(kind)
    found = embed(model, batch, None, np.arange(150), model.dimension(3, 1))
    np.testing.assert_allclose(found, np.concatenate([found[:5]] * 30), rtol=1e-4, atol=1e-5)


@KINDS
def test_it_pickles_and_has_an_identity(kind: str, resolve: Any) -> None:
    model = resolve(kind)
    copy = pickle.loads(pickle.dumps(model))
    assert copy == model
    assert copy.identity == model.identity
    assert resolve(kind, channels="first3").identity != model.identity
    assert not model.on_gpu


@KINDS
def test_volumes_are_refused(kind: str, resolve: Any) -> None:
    model = resolve(kind)
    with pytest.raises(ModelError, match="takes planes"):
        embed(model, np.ones((5, 2, 3, 20, 20)), None, IDS, model.dimension(2, 1))


@KINDS
def test_another_number_than_the_network_gives(kind: str, resolve: Any) -> None:
    known = resolve(kind)
    dimension = known.dimension(2, 1)
    assert replace(known, embedding_dimension=dimension).dimension(2, 1) == dimension
    with pytest.raises(InputError, match=f"it gives {dimension} numbers, not embedding_dimension"):
        replace(known, embedding_dimension=dimension + 1).dimension(2, 1)
    each = resolve(kind, channels="each")
    assert replace(each, embedding_dimension=2 * dimension).dimension(2, 1) == 2 * dimension


# Weights


def test_weights_in_the_cache_are_found(
    resnet: tuple[Any, Path], vit: tuple[Any, Path], no_network: Path
) -> None:
    """As Hugging Face lays them out."""
    from safetensors.torch import save_file

    def repository(name: str) -> Path:
        folder = no_network / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("abc")
        (folder / "snapshots" / "abc").mkdir(parents=True)
        return folder / "snapshots" / "abc"

    hub = timm.get_pretrained_cfg(NAME).hf_hub_id
    save_file(resnet[0].state_dict(), repository(hub) / "model.safetensors")
    shutil.copytree(vit[1], repository("some/vit"), dirs_exist_ok=True)
    given = {f"timm:{NAME}": resnet[1], "transformers:some/vit": vit[1]}
    batch = windows(2)
    for name, weights in given.items():
        found, wanted = (
            embed(model, batch, None, IDS, model.dimension(2, 1))
            for model in (resolve_model(name), resolve_model(name, {"weights": str(weights)}))
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [f"timm:{NAME}", "transformers:some/vit"])
def test_nothing_is_fetched_unasked(name: str) -> None:
    with pytest.raises(InputError, match=r"not on this machine.*download: true"):
        resolve_model(name)
    with pytest.raises(InputError, match="not on this machine"):
        resolve_model(name, {"download": True}, fetch=False)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        (f"timm:{NAME}", {"channel": "each"}, "takes no 'channel'.*channels, weights, download"),
        (f"timm:{NAME}", {"channels": "all"}, "'all' is not allowed: mean, first3, each"),
        (f"timm:{NAME}", {"download": "yes"}, "download"),
        (f"timm:{NAME}", {"weights": "/nowhere"}, "there is no /nowhere"),
        (f"timm:{NAME}", {"weights": __file__, "device": "gpu"}, "device"),
        ("timm:nothing_like_it", {"weights": __file__}, "knows no model"),
        ("transformers:some/vit", {"weights": __file__}, "holds no model"),
        ("transformers:some/vit", {"weights": str(Path(__file__).parent)}, "holds no model"),
    ],
)
def test_bad_arguments(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_model(name, kwargs)


def test_weights_of_another_network(resnet: tuple[Any, Path], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"other.weight": torch.ones(3)}, path)
    model = resolve_model(f"timm:{NAME}", {"weights": str(path)})
    with pytest.raises(ModelError, match="cannot be loaded from"):
        embed(model, windows(2), None, IDS, model.dimension(2, 1))


# Transformers: what its models answer, and what stands beside them


def test_the_picture_processor_is_needed(vit: tuple[Any, Path], tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    shutil.copytree(vit[1], folder)
    kwargs = {"weights": str(folder)}
    write_processor(folder, size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    assert resolve_model("transformers:a/b", kwargs).adapter.wanted.size == (32, 32)
    write_processor(folder, size=32)
    assert resolve_model("transformers:a/b", kwargs).adapter.wanted.size == (32, 32)
    write_processor(folder, size=24)
    with pytest.raises(InputError, match=r"\(24, 24\).*doesn't match"):
        resolve_model("transformers:a/b", kwargs)
    write_processor(folder, image_mean=None)
    with pytest.raises(InputError, match="tells no size, image_mean and image_std"):
        resolve_model("transformers:a/b", kwargs)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"preprocessor_config\.json is missing"):
        resolve_model("transformers:a/b", kwargs)


def small_models() -> dict[str, Any]:
    t = transformers
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "image_size": 32,
        "patch_size": 8,
    }
    text = {**vision, "vocab_size": 50, "max_position_embeddings": 9}
    return {
        "dinov2": t.Dinov2Model(t.Dinov2Config(**vision)),
        "resnet": t.ResNetModel(
            t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
        ),
        "bert": t.BertModel(t.BertConfig(**text)),
        "clip": t.CLIPModel(
            t.CLIPConfig(
                vision_config=vision,
                text_config=text,
            )
        ),
    }


@pytest.mark.parametrize(("name", "dimension"), [("dinov2", 16), ("resnet", 12), ("clip", 16)])
def test_models_of_several_kinds(name: str, dimension: int, tmp_path: Path) -> None:
    small_models()[name].save_pretrained(tmp_path)
    write_processor(tmp_path)
    model = resolve_model("transformers:a/b", {"weights": str(tmp_path)})
    assert model.dimension(2, 1) == dimension
    found = embed(model, windows(2), None, IDS, dimension)
    assert len(np.unique(found, axis=0)) == 5


def test_a_model_of_texts_is_refused(tmp_path: Path) -> None:
    small_models()["bert"].save_pretrained(tmp_path)
    write_processor(tmp_path)
    with pytest.raises(InputError, match="cannot look at a picture alone"):
        resolve_model("transformers:a/b", {"weights": str(tmp_path)})
