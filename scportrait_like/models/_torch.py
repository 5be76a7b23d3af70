"""``torch:path/to/model.pt``: TorchScript files and exported programs as models.

`Network` and the functions below serve the vision models too. PyTorch is imported where a model is
made or loaded, and nowhere else.
"""

from __future__ import annotations

import importlib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError, MissingExtraError, ModelError
from scportrait_like.identity import digest, files_identity
from scportrait_like.models._adapters import Model

# How pixels become float32: "dtype", "none", or the values that become 0 and 1.
Scale = str | tuple[float, float]

# model_kwargs that any network takes, and their defaults.
OPTIONS: Final = {"device": "auto", "scale": "dtype"}


@dataclass(frozen=True)
class TorchModel:
    """A network in a file: an `Adapter`.

    Attributes
    ----------
    name
        As the user wrote it.
    path
        Of the file.
    exported
        Whether it is an exported program; else it is TorchScript.
    device
        Where it runs: ``cpu``, ``mps``, ``cuda`` or ``cuda:0`` and so on.
    scale
        See `Scale`.
    identity
        The file's state, and all of these.
    """

    name: str
    path: str
    exported: bool
    device: str
    scale: Scale
    identity: str
    dimension: int | None = None
    wants_mask: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device != "cpu"

    def load(self) -> Model:
        """Load the network.

        Raises
        ------
        ModelError
            PyTorch cannot load the file, or the program takes batches of one size only.
        """
        torch = library("torch", self.name)
        try:
            module = self._exported(torch) if self.exported else self._script(torch)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"model {self.name}: torch {torch.__version__} cannot load it: "
                f"{type(error).__name__}: {error}"
            ) from error
        return Network(module, self.device, self.scale)

    def _script(self, torch: Any) -> Any:
        return torch.jit.load(self.path, map_location=self.device).eval()

    def _exported(self, torch: Any) -> Any:
        program = torch.export.load(self.path)
        taken = program.graph_signature.user_inputs
        shapes = {
            node.name: node.meta["val"].shape
            for node in program.graph.nodes
            if node.op == "placeholder" and node.name in taken
        }
        if len(shapes) != 1 or isinstance(next(iter(shapes.values()))[0], int):
            raise ModelError(
                f"model {self.name}: it was exported for inputs {[*map(tuple, shapes.values())]}; "
                "wanted is one input whose first dimension may have any length: "
                "torch.export.export(model, (windows,), dynamic_shapes=({0: Dim.DYNAMIC},))"
            )
        passes = importlib.import_module("torch.export.passes")
        return passes.move_to_device_pass(program, self.device).module()


def make(rest: str, kwargs: Mapping[str, Any]) -> TorchModel:
    """Make the adapter of ``torch:path``.

    A network gets float32 (b, c, y, x), of volumes (b, c, z, y, x). It returns (b, d); from further
    axes, as in (b, d, 1, 1), a row a window is made.

    Parameters
    ----------
    rest
        Path of a TorchScript file (``torch.jit.save``) or an exported program
        (``torch.export.save``).
    kwargs
        ``device``: ``auto`` (default: ``cuda`` where there is one, else ``cpu``), ``cpu``,
        ``cuda``, ``cuda:0`` and so on, ``mps``. ``scale``: ``dtype`` (default: the dtype's largest
        value becomes 1; floating-point pixels stay as they are), ``none``, or [lo, hi], which
        become 0 and 1.

    Raises
    ------
    MissingExtraError
        PyTorch is not installed.
    InputError
        Other kwargs, no such file or device, or a file of another kind.
    """
    name = f"torch:{rest}"
    options = chosen(kwargs, OPTIONS, name)
    path = Path(rest).expanduser().absolute()
    exported = _is_exported(path, name)
    device, scale = device_of(options["device"], name), scale_of(options["scale"], name)
    identity = digest("torch", files_identity(path), device, scale)
    return TorchModel(name, str(path), exported, device, scale, identity)


def _is_exported(path: Path, name: str) -> bool:
    """Whether a file is an exported program; False: it is TorchScript."""
    if not path.is_file():
        raise InputError(f"model {name}: there is no file {path}")
    held = set()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            held = {entry.rpartition("/")[2] for entry in archive.namelist()}
    if held & {"archive_format", "serialized_exported_program.json"}:
        return True
    if "constants.pkl" in held:
        return False
    pickled = " (it holds weights or a pickled module, which need their Python code)"
    raise InputError(
        f"model {name}: {path} is neither an exported program nor TorchScript"
        f"{pickled if 'data.pkl' in held else ''}; write it by torch.export.save or torch.jit.save"
    )


