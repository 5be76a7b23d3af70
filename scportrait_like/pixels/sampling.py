"""A sample of the pixels of images, drawn without looking at chunks, tiles or workers.

Each pixel has a hash of the seed, its image and its place, and the sample is made of the pixels
with the smallest hashes. Their number is a share of the pixels that can be drawn, known only after
all were looked at. So the tiles keep, in the first place, as many as are probably needed; when the
numbers are known and they were too few, the tiles are looked at once more.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scportrait_like.errors import InputError, RunError
from scportrait_like.kernels.hashing import draw_pixels, hash_key
from scportrait_like.pixels.sample_sizes import shares, smallest, threshold
from scportrait_like.pixels.stages import PixelTask, Stage
from scportrait_like.raster.reading import Reading
from scportrait_like.run.plan import Unit
from scportrait_like.run.unitfile import UnitReader, UnitWriter

logger = logging.getLogger(__name__)

DRAW: Final = "draw"
WEIGH: Final = "weigh"
REDRAW: Final = "redraw"

# Where the cap decides, an image with many pixels without a value needs a higher share of the
# others than its size tells: so many times the cap are kept before they must be drawn again.
_GENEROUS: Final = 4

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Strata:
    """A way to divide pixels, so that each part has its share in a sample.

    Attributes
    ----------
    names
        Of the parts, given the names of the channels.
    divide
        Part of each pixel (n,) int16 of pixels (c, n) without NaN where it counts.
    """

    names: Callable[[Sequence[str]], list[str]]
    divide: Callable[[NDArray[Any]], NDArray[np.int16]]


def _brightest(pixels: NDArray[Any]) -> NDArray[np.int16]:
    """Channel with the highest value, the first of several."""
    found = np.zeros(pixels.shape[1], np.int16)
    highest = pixels[0].copy()
    for channel in range(1, len(pixels)):
        found[pixels[channel] > highest] = channel
        np.fmax(highest, pixels[channel], out=highest)
    return found


STRATA: Final[dict[str, Strata]] = {"channels": Strata(list, _brightest)}


@dataclass(frozen=True)
class Sampling:
    """How a sample is drawn.

    Attributes
    ----------
    fraction
        Share of the pixels that can be drawn, above 0 and at most 1; None: all.
    max_samples
        Most pixels drawn, whatever the share.
    seed
        0 to 2^63 - 1.
    strata
        None, or a name of `STRATA`: then the parts get equal numbers, and those that have fewer
        pixels give all; so rare ones are not lost. It takes one more pass over the pixels.
        ``"channels"``: the parts are the channels with the highest value of a pixel, so channels
        must be comparable, as they are after a preparation.

    Raises
    ------
    InputError
        One of them is out of its range.
    """

    fraction: float | None = 0.1
    max_samples: int = 2_000_000
    seed: int = 100
    strata: str | None = None

    def __post_init__(self) -> None:
        share = self.fraction
        is_number = isinstance(share, int | float | np.number) and not isinstance(share, bool)
        if share is not None and not (is_number and 0 < share <= 1):
            raise InputError(f"fraction must be above 0 and at most 1, or None, not {share!r}")
        for name, value, least in (
            ("max_samples", self.max_samples, 1),
            ("random_state", self.seed, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise InputError(f"{name} must be a whole number, not {value!r}")
            if not least <= value < 1 << 63:
                raise InputError(f"{name} must be at least {least} and below 2^63, not {value}")
        if self.strata is not None and self.strata not in STRATA:
            raise InputError(
                f"strata must be None or one of {', '.join(STRATA)}, not {self.strata!r}"
            )

    def wanted(self, valid: int) -> int:
        """Pixels before the cap, of so many that can be drawn; a half is rounded to even."""
        return valid if self.fraction is None else max(1, round(self.fraction * valid))


@dataclass(frozen=True)
class Sample:
    """Pixels drawn, by image, then by position.

    Attributes
    ----------
    rows
        (n, c) float64, finite.
    image
        (n,) int64: number of the image.
    position
        (n,) int64: place in its plane or volume, row-major.
    counts
        Plain JSON: ``valid`` pixels, those ``wanted`` by the fraction, those ``drawn``, the cap
        ``max_samples``, ``images`` (drawn of each), and with strata ``strata``, a mapping of names
        to [valid, drawn].
    """

    rows: NDArray[np.float64]
    image: Int64
    position: Int64
    counts: Mapping[str, Any]


def sampling_stages(sampling: Sampling, channels: Sequence[str] = ()) -> list[Stage]:
    """Stages that draw a sample; `sample_of` reads it in a later stage.

    Parameters
    ----------
    sampling
        How.
    channels
        Their names; without them strata are named by numbers.
    """
    return [
        Stage(DRAW, Draw(sampling)),
        Stage(WEIGH, Weigh(sampling, tuple(channels)), tiled=False),
        Stage(REDRAW, Redraw(sampling)),
    ]


@dataclass(frozen=True)
class Draw:
    """Keeps the pixels of a tile that are probably needed, and counts those that can be drawn.

    Of strata it only counts: how rare one is shows when all were counted.
    """

    sampling: Sampling

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Leave ``counts``, and what `_leave` does."""
        every = sum(image.n_pixels for image in task.images)
        likely = min(self.sampling.wanted(every), _GENEROUS * self.sampling.max_samples)
        most = np.full(_n_strata(self.sampling, task), threshold(likely, every), np.uint64)
        keep = self.sampling.strata is None
        _leave(self.sampling, task, unit, most, keep, out, reading)


