"""Panels in a grid, on a page as wide as A4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scportrait_like.plot import _common as common

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Inches. Every place is computed, so texts cannot overlap.
PAGE: Final = 8.0
LEFT: Final = 0.65
_RIGHT: Final = 0.1
_HEADER: Final = 0.32
_FOOTER: Final = 0.28
_NAME: Final = 0.26  # above each panel
_CHARACTER: Final = 0.088  # width at 10 points, generously
_NARROWEST: Final = 4.0

# Numbers from so much on are written in so many.
_UNITS: Final = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))


@dataclass(frozen=True)
class Panels:
    """The figure, and where its panels stand.

    Attributes
    ----------
    figure
        Of matplotlib.
    boxes
        (left, bottom, width, height) of each panel, in inches from the lower left corner.
    outer
        Whether each stands at the left edge, and whether none stands below it.
    """

    figure: Figure
    boxes: list[tuple[float, float, float, float]]
    outer: list[tuple[bool, bool]]
    texts: list[Text] = field(default_factory=list)

    @classmethod
    def grid(
        cls,
        n: int,
        size: tuple[float, float],
        *,
        beside: float,
        below: float,
        last: float,
        title: str | None,
        footnote: str,
        left: float = LEFT,
    ) -> Panels:
        """Place n panels in rows.

        Parameters
        ----------
        n
            How many.
        size
            Width and height of a panel.
        beside, below
            What stands to the right of each panel, and under it.
        last
            What stands under the last row besides.
        title, footnote
            Above and under all.
        left
            What stands to the left of the first panels.
        """
        across = min(n, max(1, int((PAGE - left - _RIGHT) / (size[0] + beside))))
        down = -(-n // across)
        width = max(left + across * (size[0] + beside) + _RIGHT, _NARROWEST)
        top = 0.08 + (_HEADER if title else 0)
        step = _NAME + size[1] + below
        height = top + down * step + last + (_FOOTER if footnote else 0.05)
        page = cls(common.new_figure(width, height), [], [])
        for k in range(n):
            row, column = divmod(k, across)
            bottom = height - top - row * step - _NAME - size[1]
            page.boxes.append((left + column * (size[0] + beside), bottom, *size))
            page.outer.append((column == 0, k + across >= n))
        room = width - 2 * _RIGHT
        if title:
            page.write(_RIGHT, height - 0.1, title, room, va="top", fontsize=12)
        if footnote:
            style = {"va": "bottom", "fontsize": 8, "color": "#505050"}
            page.write(_RIGHT, 0.08, footnote, room, **style)
        return page

    def write(self, x: float, y: float, text: str, room: float, **style: Any) -> None:
        """Write a text of so many inches at most."""
        width, height = self.figure.get_size_inches()
        columns = max(3, int(room / (_CHARACTER * style["fontsize"] / 10)))
        short = common.shorten(text, columns)
        self.texts.append(self.figure.text(x / width, y / height, short, **style))

    def name(self, k: int, text: str, room: float) -> None:
        """Write a name above a panel, in so many inches."""
        left, bottom, _, height = self.boxes[k]
        self.write(left, bottom + height + 0.07, text, room, va="bottom", fontsize=10)

    def axes(self, box: tuple[float, float, float, float]) -> Any:
        """Make axes in a box."""
        width, height = self.figure.get_size_inches()
        return self.figure.add_axes(
            (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
        )

    def finish(self, save: str | Path | None) -> Figure:
        """Finish the texts; write the figure if a path is given."""
        return common.finish(self.figure, self.texts, save)


def compact(largest: float) -> Callable[..., str]:
    """Return how to write the numbers of an axis in few characters, from its largest."""
    fitting = [(unit, letter) for least, unit, letter in _UNITS if abs(largest) >= least]
    unit, letter = fitting[0] if fitting else (1.0, "")

    def written(value: float, _: Any = None) -> str:
        text = f"{value / unit:.6g}"
        return text if float(text) == 0 else f"{text}{letter}"

    return written
