"""Models of a user: good ones and bad ones, and what they were called with."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


def mean(batch, embedding_dimension: int = 3):
    return batch.mean(axis=(2, 3, 4))[:, :embedding_dimension]


def scaled(batch, factor, embedding_dimension, offset=0.0):
    return batch.mean(axis=(2, 3, 4)) * factor + offset


def of_mask(batch, mask, *, embedding_dimension):
    return mask.sum(axis=(2, 3, 4))


def anything(batch, **kwargs):
    return np.full((len(batch), kwargs["embedding_dimension"]), kwargs.get("value", 1.0))


def first_pixels(batch, embedding_dimension):
    """A view of the batch."""
    return batch.reshape(len(batch), -1)[:, :embedding_dimension]


def no_dimension(batch, size=3):
    return batch


def no_batch(*, embedding_dimension):
    return embedding_dimension


NOT_A_FUNCTION = 3


class AClass:
    def __call__(self, batch, embedding_dimension):
        return np.zeros((len(batch), embedding_dimension))


an_instance = AClass()


@dataclass(frozen=True)
class CountedAdapter:
    """Notes each loading, and each call's thread, in a folder."""

    folder: Path
    on_gpu: bool = False
    name: str = "counted"
    dimension: int | None = 2
    wants_mask: bool = False

    @property
    def identity(self) -> str:
        return f"counted in {self.folder}"

    def load(self) -> Any:
        self.note("load")

        def model(batch, *, embedding_dimension):
            self.note("call")
            return np.full((len(batch), embedding_dimension), batch.sum(axis=(1, 2, 3, 4))[:, None])

        return model

    def note(self, what: str) -> None:
        with (self.folder / what).open("a") as file:
            file.write(f"{os.getpid()} {threading.get_ident()}\n")

    def notes(self, what: str) -> list[tuple[int, int]]:
        lines = (self.folder / what).read_text().splitlines()
        return [tuple(map(int, line.split())) for line in lines]  # type: ignore[misc]


def make_counted(rest: str, kwargs: Mapping[str, Any]) -> CountedAdapter:
    return CountedAdapter(Path(rest), **kwargs)
