"""What cannot be cut into windows is refused, with what is wrong and what to do."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scportrait_like.errors import ConfigError, InputError, RunError, ShapeError
from scportrait_like.raster.instance_runs import InstanceRun
from scportrait_like.raster.instances import Instances
from scportrait_like.raster.sources import source_of

from .cases import odd_labels, odd_pixels
from .oracle import Show

MASK = np.eye(12, dtype="uint8")[None]
IMAGE = np.ones((2, 1, 12, 12), "uint16")


def run_of(mask: Any = MASK, image: Any = IMAGE, size: Any = 5, **options: Any) -> InstanceRun:
    options = {"head": Show(image is not None), "executor": "inline", **options}
    return InstanceRun(
        source_of(mask), None if image is None else source_of(image), size, **options
    )


@pytest.mark.parametrize("dtype", ["float32", "bool", "complex64"])
def test_masks_that_hold_no_ids(dtype: str) -> None:
    with pytest.raises(InputError, match=rf"cells holds {dtype}, but a mask holds whole numbers"):
        run_of(MASK.astype(dtype), what="cells")


@pytest.mark.parametrize(("dtype", "id_"), [("int8", -1), ("int64", -(2**63))])
def test_negative_ids(dtype: str, id_: int) -> None:
    mask = MASK.astype(dtype)
    mask[0, 3, 9] = id_
    with pytest.raises(InputError, match="cells holds negative ids"):
        run_of(mask, what="cells").find()


@pytest.mark.parametrize("id_", [2**63, 2**64 - 1])
def test_ids_that_are_too_large(id_: int) -> None:
    mask = MASK.astype("uint64")
    mask[0, 3, 9] = id_
    with pytest.raises(InputError, match=r"cells holds ids above 9223372036854775807"):
        run_of(mask, what="cells").find()
    mask[0, 3, 9] = 2**63 - 1
    assert run_of(mask).find().ids.tolist() == [1, 2**63 - 1]


@pytest.mark.parametrize(
    "mask", [MASK[0], MASK[None], np.zeros((0, 5, 5), int), np.zeros((1, 5, 0), int)]
)
def test_shapes_of_masks(mask: Any) -> None:
    with pytest.raises(ShapeError, match=r"cells has the shape .*; wanted are pixels \(z, y, x\)"):
        run_of(mask, None, what="cells")


@pytest.mark.parametrize(
    "image", [IMAGE[0], IMAGE[:, :, 1:], IMAGE[..., 1:], IMAGE.repeat(2, 1), IMAGE[:0], IMAGE[None]]
)
def test_shapes_of_images(image: Any) -> None:
    with pytest.raises(ShapeError, match=r"the image has the shape .*cells, \(1, 12, 12\)"):
        run_of(image=image, what="cells")


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "S3", "M8[s]", "O"])
def test_images_that_hold_no_real_numbers(dtype: str) -> None:
    with pytest.raises(InputError, match=r"the image holds .*, but real numbers are wanted"):
        run_of(image=np.zeros(IMAGE.shape, dtype))


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="it is float64 here")
def test_images_of_long_floats() -> None:
    with pytest.raises(InputError, match="the image holds"):
        run_of(image=IMAGE.astype(np.longdouble))


@pytest.mark.parametrize("size", [0, -1, True, 2.5, 5.0, "5", None, np.float32(3)])
def test_diameters(size: Any) -> None:
    with pytest.raises(InputError, match=r"diameter=.* is not allowed: give whole pixels"):
        run_of(size=size)


def test_diameters_of_numpy() -> None:
    run = run_of(size=np.uint8(64))  # its square is no uint8
    assert run.collect(run.find())["image"].shape == (1, 2, 1, 64, 64)


@pytest.mark.parametrize("batch_size", [0, -3, 2.5, True])
def test_batch_sizes(batch_size: Any) -> None:
    with pytest.raises(InputError, match=r"batch_size=.* is not allowed: give 1 or more"):
        run_of(batch_size=batch_size)


def test_executors() -> None:
    with pytest.raises(ConfigError, match="quick"):
        run_of(executor="quick")


# A head that fails


@dataclass(frozen=True)
class Failing:
    """A head that fails at one cell."""

    victim: int

    def __call__(self, instances: Instances) -> Mapping[str, Any]:
        if self.victim in instances.ids:
            raise LookupError("no such thing")
        return {"images": instances.images()}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("stage", "executor"),
    [("tile", "inline"), ("tile", "threads"), ("join", "threads"), ("join", "processes")],
)
def test_a_head_that_fails(scratch: Path, stage: str, executor: str) -> None:
    rng = np.random.default_rng(3)
    shape = (1, 57, 70)
    mask, image = odd_labels(rng, shape, "uint32"), odd_pixels(rng, (2, *shape), "uint16")
    run = run_of(mask, image, 18)
    found = run.find()
    plan = run.plan(found)
    unit = [unit for unit in plan.units if unit.name.startswith(stage)][-1]
    names = {"tile": "cell_id", "join": "border_id"}
    victim = int(plan.arrays[names[stage]][unit.what["cells"][0]])
    run = run_of(mask, image, 18, head=Failing(victim), executor=executor)
    with pytest.raises(RunError, match=rf"unit {unit.name} failed: LookupError: no such thing"):
        run.collect(found)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_nothing_is_left(scratch: Path, executor: str) -> None:
    run = run_of(executor=executor)
    run.collect(run.find())
    assert list(scratch.iterdir()) == []
