"""Where labels lie in an image: exactly, or refused, whatever the transformations."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from spatialdata.models import Image2DModel, Image3DModel, Labels2DModel, Labels3DModel
from spatialdata.transformations import (
    Affine,
    Identity,
    MapAxis,
    Scale,
    Sequence,
    Translation,
)

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.io.alignment import affine_to, place_labels, to_system

AXES = ("x", "y", "z")


def image_of(shape: tuple[int, ...], transformation: Any, system: str = "global") -> Any:
    model = Image2DModel if len(shape) == 2 else Image3DModel
    return model.parse(np.zeros((1, *shape), np.uint8), transformations={system: transformation})


def labels_of(
    shape: tuple[int, ...], transformation: Any, system: str = "global", **options: Any
) -> Any:
    model = Labels2DModel if len(shape) == 2 else Labels3DModel
    return model.parse(
        np.zeros(shape, np.uint16), transformations={system: transformation}, **options
    )


def matrix(transformation: Any) -> Any:
    """By spatialdata itself."""
    return transformation.to_affine_matrix(AXES, AXES)


def brute_force(
    image: Any, labels: Any, outside: tuple[int, ...], inside: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Send every corner of every labels pixel to the image; None unless it is a corner there."""
    n = len(inside)
    start = None
    back = np.linalg.inv(matrix(image)) @ matrix(labels)
    for pixel in product(*(range(edge + 1) for edge in inside)):
        point = np.zeros(4)
        point[3] = 1
        point[:n] = pixel[::-1]
        found = (back @ point)[:3]
        whole = np.rint(found)
        if np.abs(found - whole).max() > 1e-6 or whole[n:].any():
            return None
        found_zyx = tuple(int(v) for v in whole[:n][::-1])
        start = start or found_zyx
        if found_zyx != tuple(a + b for a, b in zip(start, pixel, strict=True)):
            return None
    assert start is not None
    fits = all(s >= 0 and s + i <= o for s, i, o in zip(start, inside, outside, strict=True))
    return start if fits else None


def random_step(rng: np.random.Generator) -> Any:
    kind = rng.integers(7)
    if kind == 0:
        return Identity()
    if kind <= 2:
        return Translation(rng.integers(-3, 4, 3).astype(float), axes=AXES)
    if kind == 3:
        return Scale(rng.choice([0.5, 1, 2, -1], 3, p=[0.2, 0.5, 0.2, 0.1]), axes=AXES)
    if kind == 4:
        return MapAxis({"x": "y", "y": "x"})
    if kind == 5:
        angle = rng.choice([0, np.pi / 2, np.pi, 0.3])
        c, s = np.cos(angle), np.sin(angle)
        return Affine(
            [[c, -s, 1], [s, c, -2], [0, 0, 1]], input_axes=AXES[:2], output_axes=AXES[:2]
        )
    return Translation([float(rng.choice([0.5, 1, 1e-8]))], axes=("x",))


@pytest.mark.parametrize("seed", range(8))
def test_random_transformations(seed: int) -> None:
    """Parts of their own and one in common: found where brute force finds it, else refused."""
    rng = np.random.default_rng(seed)
    accepted = 0
    for _ in range(150):
        n = int(rng.integers(2, 4))
        inside = tuple(int(v) for v in rng.integers(1, 4, n))
        outside = tuple(int(v) for v in np.array(inside) + rng.integers(0, 6, n))
        common = [random_step(rng) for _ in range(rng.integers(0, 3))]
        own = []
        for _ in range(2):
            steps = [random_step(rng) for _ in range(rng.integers(0, 2))]
            if n == 2:
                steps.append(Translation([0.0], axes=("z",)))
            own.append(Sequence([*steps, *common, Identity()]))
        shift = Translation(rng.integers(0, 4, n).astype(float), axes=AXES[:n])
        image_to, labels_to = own[0], Sequence([shift, own[1]])
        expected = brute_force(image_to, labels_to, outside, inside)
        image, labels = image_of(outside, image_to), labels_of(inside, labels_to)
        if expected is None:
            with pytest.raises(InputError, match="pixel upon pixel"):
                place_labels(image, labels, "image", "labels", "global")
        else:
            accepted += 1
            assert place_labels(image, labels, "image", "labels", "global") == expected
    assert accepted >= 20


def test_a_window_of_a_large_image_in_micrometers() -> None:
    pixel = Scale([0.325, 0.325], axes=("x", "y"))
    far = Translation([12345.678, -98765.4321], axes=("x", "y"))
    image = image_of((900, 1000), Sequence([pixel, far]))
    moved = Translation([701.0, 123.0], axes=("x", "y"))
    labels = labels_of((50, 60), Sequence([moved, pixel, far]), scale_factors=[2])
    assert place_labels(image, labels, "image", "labels", "global") == (123, 701)


