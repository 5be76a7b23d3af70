"""``timm:name`` and ``transformers:name``: pretrained vision models, of weights that the user has.

Windows are resized to the size that the model was trained on, and normalised as its config says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from scportrait_like.errors import InputError, ModelError
from scportrait_like.identity import digest, files_identity
from scportrait_like.models._adapters import Model
from scportrait_like.models._torch import (
    OPTIONS,
    Network,
    Scale,
    chosen,
    device_of,
    library,
    scale_of,
)

_OPTIONS: Final = {**OPTIONS, "channels": "mean", "weights": None, "download": False}
_CHANNELS: Final = ("mean", "first3", "each")
# Pictures that the network sees at once.
_AT_ONCE: Final = 64


class Wanted(NamedTuple):
    """What a network expects of its input: (y, x), and mean and deviation of each channel."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class VisionModel:
    """A pretrained vision model: an `Adapter`.

    Attributes
    ----------
    name
        As the user wrote it.
    weights
        A file of timm's, or a folder of transformers'.
    channels
        ``mean``, ``first3`` or ``each``: see `make_timm`.
    wanted
        The network's input.
    features
        Numbers that it gives a picture.
    device, scale, identity
        As in `TorchModel`.
    """

    name: str
    weights: str
    channels: str
    wanted: Wanted
    features: int
    device: str
    scale: Scale
    identity: str
    wants_mask: bool = False

    @property
    def dimension(self) -> int | None:
        """Numbers a window; with ``each`` it is `features` for each channel of the image."""
        return None if self.channels == "each" else self.features

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device != "cpu"

    def load(self) -> Model:
        """Load the network.

        Raises
        ------
        ModelError
            The weights are not those of such a model.
        """
        kind, _, model = self.name.partition(":")
        try:
            module = _LOADERS[kind](model, self.weights, self.name).to(self.device)
        except Exception as error:
            raise ModelError(
                f"model {self.name}: it cannot be loaded from {self.weights}: "
                f"{type(error).__name__}: {error}"
            ) from error
        module.eval().requires_grad_(False)
        pictures = Pictures(module, self.wanted, self.channels)
        return Network(pictures, self.device, self.scale)


@dataclass(frozen=True)
class Pictures:
    """Makes of windows (b, c, y, x) what a network wants, and of its answers rows."""

    module: Callable[[Any], Any]
    wanted: Wanted
    channels: str

    def __call__(self, windows: Any) -> Any:
        """Return (b, d), or (b, c * d) with ``each``."""
        if windows.ndim != 4:
            raise ValueError("a vision model takes planes, but the windows have more than one z")
        colours = len(self.wanted.mean)
        if self.channels == "first3":
            if windows.shape[1] < 3 or colours != 3:
                raise ValueError(
                    f"channels: first3 needs windows and a model of 3 channels or more, not of "
                    f"{windows.shape[1]} and {colours}"
                )
            return self._rows(windows[:, :3])
        n, c = windows.shape[:2]
        rows = self._rows(windows.reshape(n * c, 1, *windows.shape[2:])).reshape(n, c, -1)
        return rows.flatten(1) if self.channels == "each" else rows.mean(1)

    def _rows(self, pictures: Any) -> Any:
        torch = library("torch", "")
        found = [self.module(self._prepared(part)) for part in pictures.split(_AT_ONCE)]
        return torch.cat([rows.float().flatten(1) for rows in found])

    def _prepared(self, pictures: Any) -> Any:
        """Resize, repeat a single channel, normalise."""
        torch = library("torch", "")
        size = list(self.wanted.size)
        if list(pictures.shape[2:]) != size:
            pictures = torch.nn.functional.interpolate(
                pictures, size, mode="bilinear", align_corners=False, antialias=True
            )
        mean, std = (
            torch.tensor(each, device=pictures.device).reshape(-1, 1, 1)
            for each in (self.wanted.mean, self.wanted.std)
        )
        return (pictures - mean) / std  # a single channel is repeated by this


