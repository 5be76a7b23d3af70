"""Models that must be fitted: the sample of windows that they are fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scportrait_like.models import ModelSpec
from scportrait_like.raster.instance_runs import Found, InstanceRun
from scportrait_like.raster.instance_statistics import WindowHead


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
    picked[np.random.default_rng(0).choice(n, min(n, model.fit_sample), replace=False)] = True
    windows = [
        replace(run, head=WindowHead(masks=model.wants_mask)).collect(found.take(rows))
        for (run, found), rows in zip(runs, np.split(picked, np.cumsum(counts)[:-1]), strict=True)
        if rows.any()
    ]
    images = np.concatenate([each["image"] for each in windows])
    masks = np.concatenate([each["masks"] for each in windows]) if model.wants_mask else None
    return model.fitted(images, masks, path)
