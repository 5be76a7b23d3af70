"""Pixel clustering: `flowsom` in its three parts, our assignment against `predict`, preparation.

python -m benchmarks.pixel_clustering [--quick] [--repeat 3]
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from typing import Any

from benchmarks.common import DATA, MB, Outcome, run_module, spread, table
from benchmarks.inputs import Input, say

MAIN = Input((20, 4096, 4096))
SMALL = Input((3, 2048, 2048), 1024)
HARPY_SECONDS = 88.7
PREDICTED = 1_000_000  # pixels that predict is timed on, five times

EXPLANATION = """\
Input: synthetic tissue, a SpatialData object of one scale over zarr arrays, without a store of its
own. `im.flowsom(fraction=0.02, n_clusters=10)` on a grid of 10 x 10 nodes, once in a process of its
own, kernels taken from numba's cache, threads (the default), in several rounds; a figure is the
median, with the smallest and the largest. Three parts, added up in *total*:

- *import*: of the `flowsom` package, with all that it imports.
- *training*: `flowsom.FlowSOM(...)` on the sample, which is the package's own work.
- *ours*: all else, from call to return: the sample, drawn in one pass over the image, assignment in
  a second pass, labels written and read back.
- *decoding alone*: as under Aggregation; ours decodes the image twice.
- *predict*: the trained cluster model's own `predict`, on rows of a fifth of the pixels that are
  compared, in the same process after the call; *assignment* is ours on the same pixels in two
  threads, from pixels as they are stored. The ratio is taken pair by pair. All compared labels are
  equal, or the benchmark fails."""

PREPARATION = """\
### Preparation

`im.pixel_clustering_preprocess` with its own parameters on the same input, from call to return,
once in a process of its own, in the same rounds; the image that it makes (float32) is written into
a SpatialData store. *numpy and scipy*: the same in plain lines, the whole image in memory as
float64 and nothing written, once, in one thread, as they are. *peak*: as above; that of numpy and
scipy looked at twice a second."""

# A look stops the process for milliseconds.
_LOOK = 0.5
# What the prepared images may differ by: ours is float32.
_APART = 1e-6

PUBLISHED = f"""\
Harpy 0.4.2 is not run here. On another machine with two cores its `flowsom` took {HARPY_SECONDS} s
on an input of the same size (20 x 4096 x 4096, fraction 0.02, 100 nodes, 10 metaclusters), import
included, with a peak of 3.7 GB."""


def measure(given: Input, repeat: int) -> tuple[Outcome, list[dict[str, Any]], list[float]]:
    """Weigh once, then time in rounds, decoding alone beside."""
    given.ensure()
    say(given, "memory; kernels are compiled here")
    mark = DATA / "mark"
    weighed = run_module("one_pixel_clustering", *given.args, "--mark", mark, mark=mark)
    rounds, alone = [], []
    for number in range(repeat):
        say(given, f"round {number + 1}")
        argv = [*given.args, "--predict", PREDICTED]
        rounds.append(run_module("one_pixel_clustering", *argv).found)
        alone.append(run_module("decoding", *given.args).found["seconds"])
    return weighed, rounds, alone


def report(
    given: Input, weighed: Outcome, rounds: list[dict[str, Any]], alone: list[float]
) -> Iterator[str]:
    """Write the section."""
    c, height, width = given.shape
    first = rounds[0]
    yield (
        f"### {c} x {height} x {width} uint16, {first['sampled']:,} pixels sampled, 100 nodes, "
        "10 metaclusters"
    )
    ours = [one["seconds"] - one["training_s"] for one in rounds]
    total = [one["import_s"] + one["seconds"] for one in rounds]
    yield table(
        ["", "seconds", "times decoding alone"],
        [
            ["import", spread([one["import_s"] for one in rounds], 2), ""],
            ["training", spread([one["training_s"] for one in rounds], 2), ""],
            [
                "ours",
                spread(ours, 2),
                spread([a / b for a, b in zip(ours, alone, strict=True)], 2),
            ],
            ["total", spread(total, 2), ""],
        ],
    )
    reads = weighed.found["chunk_reads"] / weighed.found["chunks"]
    yield (
        f"Decoding alone takes {spread(alone, 2)} s. The peak is {weighed.peak / MB:.0f} MB, of it "
        f"{weighed.peak_own / MB:.0f} MB no files; {reads:.2f} chunk files "
        "are opened per chunk, in the two passes together."
    )
    predict = [s for one in rounds for s in one["predict"]["predict_s"]]
    mine = [s for one in rounds for s in one["predict"]["ours_s"]]
    pixels = rounds[0]["predict"]["pixels"]
    yield table(
        ["", f"seconds per million pixels x {c} channels x 100 nodes"],
        [
            ["predict", spread([s / pixels * 1e6 for s in predict], 2)],
            ["assignment", spread([s / pixels * 1e6 for s in mine], 3)],
            ["ratio", spread([a / b for a, b in zip(predict, mine, strict=True)], 0)],
        ],
    )
    compared = sum(5 * one["predict"]["pixels"] for one in rounds)
    yield f"{compared:,} labels were compared with `predict`'s; all are equal."


def measure_preparation(given: Input, repeat: int) -> Iterator[str]:
    """Weigh ours once and time it in rounds; run the plain one once, and compare."""
    store, mark = DATA / "prepared.zarr", DATA / "mark"

    def ours(*more: object, **how: Any) -> Outcome:
        shutil.rmtree(store, ignore_errors=True)
        argv = [*given.args, "--way", "ours", "--save", store, *more]
        return run_module("one_preprocessing", *argv, **how)

    say(given, "preparation, memory; kernels are compiled here")
    weighed = ours("--mark", mark, mark=mark)
    rounds, alone = [], []
    for number in range(repeat):
        say(given, f"preparation, round {number + 1}")
        rounds.append(ours().found)
        alone.append(run_module("decoding", *given.args).found["seconds"])
    say(given, "preparation by numpy and scipy")
    argv = [*given.args, "--way", "plain", "--against", store, "--mark", mark]
    plain = run_module("one_preprocessing", *argv, mark=mark, interval=_LOOK)
    shutil.rmtree(store)
    apart = plain.found["apart"]
    if not apart < _APART:
        raise SystemExit(f"the prepared image is {apart:g} from what numpy and scipy make")
    mine = [one["seconds"] for one in rounds]
    yield table(
        ["", "seconds", "times decoding alone", "peak, MB"],
        [
            [
                "ours",
                spread(mine, 2),
                spread([a / b for a, b in zip(mine, alone, strict=True)], 2),
                f"{weighed.peak / MB:.0f}",
            ],
            ["numpy and scipy", f"{plain.found['seconds']:.2f}", "", f"{plain.peak / MB:.0f}"],
        ],
    )
    reads = weighed.found["chunk_reads"] / weighed.found["chunks"]
    yield (
        f"The largest relative difference of the {plain.found['numbers']:,} values that are "
        f"numbers is {apart:.0e}; all others are NaN in both. {reads:.2f} chunk files are opened "
        "per chunk, in all passes together."
    )


def main(argv: list[str] | None = None) -> list[str]:
    """Measure, print, and return the section for the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small input, once")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    args = parser.parse_args(argv)
    given, repeat = (SMALL, 1) if args.quick else (MAIN, args.repeat)
    parts = [
        EXPLANATION,
        *report(given, *measure(given, repeat)),
        PUBLISHED,
        PREPARATION,
        *measure_preparation(given, repeat),
    ]
    print("\n\n".join(parts), flush=True)
    return parts


if __name__ == "__main__":
    main()
