"""The model shape against scikit-image's properties of the whole label image."""

import numpy as np
import pytest
from skimage.measure import regionprops

from scportrait_like.models import embed, resolve_model
from scportrait_like.raster.heads import ModelHead
from scportrait_like.raster.instance_runs import InstanceRun
from scportrait_like.raster.sources import source_of

MODEL = resolve_model("shape")
NAMES = [name.removeprefix("m_") for name in MODEL.feature_names([], ["m"])]
ONLY_PLANES = {"eccentricity", "perimeter", "orientation"}


def run(masks):
    batch = np.zeros_like(masks, np.uint8)
    dimension = MODEL.dimension(1, masks.shape[1])
    return embed(MODEL, batch, masks, np.arange(len(masks)), dimension, "float64")


def oracle(labels, names):
    rows = [[float(region[name]) for name in names] for region in regionprops(labels)]
    return np.array(rows)


def test_a_tissue(image, labels):
    """Every cell of an image, through a run over windows that hold them whole."""
    labels, image = labels[:150, :200], image[:, :150, :200]
    head = ModelHead(MODEL, MODEL.dimension(3, 1), "float64")
    run = InstanceRun(source_of(labels[None]), source_of(image[:, None]), 150, head)
    found = run.find()
    assert len(found.ids) == 20
    rows = run.collect(found)["embedding"]
    wanted = oracle(labels.astype(np.int64), NAMES)
    np.testing.assert_allclose(rows, wanted, rtol=1e-12, atol=1e-12)


def test_volumes(rng):
    labels = np.zeros((8, 40, 60), np.int64)
    for label, corner in enumerate([(0, 0, 0), (1, 20, 4), (0, 10, 35)], 1):
        z, y, x = (slice(begin, begin + n) for begin, n in zip(corner, (6, 9, 12), strict=True))
        labels[z, y, x] = label * (rng.random((6, 9, 12)) < 0.7)
    masks = np.stack([labels[None] == label for label in (1, 2, 3)])
    there = [name for name in NAMES if name not in ONLY_PLANES]
    found = run(masks)
    np.testing.assert_allclose(
        found[:, [NAMES.index(name) for name in there]], oracle(labels, there), rtol=1e-12
    )
    assert np.isnan(found[:, [NAMES.index(name) for name in ONLY_PLANES]]).all()


@pytest.mark.parametrize("pixels", [[], [(3, 3)], [(3, 3), (3, 4)], [(2, 2), (3, 3), (4, 4)]])
@pytest.mark.parametrize("depth", [1, 3])
def test_small_ones(pixels, depth):
    masks = np.zeros((1, 1, depth, 8, 8), bool)
    for y, x in pixels:
        masks[0, 0, 0, y, x] = True
    row = dict(zip(NAMES, run(masks)[0], strict=True))
    assert row["area"] == len(pixels)
    if not pixels:
        assert np.isnan([value for name, value in row.items() if name != "area"]).all()
    else:
        assert np.isnan(row["solidity"]) == (depth > 1)
        assert row["extent"] > 0


def test_several_masks(windows):
    _, masks = windows(4, n_masks=2)
    assert MODEL.feature_names(["a"], ["nucleus", "cytosol"])[::11] == [
        "nucleus_area",
        "cytosol_area",
    ]
    found = run(masks)
    np.testing.assert_array_equal(found[:, :11], run(masks[:, :1]))
    np.testing.assert_array_equal(found[:, 11:], run(masks[:, 1:]))