@dataclass(frozen=True)
class Weigh:
    """Tells how many pixels each stratum gives, and whether those kept are enough."""

    sampling: Sampling
    channels: tuple[str, ...]

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Leave ``quota`` and ``most`` by stratum, ``again``, and ``summary`` as JSON."""
        counts = np.zeros(_n_strata(self.sampling, task), np.int64)
        kept = 0
        for _, left in _tiles(task, DRAW):
            counts += left["counts"]
            kept += len(left["hashes"])
            left.release()
        valid = int(counts.sum())
        if not valid:
            raise InputError(
                f"no pixel of {', '.join(image.name for image in task.images)} has a number in all "
                "of its channels (all are NaN or infinite in one of them"
                f"{'' if task.prepared is None else ' once prepared: lower p_sum or sigma'}): "
                "there is nothing to learn from"
            )
        wanted = self.sampling.wanted(valid)
        drawn = min(wanted, int(self.sampling.max_samples))
        quota = shares(counts, drawn)
        again = self.sampling.strata is not None or kept < drawn
        most = [threshold(n, of) for n, of in zip(quota.tolist(), counts.tolist(), strict=True)]
        summary: dict[str, Any] = {
            "valid": valid,
            "wanted": wanted,
            "drawn": drawn,
            "max_samples": int(self.sampling.max_samples),
        }
        if self.sampling.strata is not None:
            channels = self.channels or [str(number) for number in range(len(counts))]
            names = STRATA[self.sampling.strata].names(channels)
            pairs = np.stack([counts, quota], axis=1).tolist()
            summary["strata"] = dict(zip(names, pairs, strict=True))
        out.put("quota", quota)
        out.put("most", np.array(most, np.uint64))
        out.put("again", np.array([again]))
        out.put("summary", np.frombuffer(json.dumps(summary).encode(), np.uint8))


@dataclass(frozen=True)
class Redraw:
    """Keeps the pixels of a tile again, now that it is known how many are needed.

    Where the first were enough it leaves an empty file.
    """

    sampling: Sampling

    def __call__(self, task: PixelTask, unit: Unit, out: UnitWriter, reading: Reading) -> None:
        """Leave what `Draw` does, or nothing."""
        weighed = task.left(WEIGH)
        if weighed["again"][0]:
            _leave(self.sampling, task, unit, np.array(weighed["most"]), True, out, reading)


def sample_of(task: PixelTask) -> Sample:
    """Sample that the stages have drawn.

    Raises
    ------
    RunError
        Fewer pixels were kept than are needed: once in more runs than there will be.
    """
    weighed = task.left(WEIGH)
    stage = REDRAW if weighed["again"][0] else DRAW
    quota = np.array(weighed["quota"])
    images, hashes, strata = _kept(task, stage)
    taken = np.zeros(len(hashes), np.bool_)
    for stratum, n in enumerate(quota.tolist()):
        taken[smallest(hashes, np.flatnonzero(strata == stratum), n)] = True
    if taken.sum() < quota.sum():
        raise RunError(
            f"{taken.sum()} pixels were kept for a sample of {quota.sum()}, which was next to "
            "impossible; take another random_state"
        )
    del hashes, strata
    image = images[taken]
    del images
    position = _positions(task, stage, taken)
    # Tiles are not in the order of positions; rows go to their places at once.
    order = np.lexsort((position, image))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = _rows(task, stage, taken, place)
    per_image = np.bincount(image, minlength=len(task.images)).tolist()
    counts = {**json.loads(text_of(weighed["summary"])), "images": per_image}
    return Sample(rows, image[order], position[order], counts)


def note_sampling(weighed: UnitReader) -> None:
    """Tell the log what was drawn; to be called where the unit `WEIGH` comes to the parent."""
    counts = json.loads(text_of(weighed["summary"]))
    if counts["drawn"] < counts["wanted"]:
        logger.warning(
            "a map is trained on %s pixels (max_samples) instead of %s, of %s with numbers in "
            "all channels: raise max_samples to train on more",
            f"{counts['drawn']:,}",
            f"{counts['wanted']:,}",
            f"{counts['valid']:,}",
        )
    else:
        logger.info(
            "a map is trained on %s of %s pixels; training itself ends before a Ctrl-C does",
            f"{counts['drawn']:,}",
            f"{counts['valid']:,}",
        )


def text_of(content: NDArray[Any]) -> str:
    """Text that a unit's file keeps as bytes."""
    return content.tobytes().decode()