def make_timm(rest: str, kwargs: Mapping[str, Any]) -> VisionModel:
    """Make the adapter of ``timm:name``.

    Parameters
    ----------
    rest
        Name of a model of the package timm, such as ``vit_small_patch14_dinov2.lvd142m``.
    kwargs
        ``channels``: ``mean`` (default: each channel is a grey picture, and the embeddings are
        averaged), ``each`` (they are put side by side: give embedding_dimension), ``first3`` (the
        first three channels are red, green and blue). ``weights``: path of a file of the model's
        weights, those of its classes included; default: what the cache of Hugging Face holds of
        this name. ``download``: whether they may be fetched. ``device``, ``scale``: as for
        ``torch:``; the model expects pixels of 0 to 1.

    Raises
    ------
    MissingExtraError
        PyTorch or timm is not installed.
    InputError
        Other kwargs, no such model, or its weights are not here.
    """
    name = f"timm:{rest}"
    options = _checked(kwargs, name)
    timm, torch = library("timm", name, "vision"), library("torch", name)
    config = timm.get_pretrained_cfg(rest) if timm.is_model(rest) else None
    if config is None:
        raise InputError(f"model {name}: timm {timm.__version__} knows no model {rest!r}")
    weights = options["weights"]
    if weights is None:
        file = config.hf_hub_filename or "model.safetensors"
        weights = _from_hub(name, config.hf_hub_id, file, options["download"])
    with torch.device("meta"):
        module = timm.create_model(rest, pretrained=False, num_classes=0)
    data = timm.data.resolve_model_data_config(module)
    wanted = Wanted(tuple(data["input_size"][1:]), tuple(data["mean"]), tuple(data["std"]))
    return _adapter(name, weights, wanted, module, options)


def _load_timm(model: str, weights: str, name: str) -> Any:
    timm = library("timm", name, "vision")
    # With its classes, or timm would not mind weights that are missing.
    module = timm.create_model(model, pretrained=True, pretrained_cfg_overlay={"file": weights})
    module.reset_classifier(0)
    return module


def make_transformers(rest: str, kwargs: Mapping[str, Any]) -> VisionModel:
    """Make the adapter of ``transformers:name``.

    The embedding is the model's pooled output; where it has none the first token, or of a
    convolutional network the mean over the picture. Of a model of pictures and texts its vision
    part is taken.

    Parameters
    ----------
    rest
        Name of a model on the Hugging Face hub, such as ``facebook/dinov2-small``.
    kwargs
        As for `make_timm`; ``weights`` is a folder as ``save_pretrained`` writes it, the image
        processor's config included.

    Raises
    ------
    MissingExtraError
        PyTorch or transformers is not installed.
    InputError
        Other kwargs, no such model, or its weights are not here.
    """
    name = f"transformers:{rest}"
    options = _checked(kwargs, name)
    transformers, torch = library("transformers", name, "vision"), library("torch", name)
    weights = options["weights"] or _from_hub(name, rest, None, options["download"])
    try:
        config = transformers.AutoConfig.from_pretrained(weights, local_files_only=True)
        with torch.device("meta"):
            module = Pooled(transformers.AutoModel.from_config(config))
    except (OSError, ValueError) as error:
        raise InputError(f"model {name}: {weights} holds no model: {error}") from error
    return _adapter(name, weights, _image_processor(Path(weights), name), module, options)


def _load_transformers(model: str, weights: str, name: str) -> Any:
    transformers, torch = library("transformers", name, "vision"), library("torch", name)
    found = transformers.AutoModel.from_pretrained(
        weights, local_files_only=True, dtype=torch.float32
    )
    return Pooled(found)


