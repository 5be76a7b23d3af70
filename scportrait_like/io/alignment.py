"""Where labels lie in an image, by the coordinate system that both are placed in.

Pixels are counted from 0 at the centre of the first one. An element's transformation takes such
coordinates to a coordinate system; all of spatialdata's transformations are affine.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.io.elements import full_resolution

Floats = NDArray[np.float64]

# What two pixels may lie apart and still be the same one, in pixels: rounding of the matrices.
TOLERANCE: Final = 1e-6
_AXES: Final = ("x", "y", "z")


def affine_to(element: Any, name: str, system: str) -> Floats:
    """The (4, 4) matrix from an element's pixels (x, y, z, 1) to a coordinate system (x, y, z, 1).

    Parameters
    ----------
    element
        Image or labels, single-scale or multi-scale, of two or three axes in space.
    name
        Its name, for messages.
    system
        The coordinate system.

    Raises
    ------
    InputError
        If the element is not placed in that system; the message lists those that it is placed in.
    """
    from spatialdata.transformations import get_transformation

    known = get_transformation(element, get_all=True)
    if system not in known:
        raise InputError(
            f"{name} is not placed in the coordinate system {system!r}, but in "
            f"{', '.join(map(repr, known)) or 'none'}: pass to_coordinate_system, or place it with "
            "spatialdata.transformations.set_transformation."
        )
    matrix = np.eye(4)
    try:
        matrix[:] = known[system].to_affine_matrix(_AXES, _AXES)
    except ValueError:
        # A section that is placed in a volume: it has no z of its own.
        try:
            matrix[:, [0, 1, 3]] = known[system].to_affine_matrix(("x", "y"), _AXES)
        except ValueError as error:
            raise InputError(
                f"{name}: its transformation to {system!r} is none of x, y and z: "
                f"{_described(known[system])} ({error})."
            ) from error
    if not np.isfinite(matrix).all():
        raise InputError(
            f"{name}: its transformation to {system!r} is not finite: {_described(known[system])}."
        )
    return matrix


def place_labels(
    image: Any, labels: Any, image_name: str, labels_name: str, system: str
) -> tuple[int, ...]:
    """Where the first pixel of labels lies in an image, in whole pixels.

    Parameters
    ----------
    image, labels
        Elements of two axes in space or both of three, single-scale or multi-scale; full
        resolution is meant.
    image_name, labels_name
        For messages.
    system
        The coordinate system in which they lie upon each other.

    Returns
    -------
    tuple of int
        ([z,] y, x) of the image's pixel under the labels' first one. All of the labels lie inside
        the image, each of their pixels on exactly one of the image's.

    Raises
    ------
    ShapeError
        If one lies in the plane and the other in space.
    InputError
        If their pixels do not lie upon each other so, whatever the reason; the message has both
        transformations.
    """
    inside, outside = (full_resolution(element).shape for element in (labels, image))
    if len(outside) - 1 != len(inside):
        raise ShapeError(
            f"{image_name} is an image of shape {outside}, but {labels_name} are labels of shape "
            f"{inside}: one in the plane (y, x), the other in space (z, y, x)."
        )
    matrices = [
        affine_to(image, image_name, system),
        affine_to(labels, labels_name, system),
    ]
    problem, start = _start(matrices[0], matrices[1], inside, outside[1:])
    if problem:
        raise InputError(
            f"{labels_name} and {image_name} do not lie pixel upon pixel in the coordinate system "
            f"{system!r}: {problem}. Transformation of {labels_name}: "
            f"{_described(_transformation(labels, system))}; of {image_name}: "
            f"{_described(_transformation(image, system))}. If these are right, bring one onto "
            "the pixels of the other first (spatialdata.rasterize, or a registration tool); if "
            "not, correct them (spatialdata.transformations.set_transformation)."
        )
    return start


def _start(
    image: Floats, labels: Floats, inside: tuple[int, ...], outside: tuple[int, ...]
) -> tuple[str, tuple[int, ...]]:
    """What is wrong, or "" and where labels of the shape `inside` begin in the shape `outside`."""
    try:
        relative = np.linalg.solve(image, labels)
    except np.linalg.LinAlgError:
        return "the image's transformation has no inverse", ()
    # The far side of the last pixel, so that the size of a single pixel counts; a plane has none.
    edges = [(0, edge) for edge in inside[::-1]] + [(0,)] * (3 - len(inside))
    corners = np.array(list(product(*edges)), np.float64)
    moved = corners @ relative[:3, :3].T + relative[:3, 3]
    shifts = moved - corners
    if not np.isfinite(shifts).all():
        return "the image's transformation has no inverse", ()
    if np.abs(shifts - shifts[0]).max() > TOLERANCE:
        return "they differ in pixel size, rotation, reflection, shear or order of axes", ()
    whole = np.rint(shifts[0])
    if np.abs(shifts - whole).max() > TOLERANCE:
        return f"they are shifted by part of a pixel, (x, y, z) = {_numbers(shifts[0])}", ()
    start = tuple(int(shift) for shift in whole[: len(inside)][::-1])
    fits = all(
        first >= 0 and first + edge <= full
        for first, edge, full in zip(start, inside, outside, strict=True)
    )
    if not fits or whole[len(inside) :].any():
        return (
            f"the labels, {inside} pixels that begin at (x, y, z) = {_numbers(whole)} of the "
            f"image, reach beyond the image of {outside} pixels"
        ), ()
    return "", start


def to_system(matrix: Floats, centers: Floats, axes: int) -> Floats:
    """Take pixel coordinates to a coordinate system.

    Parameters
    ----------
    matrix
        As of `affine_to`.
    centers
        (n, 3): z, y, x in pixels.
    axes
        How many axes the element has in space.

    Returns
    -------
    numpy.ndarray
        (n, axes): x, y and, of three, z, in the units of the coordinate system.
    """
    moved: Floats = centers[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
    return np.ascontiguousarray(moved[:, :axes])


def _transformation(element: Any, system: str) -> Any:
    from spatialdata.transformations import get_transformation

    return get_transformation(element, to_coordinate_system=system)


def _described(transformation: Any) -> str:
    return " ".join(repr(transformation).split())


def _numbers(values: Floats) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"
