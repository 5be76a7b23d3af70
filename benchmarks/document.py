"""docs/benchmarks.md: a head, then one section a benchmark; each can be written alone."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from benchmarks.common import ROOT, machine

PAGE = ROOT / "docs" / "benchmarks.md"
# In the order of the page.
SECTIONS = (
    "Extraction",
    "Cell index",
    "Aggregation",
    "Featurization",
    "Pixel clustering",
    "Training",
    "Gigapixel",
    "Gigapixel instances",
    "Gigapixel pixels",
    "Terapixel",
)

_HEAD = """\
# Benchmarks

Each section is written by its command. `make bench` (`python -m benchmarks.run`) measures
extraction, cell index, aggregation, featurization, pixel clustering and training, or with
`--section aggregation` one of them; `--quick` tries everything on small inputs, `--skip-peer`
leaves scPortrait out, `--repeat 5` repeats more often. `make bench-gigapixel` and `make
bench-terapixel` take long. The inputs stay in `benchmarks/data` for the next time: 8 GB for `make
bench`, 500 and 400 MB for the two large ones."""


class Section:
    """A section while it is measured: it knows when it began, and on what machine.

    Parameters
    ----------
    title
        One of `SECTIONS`.
    command
        What writes it.
    """

    def __init__(self, title: str, command: str) -> None:
        self.title = title
        self.command = command
        self._where = machine()
        self._began = time.perf_counter()

    def write(self, parts: Sequence[str]) -> None:
        """Put the parts into the page in place of what the section held."""
        minutes = (time.perf_counter() - self._began) / 60
        how = f"Measured by `{self.command}` in {minutes:.0f} minutes. Machine: {self._where}"
        page = PAGE.read_text() if PAGE.exists() else ""
        held = split(page)
        held[self.title] = "\n\n".join([f"## {self.title}", how, *parts])
        PAGE.write_text("\n\n".join([_HEAD, *(held[t] for t in SECTIONS if t in held)]) + "\n")
        print(f"written: {PAGE}, section {self.title}", flush=True)


def split(page: str) -> dict[str, str]:
    """The sections of a page by title, each with its heading."""
    found = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    return {text.splitlines()[0]: f"## {text}".strip() for text in found}
