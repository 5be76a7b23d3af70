"""The cell index: time and memory by the number of labels, and by the size of their ids.

python -m benchmarks.cell_index [--quick] [--repeat 3]
"""

from __future__ import annotations

import argparse
from statistics import median

from benchmarks.common import DATA, MB, Outcome, run_module, spread, table

OURS = ("ours", "ours, two threads")
OTHERS = ("skimage.measure.regionprops_table", "scipy.ndimage")
# Edges in pixels: 0.14, 1.0 and 10.0 million labels of 100 pixels.
SMALL, MIDDLE, LARGE = 4096, 11008, 34816

Row = tuple[str, int, str]
ROWS: tuple[Row, ...] = (
    *((name, SMALL, "dense") for name in (*OURS[:1], *OTHERS)),
    *((name, SMALL, "sparse") for name in (*OURS[:1], *OTHERS)),
    ("ours", MIDDLE, "dense"),
    ("ours", MIDDLE, "sparse"),
    ("ours", LARGE, "dense"),
    ("ours", LARGE, "sparse"),
    ("ours, two threads", LARGE, "dense"),
    ("ours, two threads", LARGE, "sparse"),
)

EXPLANATION = """\
Area, centroid and bounding box of every label, in one pass over a mask that is computed chunk by
chunk (squares of 10 x 10 pixels, one pixel apart). Dense ids count from 1; sparse ones are
scattered over 2^62 to 2^63. *mask* is the time that computing the mask alone takes in one thread;
it is part of *pass*. Memory is the largest sum of PSS, looked at from outside in a repetition of
its own, less what the process took before it began; the two others hold the whole mask as well.
scipy.ndimage: `sum_labels`, `center_of_mass`, `find_objects`."""


def main(argv: list[str] | None = None) -> list[str]:
    """Measure, print, and return the section for the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small inputs, once")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions")
    args = parser.parse_args(argv)
    rows = [row for row in ROWS if not args.quick or row[1] == SMALL]
    DATA.mkdir(parents=True, exist_ok=True)
    found: dict[Row, list[Outcome]] = {row: [] for row in rows}
    for number in range(1 if args.quick else args.repeat):
        for row in rows:
            print(f"cell index: {', '.join(map(str, row))}, repetition {number + 1}", flush=True)
            found[row].append(_measure(row))
    parts = [EXPLANATION, _table(found, {row: _weigh(row) for row in rows})]
    print("\n\n".join(parts), flush=True)
    return parts


def _measure(row: Row) -> Outcome:
    method, edge, ids = row
    return run_module("one_index", "--edge", edge, "--ids", ids, "--method", method)


def _weigh(row: Row) -> Outcome:
    method, edge, ids = row
    mark = DATA / "mark"
    argv = ["--edge", edge, "--ids", ids, "--method", method, "--mark", mark]
    return run_module("one_index", *argv, mark=mark)


def _table(found: dict[Row, list[Outcome]], weighed: dict[Row, Outcome]) -> str:
    lines = []
    for row, outcomes in found.items():
        method, edge, ids = row
        one = outcomes[0].found
        name = [method, f"{edge} x {edge}", f"{one['expected'] / 1e6:.2f}", ids]
        if one["error"]:
            lines.append([*name, one["error"], "", "", "", ""])
            continue
        if one["n"] != one["expected"]:
            raise SystemExit(f"{method}: {one['n']} labels found, {one['expected']} are there")
        seconds = [outcome.found["seconds"] for outcome in outcomes]
        took = weighed[row].peak - weighed[row].found["before"]
        lines.append(
            [
                *name,
                spread(seconds, 2),
                f"{median(outcome.found['computing'] for outcome in outcomes):.2f}",
                f"{median(seconds) / one['n'] * 1e6:.2f}",
                f"{took / MB:.0f}",
                f"{took / one['n']:.0f}",
            ]
        )
    header = ["", "mask", "labels, million", "ids", "pass, s", "mask, s", "µs a label"]
    return table([*header, "memory, MB", "bytes a label"], lines)


if __name__ == "__main__":
    main()