# What vision models need as well


def library(module: str, name: str, extra: str = "torch") -> Any:
    """Import an optional library for a model.

    Raises
    ------
    MissingExtraError
        It is not installed, or does not work.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'model {name} needs the package {module}: pip install "scportrait-like[{extra}]" '
            f"({error})"
        ) from error


def chosen(kwargs: Mapping[str, Any], defaults: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Take the user's kwargs over defaults, and refuse others."""
    if unknown := [key for key in kwargs if key not in defaults]:
        raise InputError(
            f"model {name}: it takes no {', '.join(map(repr, unknown))} in model_kwargs; it takes "
            f"{', '.join(defaults)}"
        )
    return {**defaults, **kwargs}


def device_of(wanted: Any, name: str) -> str:
    """Return the device that is meant, if this machine has it."""
    torch = library("torch", name)
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if wanted == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", str(wanted)):
        raise InputError(
            f"model {name}: device {wanted!r} is not allowed: auto, cpu, cuda, cuda:0, ... or mps"
        )
    kind, _, number = str(wanted).partition(":")
    if int(number or 0) >= there[kind]:
        raise InputError(
            f"model {name}: there is no device {wanted} on this machine; it has "
            f"{', '.join(f'{count} {kind}' for kind, count in there.items() if count)}"
        )
    return str(wanted)


def scale_of(wanted: Any, name: str) -> Scale:
    """Check how pixels become float32."""
    if wanted in ("dtype", "none"):
        return str(wanted)
    if isinstance(wanted, (list, tuple)) and len(wanted) == 2:
        numbers = [v for v in wanted if isinstance(v, (int, float)) and np.isfinite(v)]
        if len(numbers) == 2 and numbers[0] < numbers[1]:
            return float(numbers[0]), float(numbers[1])
    raise InputError(
        f"model {name}: scale {wanted!r} is not allowed: dtype, none, or two numbers [lo, hi]"
    )


@dataclass(frozen=True)
class Network:
    """A loaded network: takes windows as numpy arrays, gives rows.

    Attributes
    ----------
    forward
        Tensor (b, c, [z,] y, x) float32 on `device` -> tensor with a first axis b.
    device, scale
        As in `TorchModel`.
    """

    forward: Callable[[Any], Any]
    device: str
    scale: Scale

    def __call__(
        self, batch: NDArray[Any], *, mask: NDArray[Any] | None = None, embedding_dimension: int
    ) -> NDArray[Any]:
        """Run the network on windows (b, c, z, y, x)."""
        torch = importlib.import_module("torch")
        if batch.shape[2] == 1:
            batch = batch[:, :, 0]
        with torch.inference_mode(), _one_thread(torch, self.device):
            found = self.forward(_tensor(torch, batch, self.device, self.scale))
            if not isinstance(found, torch.Tensor):
                raise TypeError(f"it returned a {type(found).__name__}, wanted is one tensor")
            if found.is_floating_point():
                found = found.float()  # numpy knows no bfloat16
            rows: NDArray[Any] = found.flatten(1).cpu().numpy() if found.ndim else found.numpy()
            return rows


def _tensor(torch: Any, batch: NDArray[Any], device: str, scale: Scale) -> Any:
    """Bring pixels to the device as float32; to a GPU by pinned memory, without waiting."""
    pinned = device.startswith("cuda")
    tensor = torch.empty(batch.shape, dtype=torch.float32, pin_memory=pinned)
    values = tensor.numpy()
    np.copyto(values, batch, casting="unsafe")
    if scale == "dtype":
        if batch.dtype.kind in "iu":
            values *= np.float32(1 / np.iinfo(batch.dtype).max)
    elif isinstance(scale, tuple):
        values -= np.float32(scale[0])
        values *= np.float32(1 / (scale[1] - scale[0]))
    return tensor.to(device, non_blocking=pinned)


@contextmanager
def _one_thread(torch: Any, device: str) -> Iterator[None]:
    """Compute in the calling thread only: workers share the cores already.

    PyTorch keeps this number for each thread, and another for threads that begin later; both are
    put back.
    """
    if device != "cpu":
        yield
        return
    # A thread takes the common number at its first look, which must not come after ours is set.
    _threads.append(torch.get_num_threads())
    del _threads[1:]
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_threads[0])


# Threads that PyTorch had when a model was first called here.
_threads: list[int] = []