class Pooled:
    """A model of transformers, as a function of pictures."""

    def __init__(self, model: Any) -> None:
        self._model = getattr(model, "vision_model", model)

    def to(self, device: str) -> Pooled:
        """Bring it to a device."""
        self._model.to(device)
        return self

    def eval(self) -> Any:
        """Switch off what is for training only."""
        return self._model.eval()

    def __call__(self, pictures: Any) -> Any:
        """Return (b, d)."""
        found = self._model(pixel_values=pictures)
        pooled = getattr(found, "pooler_output", None)
        if pooled is not None:
            return pooled
        last = found.last_hidden_state
        return last[:, 0] if last.ndim == 3 else last.mean((2, 3))


def _image_processor(folder: Path, name: str) -> Wanted:
    """Read how the pictures were prepared that a model of transformers was trained on."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        raise InputError(f"model {name}: {file} is missing, which tells size, mean and deviation")
    found = json.loads(file.read_text())
    size = found.get("crop_size") or found.get("size")
    if not isinstance(size, dict):
        size = {"shortest_edge": size}
    edges: list[Any] = [size.get(key) or size.get("shortest_edge") for key in ("height", "width")]
    mean, std = found.get("image_mean"), found.get("image_std")
    if not mean or not std or not all(edges):
        raise InputError(f"model {name}: {file} tells no size, image_mean and image_std")
    return Wanted((edges[0], edges[1]), tuple(mean), tuple(std))


_LOADERS: Final = {"timm": _load_timm, "transformers": _load_transformers}


def _checked(kwargs: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The user's kwargs over the defaults; ``weights`` is there, if given."""
    options = chosen(kwargs, _OPTIONS, name)
    if options["channels"] not in _CHANNELS:
        raise InputError(
            f"model {name}: channels {options['channels']!r} is not allowed: {', '.join(_CHANNELS)}"
        )
    if not isinstance(options["download"], bool):
        raise InputError(f"model {name}: download must be true or false")
    if options["weights"] is not None:
        path = Path(options["weights"]).expanduser().absolute()
        if not path.exists():
            raise InputError(f"model {name}: weights: there is no {path}")
        options["weights"] = str(path)
    return options


def _from_hub(name: str, repository: str | None, file: str | None, download: bool) -> str:
    """Path of a file of a repository in the cache of Hugging Face, or of its snapshot's folder."""
    hub = library("huggingface_hub", name, "vision")
    if repository is None:
        raise InputError(f"model {name}: it has no weights of its own; give weights, their path")
    try:
        if file is not None:
            return str(hub.hf_hub_download(repository, file, local_files_only=not download))
        patterns = ["*.json", "*.safetensors"]
        found = hub.snapshot_download(
            repository, allow_patterns=patterns, local_files_only=not download
        )
        return str(found)
    except (OSError, ValueError) as error:  # what the hub raises derives from these
        raise InputError(
            f"model {name}: its weights ({repository} on the Hugging Face hub) are not on this "
            "machine. In model_kwargs give weights, their path, or download: true "
            f"({type(error).__name__})"
        ) from error


def _adapter(
    name: str, weights: str, wanted: Wanted, module: Any, options: Mapping[str, Any]
) -> VisionModel:
    device, scale = device_of(options["device"], name), scale_of(options["scale"], name)
    channels = options["channels"]
    state = files_identity(Path(weights))
    return VisionModel(
        name=name,
        weights=weights,
        channels=channels,
        wanted=wanted,
        features=_features(name, module, wanted),
        device=device,
        scale=scale,
        identity=digest(name, state, channels, wanted, device, scale),
    )


def _features(name: str, module: Any, wanted: Wanted) -> int:
    """Numbers that a network makes of a picture: found without weights and pixels."""
    torch = library("torch", name)
    picture = torch.empty((1, len(wanted.mean), *wanted.size), device="meta")
    module.eval()
    try:
        with torch.inference_mode():
            return int(module(picture).flatten(1).shape[1])
    except Exception as error:
        raise InputError(
            f"model {name}: it cannot look at a picture alone, {wanted.size}: {error}"
        ) from error
