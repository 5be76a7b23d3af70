"""Run the benchmarks and write their sections of docs/benchmarks.md: ``make bench``.

    python -m benchmarks.run [--section aggregation] [--quick] [--only 8192] [--skip-peer]
                             [--repeat 3]

With ``--quick`` or ``--only`` the tables are printed and the document is left as it is. The large
stores have commands of their own: ``make bench-gigapixel``, ``make bench-terapixel``.
"""

from __future__ import annotations

import argparse

from benchmarks import (
    aggregation,
    cell_index,
    extraction,
    featurization,
    pixel_clustering,
    training,
)
from benchmarks.document import Section

MODULES = {
    "extraction": ("Extraction", extraction.main),
    "cell_index": ("Cell index", cell_index.main),
    "aggregation": ("Aggregation", aggregation.main),
    "featurization": ("Featurization", featurization.main),
    "pixel_clustering": ("Pixel clustering", pixel_clustering.main),
    "training": ("Training", training.main),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--section", choices=list(MODULES), help="one section; default: all")
    extraction.add_options(parser)
    args = parser.parse_args()
    given = [*(["--quick"] if args.quick else []), "--repeat", str(args.repeat)]
    of_extraction = [*(["--only", str(args.only)] if args.only else [])]
    of_extraction += ["--skip-peer"] if args.skip_peer else []
    for name, (title, measure) in MODULES.items():
        wanted = name == "extraction" if args.only is not None else args.section in (None, name)
        if not wanted:
            continue
        section = Section(title, "make bench")
        parts = measure([*given, *(of_extraction if name == "extraction" else [])])
        if not (args.quick or args.only is not None):
            section.write(parts)


if __name__ == "__main__":
    main()
