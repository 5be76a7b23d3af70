"""The section that ships with scikit-image: its stains, and a simple segmentation of its nuclei."""

# mypy: allow-untyped-calls
# scikit-image declares its types only in part.

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from scportrait_like.run.durable import committed

CHANNELS: Final = ("hematoxylin", "dab", "residual")
# The picture's source gives no scale. Nuclei of colon epithelium are 8 to 10 µm long and are 20
# pixels here.
PIXEL_SIZE: Final = 0.45  # µm
_SMALLEST: Final = 50  # pixels; less is debris


def separate_stains() -> npt.NDArray[np.uint16]:
    """Separate the picture's colours into stains.

    Colour deconvolution after Ruifrok and Johnston (2001), with the vectors of hematoxylin and DAB:
    there is no eosin in this section, and the third channel is what the two stains do not explain.

    Returns
    -------
    numpy.ndarray
        (3, 512, 512) uint16, each channel stretched from its minimum to its 99.9th percentile.
    """
    from skimage import color, data

    stains = color.separate_stains(data.immunohistochemistry(), color.hdx_from_rgb)
    planes = np.moveaxis(stains, -1, 0)
    high = np.percentile(planes, 99.9, axis=(1, 2), keepdims=True)
    image: npt.NDArray[np.uint16] = (np.clip(planes / high, 0, 1) * 65535).round().astype(np.uint16)
    return image


def segment_nuclei(
    hematoxylin: npt.NDArray[np.uint16], dab: npt.NDArray[np.uint16]
) -> npt.NDArray[np.uint32]:
    """Segment the nuclei: local threshold, distance transform, watershed.

    Parameters
    ----------
    hematoxylin, dab
        (y, x) uint16. The membranes are brown, and part nuclei that hematoxylin alone would join.

    Returns
    -------
    numpy.ndarray
        (y, x) uint32, 1..n.
    """
    from scipy import ndimage
    from skimage import feature, filters, measure, morphology, segmentation

    blue, brown = hematoxylin / 65535, dab / 65535
    membrane = np.maximum(brown - filters.gaussian(brown, 6), 0)
    parted = filters.gaussian(blue - 1.2 * membrane, 1.2)
    # Epithelium is stained more weakly than stroma, so a nucleus is what is bluer than its
    # surroundings.
    surroundings = filters.gaussian(parted, 14)
    stained = filters.gaussian(blue, 1.5) > 0.14
    inside = morphology.opening((parted > 1.1 * surroundings) & stained, morphology.disk(2))
    inside = ndimage.binary_fill_holes(inside)
    depth = np.minimum(ndimage.distance_transform_edt(inside), 6) / 6
    score = filters.gaussian(depth, 1) + 0.75 * filters.gaussian(parted, 2) / (surroundings + 0.05)
    peaks = feature.peak_local_max(
        score, min_distance=6, labels=measure.label(inside), exclude_border=False
    )
    markers = np.zeros(inside.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    nuclei = segmentation.watershed(-score, markers, mask=inside)
    areas = np.bincount(nuclei.ravel())
    nuclei[areas[nuclei] < _SMALLEST] = 0
    labels: npt.NDArray[np.uint32] = segmentation.relabel_sequential(nuclei)[0].astype(np.uint32)
    return labels


def immunohistochemistry() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32], list[str]]:
    """Return a real section: colon, stained with hematoxylin and DAB (FHL2).

    The picture ships with scikit-image (:func:`skimage.data.immunohistochemistry`). Its colours are
    separated into stains, and the nuclei are segmented simply, as a mask to work with.

    Returns
    -------
    image
        (3, 512, 512) uint16.
    labels
        (512, 512) uint32, 1..n.
    channel_names
        "hematoxylin", "dab", "residual" (what these two stains do not explain).
    """
    image = separate_stains()
    return image, segment_nuclei(image[0], image[1]), list(CHANNELS)


def demo_files(directory: str | Path) -> tuple[Path, Path]:
    """Write the section of :func:`immunohistochemistry` as files, as a user would have them.

    Files that are there are left alone.

    Parameters
    ----------
    directory
        Created if absent.

    Returns
    -------
    image, labels
        ``image.ome.tif`` (c, y, x; OME channel names and pixel size) and ``labels.tif`` (y, x).
    """
    import tifffile

    folder = Path(directory)
    paths = folder / "image.ome.tif", folder / "labels.tif"
    if all(path.exists() for path in paths):
        return paths
    image, labels, names = immunohistochemistry()
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": names},
        "PhysicalSizeX": PIXEL_SIZE,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": PIXEL_SIZE,
        "PhysicalSizeYUnit": "µm",
    }
    with committed(paths[0]) as file:
        tifffile.imwrite(file, image, photometric="minisblack", metadata=metadata, ome=True)
    with committed(paths[1]) as file:
        tifffile.imwrite(file, labels, compression="zlib")
    return paths
