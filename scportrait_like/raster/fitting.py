"""Models that must be fitted: the sample of windows that they are fitted on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.models import ModelSpec
from scportrait_like.raster.instance_runs import Found, InstanceRun
from scportrait_like.raster.instance_statistics import WindowHead

logger = logging.getLogger(__name__)

# A model is fitted on so many bytes of windows at most, or on as few windows as it can be.
SAMPLE_BYTES: Final = 256 << 20
_SEED: Final = 42


def fit_model(
    model: ModelSpec, runs: Sequence[tuple[InstanceRun, Found]], path: Path | None = None
) -> ModelSpec:
    """Fit a model on a sample of the labels of some images, always the same of the same labels.

    Parameters
    ----------
    model
        One that needs no fitting is returned as it is, and so is any where there are no labels.
    runs
        What cuts the windows of each image, and its labels; the runs' heads are not asked. All
        images have the same channels.
    path
        Of the file that keeps the result; None: it is kept in the spec.

    Raises
    ------
    InputError
        There are too few labels.
    """
    counts = [len(found.ids) for _, found in runs]
    n = sum(counts)
    if not model.fit_sample or not n:
        return model
    picked = np.zeros(n, np.bool_)
    first = runs[0][0]
    dimension = model.dimension(len(first.taken), 1)
    picked[sample_rows(model, n, first.window_bytes, dimension)] = True
    windows = [
        replace(run, head=WindowHead(masks=model.wants_mask)).collect(found.take(rows))
        for (run, found), rows in zip(runs, np.split(picked, np.cumsum(counts)[:-1]), strict=True)
        if rows.any()
    ]
    images = np.concatenate([each["image"] for each in windows])
    masks = np.concatenate([each["masks"] for each in windows]) if model.wants_mask else None
    return model.fitted(images, masks, path)


def sample_rows(model: ModelSpec, n: int, window_bytes: int, dimension: int) -> NDArray[np.int64]:
    """Rows, of n, that a model is fitted on, ascending: always the same, whatever the memory.

    They are more than the `dimension` numbers that it makes of a window, however large windows are.
    """
    wanted = min(model.fit_sample, n)
    count = min(wanted, max(2, dimension + 1, SAMPLE_BYTES // window_bytes))
    if count < wanted:
        logger.info(
            "model %s is fitted on %d cells instead of %d: their windows take %d MB",
            model.name,
            count,
            wanted,
            count * window_bytes >> 20,
        )
    return np.sort(np.random.default_rng(_SEED).choice(n, count, replace=False))
