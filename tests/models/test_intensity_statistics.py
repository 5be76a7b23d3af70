"""The model intensity_statistics against numpy, cell by cell."""

import numpy as np
import pytest

from scportrait_like.models import embed, resolve_model

DTYPES = ["?", "u1", "i1", "u2", "i2", ">u2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", ">f4"]
MODEL = resolve_model("intensity_statistics")


def run(batch, masks, dtype="float64"):
    dimension = MODEL.dimension(batch.shape[1], masks.shape[1])
    return embed(MODEL, batch, masks, np.arange(len(batch)), dimension, dtype)


def oracle(batch, masks):
    """Straight from the definitions."""
    rows = []
    for cell, own in zip(batch, masks, strict=True):
        regions = [*own, own[0] ^ own[1]] if len(own) == 2 else list(own)
        row = [float(region.sum()) for region in regions]
        for channel in cell:
            for region in regions:
                pixels = channel[region].astype(np.float64)
                if not len(pixels):
                    row += [np.nan] * 4 + [0.0, np.nan]
                    continue
                high, low = np.quantile(pixels, 0.75), np.quantile(pixels, 0.25)
                total = pixels.sum()
                row += [pixels.mean(), np.median(pixels), high, low, total, total / len(pixels)]
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("depth", "n_masks"), [(1, 1), (1, 2), (3, 1), (2, 3)])
def test_equals_numpy(windows, dtype, depth, n_masks):
    plain = dtype.replace(">", "")
    batch, masks = windows(9, channels=3, depth=depth, n_masks=n_masks, dtype=plain)
    wanted = oracle(batch, masks)
    scale = np.abs(batch.astype(np.float64)).max() * batch[0, 0].size
    found = run(batch.astype(dtype), masks)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14 * scale)
    single = run(batch.astype(dtype), masks, "float32")
    np.testing.assert_allclose(single, wanted, rtol=1e-6, atol=1e-7 * scale)


def test_names_and_their_order():
    assert MODEL.feature_names(["DNA"], ["cytosol"]) == [
        "cytosol_area",
        "DNA_mean_cytosol",
        "DNA_median_cytosol",
        "DNA_quant75_cytosol",
        "DNA_quant25_cytosol",
        "DNA_summed_intensity_cytosol",
        "DNA_summed_intensity_area_normalized_cytosol",
    ]
    two = MODEL.feature_names(["DNA", "CD3"], ["nucleus", "cytosol"])
    assert two[:3] == ["nucleus_area", "cytosol_area", "cytosol_only_area"]
    assert two[3] == "DNA_mean_nucleus"
    assert two[15] == "DNA_mean_cytosol_only"
    assert two[21] == "CD3_mean_nucleus"
    assert len(two) == MODEL.dimension(2, 2) == 3 + 2 * 3 * 6


def test_the_third_mask_is_where_two_differ(windows):
    """Also pixels of the nucleus outside of the cytosol, as in scPortrait."""
    batch = np.ones((1, 1, 1, 4, 4), np.uint8)
    masks = np.zeros((1, 2, 1, 4, 4), bool)
    masks[0, 0, 0, 0, :3] = True
    masks[0, 1, 0, 0, 2:] = True
    assert run(batch, masks)[0, :3].tolist() == [3, 2, 3]


def test_no_pixels(windows):
    batch, masks = windows(3)
    row = dict(zip(MODEL.feature_names(["a", "b"], ["m"]), run(batch, masks)[0], strict=True))
    assert row["m_area"] == row["a_summed_intensity_m"] == row["b_summed_intensity_m"] == 0
    others = [value for name, value in row.items() if "area" not in name and "summed" not in name]
    assert len(others) == 8
    assert np.isnan([*others, row["a_summed_intensity_area_normalized_m"]]).all()


def test_all_empty(windows):
    batch, masks = windows(3)
    assert np.isnan(run(batch, np.zeros_like(masks))[:, 1]).all()


def test_nan_stays_with_its_cell_and_channel(windows):
    batch, masks = windows(4, dtype="f4")
    batch[1, 0, 0, 3, 3] = np.nan
    found, clean = run(batch, masks), run(np.nan_to_num(batch), masks)
    assert np.isnan(found[1, 1:7]).all()
    found[1, 1:7] = clean[1, 1:7]
    np.testing.assert_array_equal(found, clean)


def test_infinity(windows):
    batch, masks = windows(2, channels=1, dtype="f4")
    batch[1] = np.inf
    area, *values = run(batch, masks)[1]
    assert area == 144
    assert values == [np.inf] * 6


def test_pixels_outside_of_the_mask_do_not_matter(windows):
    batch, masks = windows(5)
    np.testing.assert_array_equal(run(batch, masks), run(batch * masks, masks))


def test_no_kwargs_and_no_other_dimension():
    with pytest.raises(ValueError, match="it takes no 'q' of model_kwargs"):
        resolve_model("intensity_statistics", {"q": 0.5})
    wrong = resolve_model("intensity_statistics", embedding_dimension=64)
    with pytest.raises(ValueError, match="it gives 13 numbers for 2 channels and 1 masks, not"):
        wrong.dimension(2, 1)
    assert resolve_model("intensity_statistics", embedding_dimension=13).dimension(2, 1) == 13