def _n_strata(sampling: Sampling, task: PixelTask) -> int:
    if sampling.strata is None:
        return 1
    channels = [str(channel) for channel in task.images[0].channels]
    return len(STRATA[sampling.strata].names(channels))


def _leave(
    sampling: Sampling,
    task: PixelTask,
    unit: Unit,
    most: NDArray[np.uint64],
    keep: bool,
    out: UnitWriter,
    reading: Reading,
) -> None:
    """Leave ``counts`` by stratum, and ``rows``, ``positions``, ``hashes``, ``strata`` drawn."""
    image, tile = task.place(unit)
    pixels = task.pixels(unit, reading)
    strata = _strata_of(sampling, pixels)
    start, shape = ((0, 0, *corner)[-3:] for corner in (tile.start, image.shape))
    extent = (1, *(edge.stop - edge.start for edge in tile.region))[-3:]
    key = hash_key(int(sampling.seed), unit.what["image"])
    found = draw_pixels(strata, start, extent, shape, key, most, keep)
    counts, drawn, positions, hashes = found
    out.put("counts", counts)
    out.put("positions", positions)
    out.put("hashes", hashes)
    out.put("strata", strata[drawn])
    out.put("rows", pixels[:, drawn].T)
    reading.lap("draw")


def _strata_of(sampling: Sampling, pixels: NDArray[Any]) -> NDArray[np.int16]:
    """Stratum of each pixel, -1 where a channel is not finite."""
    if sampling.strata is None:
        strata = np.zeros(pixels.shape[1], np.int16)
    else:
        strata = np.array(STRATA[sampling.strata].divide(pixels), np.int16)
    if pixels.dtype.kind == "f":
        for plane in pixels:
            strata[~np.isfinite(plane)] = -1
    return strata


def _tiles(task: PixelTask, stage: str) -> Iterator[tuple[int, UnitReader]]:
    """Number of the image, and what a stage has left, for each tile in order."""
    for image in range(len(task.images)):
        for left in task.left_in_image(stage, image):
            yield image, left


def _kept(task: PixelTask, stage: str) -> tuple[Int64, NDArray[np.uint64], NDArray[np.int16]]:
    """Image, hash and stratum of all pixels that the tiles have kept."""
    images: list[Int64] = []
    hashes: list[NDArray[np.uint64]] = []
    strata: list[NDArray[np.int16]] = []
    for image, left in _tiles(task, stage):
        hashes.append(np.array(left["hashes"]))
        strata.append(np.array(left["strata"]))
        images.append(np.full(len(hashes[-1]), image))
        left.release()
    return np.concatenate(images), np.concatenate(hashes), np.concatenate(strata)


def _positions(task: PixelTask, stage: str, taken: NDArray[np.bool_]) -> Int64:
    """Positions of the pixels that are taken of those kept, in the order of tiles."""
    found: list[Int64] = []
    seen = 0
    for _, left in _tiles(task, stage):
        kept = left["positions"]
        found.append(kept[taken[seen : seen + len(kept)]])
        seen += len(kept)
        left.release()
    return np.concatenate(found)


def _rows(
    task: PixelTask, stage: str, taken: NDArray[np.bool_], place: Int64
) -> NDArray[np.float64]:
    """Rows of the pixels that are taken, each at the place that it has among all of them."""
    rows = np.empty((len(place), len(task.images[0].channels)))
    seen = put = 0
    for _, left in _tiles(task, stage):
        kept = left["rows"]
        mine = taken[seen : seen + len(kept)]
        seen += len(kept)
        to = place[put : put + int(mine.sum())]
        rows[to] = kept[mine]
        put += len(to)
        left.release()
    return rows