def test_the_same_rotation_of_both_is_none() -> None:
    turn = Affine(
        [[0.6, -0.8, 3], [0.8, 0.6, 5], [0, 0, 1]], input_axes=AXES[:2], output_axes=AXES[:2]
    )
    image = image_of((20, 30), turn)
    labels = labels_of((5, 6), Sequence([Translation([7, 2], axes=("x", "y")), turn]))
    assert place_labels(image, labels, "image", "labels", "global") == (2, 7)


@pytest.mark.parametrize(
    ("image_to", "labels_to", "why"),
    [
        (Identity(), Scale([2, 2], axes=("x", "y")), "differ in pixel size"),
        (Identity(), Scale([1 + 1e-5], axes=("x",)), "differ in pixel size"),
        (Identity(), Scale([-1], axes=("x",)), "differ in pixel size, rotation, reflection"),
        (Identity(), MapAxis({"x": "y", "y": "x"}), "order of axes"),
        (Identity(), Translation([0.5], axes=("y",)), r"part of a pixel, \(x, y, z\) = \(0, 0.5"),
        (Identity(), Translation([-1], axes=("y",)), "reach beyond the image"),
        (Identity(), Translation([3], axes=("z",)), "reach beyond the image"),
        (Translation([1], axes=("x",)), Identity(), "reach beyond the image"),
        (Scale([0], axes=("x",)), Identity(), "no inverse"),
        (
            Identity(),
            Affine([[1, 0.1, 0], [0, 1, 0], [0, 0, 1]], AXES[:2], AXES[:2]),
            "shear",
        ),
    ],
)
def test_what_is_refused_and_why(image_to: Any, labels_to: Any, why: str) -> None:
    image, labels = image_of((12, 12), image_to), labels_of((12, 12), labels_to)
    with pytest.raises(InputError, match=why) as caught:
        place_labels(image, labels, "my_image", "my_labels", "global")
    message = str(caught.value)
    for part in ("my_image", "my_labels", "'global'", "set_transformation"):
        assert part in message
    for transformation in (image_to, labels_to):
        assert " ".join(repr(transformation).split()) in message


def test_one_pixel_of_another_size_is_refused() -> None:
    image = image_of((4, 4), Identity())
    labels = labels_of((1, 1), Scale([2, 2], axes=("x", "y")))
    with pytest.raises(InputError, match="pixel size"):
        place_labels(image, labels, "image", "labels", "global")


def test_a_system_that_one_is_not_in() -> None:
    image, labels = image_of((4, 4), Identity(), "there"), labels_of((4, 4), Identity())
    with pytest.raises(InputError, match=r"image is not placed in .*'global', but in 'there'"):
        place_labels(image, labels, "image", "labels", "global")
    with pytest.raises(InputError, match=r"labels is not placed in .*'there', but in 'global'"):
        place_labels(image, labels, "image", "labels", "there")


def test_plane_and_space_do_not_mix() -> None:
    image, labels = image_of((2, 4, 4), Identity()), labels_of((4, 4), Identity())
    with pytest.raises(ShapeError, match="one in the plane"):
        place_labels(image, labels, "image", "labels", "global")


def test_a_section_placed_in_a_volume() -> None:
    """From (x, y) to (x, y, z): two sections at the same depth lie upon each other."""

    def at(depth: float) -> Any:
        rows = [[1, 0, 3], [0, 1, 4], [0, 0, depth], [0, 0, 1]]
        return Affine(rows, input_axes=("x", "y"), output_axes=("x", "y", "z"))

    image, labels = image_of((4, 4), at(7)), labels_of((4, 4), at(7))
    assert place_labels(image, labels, "image", "labels", "global") == (0, 0)
    with pytest.raises(InputError, match="reach beyond"):
        place_labels(image, labels_of((4, 4), at(8)), "image", "labels", "global")


@pytest.mark.parametrize("axes", [2, 3])
def test_centers_in_the_units_of_the_system(axes: int) -> None:
    rng = np.random.default_rng(3)
    linear = rng.normal(size=(3, 3)) * 3
    shift = rng.normal(size=3) * 100
    rows = np.eye(4)
    rows[:3, :3], rows[:3, 3] = linear, shift
    rows[:2, 2] *= axes == 3
    element = labels_of((3,) * axes, Affine(rows, AXES, AXES))
    centers = rng.random((10, 3)) * 50
    centers[:, 0] *= axes == 3
    found = to_system(affine_to(element, "labels", "global"), centers, axes)
    expected = [linear @ center[::-1] + shift for center in centers]
    np.testing.assert_allclose(found, np.array(expected)[:, :axes], rtol=1e-12)
