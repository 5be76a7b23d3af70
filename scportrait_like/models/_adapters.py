"""What stands behind a model's name: adapters that travel to the workers and load there."""

from __future__ import annotations

from typing import Any, Final, Protocol

from numpy.typing import ArrayLike, NDArray

# What makes an adapter, ``make(rest, kwargs) -> Adapter``, by what stands before the colon of a
# model's name; rest is what stands behind it.
PREFIXES: Final = {
    "torch": "scportrait_like.models._torch:make",
    "timm": "scportrait_like.models._vision:make_timm",
    "transformers": "scportrait_like.models._vision:make_transformers",
}


class Model(Protocol):
    """A loaded model.

    It may return anything that numpy can view as an array of shape (b, embedding_dimension), also
    a view of the batch: the result is copied.
    """

    def __call__(
        self, batch: NDArray[Any], *, mask: NDArray[Any] | None = None, embedding_dimension: int
    ) -> ArrayLike:
        """Make something of windows.

        Parameters
        ----------
        batch : (b, c, z, y, x), dtype of the image
        mask : (b, m, z, y, x) bool, or None
            Where the cell is; given where the adapter wants it.
        embedding_dimension
            Numbers wanted a window.
        """


class Adapter(Protocol):
    """Knows how to load a model: a frozen dataclass of small values that pickles.

    Worker processes get it, and load the model once. Where ``on_gpu`` is true, all calls in a
    process come from one thread; else several threads may call the loaded model at once.
    """

    @property
    def name(self) -> str:
        """What the model is called in messages, as the user wrote it."""

    @property
    def dimension(self) -> int | None:
        """Numbers that the model gives a window; None where it does not know without loading."""

    @property
    def on_gpu(self) -> bool:
        """Whether the model runs on a GPU."""

    @property
    def wants_mask(self) -> bool:
        """Whether the loaded model looks at ``mask``."""

    @property
    def identity(self) -> str:
        """What its results depend on, as one string: name, arguments, the state of its files.

        Equal strings mean equal results: the model is loaded once a process for each, and a
        stored run whose string differs is stale. The device belongs here: another one rounds
        otherwise.
        """

    def load(self) -> Model:
        """Load the model; heavy imports belong here."""
