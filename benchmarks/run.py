"""Run all benchmarks and write docs/benchmarks.md: ``make bench``.

    python -m benchmarks.run [--quick] [--only 8192] [--skip-peer] [--repeat 3]

With ``--quick`` or ``--only`` the tables are printed and the document is left as it is.
"""

from __future__ import annotations

import argparse
import time

from benchmarks import cell_index, extraction
from benchmarks.common import ROOT, machine

HEAD = """\
# Benchmarks

Measured by `make bench` (`python -m benchmarks.run`), which writes this page. It needs about
{minutes:.0f} minutes and 5 GB of disk in `benchmarks/data`, where the inputs stay for the next
time. `--quick` tries everything on a small input, `--only 4096` measures one of the two,
`--skip-peer` leaves scPortrait out, `--repeat 5` repeats more often."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    extraction.add_options(parser)
    args = parser.parse_args()
    where = machine()
    began = time.perf_counter()
    given = ["--quick"] if args.quick else []
    given += ["--repeat", str(args.repeat)]
    of_extraction = [*given, *(["--only", str(args.only)] if args.only else [])]
    parts = extraction.main([*of_extraction, *(["--skip-peer"] if args.skip_peer else [])])
    if args.only is None:
        parts += cell_index.main(given)
    if args.quick or args.only is not None:
        return
    head = HEAD.format(minutes=(time.perf_counter() - began) / 60)
    target = ROOT / "docs" / "benchmarks.md"
    target.write_text("\n\n".join([head, f"Machine: {where}", *parts]) + "\n")
    print(f"written: {target}")


if __name__ == "__main__":
    main()
