"""Legends of clusters: a colour, a number or name, and its share of the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError
from scportrait_like.plot import _common as common
from scportrait_like.plot._palette import cluster_colours
from scportrait_like.plot._panels import Panels

# Inches
ROW: Final = 0.21
_SWATCH: Final = (0.22, 0.14)
_CHARACTER: Final = 0.082  # at 9 points, generously
_SHARE: Final = 0.72
_BETWEEN: Final = 0.2  # columns
_LONGEST: Final = 24  # characters of a name
_HEAD: Final = "metacluster"
_LISTED: Final = 60  # lines; more are read by nobody


@dataclass(frozen=True)
class Legend:
    """Lines of a legend.

    Attributes
    ----------
    colours
        (n, 3).
    names
        n short texts.
    shares
        n texts such as "12.3 %"; empty texts where none is known.
    of
        What the shares are of: above them.
    more
        Below the lines: what is not listed; empty where all is.
    """

    colours: npt.NDArray[np.float64]
    names: list[str]
    shares: list[str]
    of: str
    more: str = ""

    @classmethod
    def listing(
        cls, counts: Mapping[int, int], names: Mapping[int, str] | None, of: str, without: int = 0
    ) -> Legend:
        """List clusters.

        Parameters
        ----------
        counts
            Of each by its number; all 0: shares are not shown.
        names
            Of some of them, by number.
        of
            What the shares are of.
        without
            Those of no cluster; the shares leave them out.
        """
        total = sum(counts.values())
        listed = sorted(counts)
        hidden = len(listed) - _LISTED
        if hidden > 0:  # the largest
            listed = sorted(sorted(counts, key=lambda k: (-counts[k], k))[:_LISTED])
        texts = [cluster_name(number, names) for number in listed]
        shares = [percent(counts[number], total) for number in listed]
        colours = cluster_colours(listed)
        if without:
            texts.append("no cluster")
            shares.append("")
            colours = np.concatenate([colours, cluster_colours([0])])
        return cls(colours, texts, shares, of, f"and {hidden:,} smaller" if hidden > 0 else "")

    def size(self, height: float) -> tuple[float, float]:
        """Width and height in inches, where it should not be much taller than `height`."""
        columns, rows = self._table(height)
        return columns * (self._column() + _BETWEEN), (rows + 1 + bool(self.more)) * ROW

    def _table(self, height: float) -> tuple[int, int]:
        room = max(8, int(height / ROW) - 1 - bool(self.more))
        columns = max(1, -(-len(self.names) // room))
        return columns, -(-len(self.names) // columns)

    def _column(self) -> float:
        longest = max([*map(common.text_width, self.names), 1])
        own = _SWATCH[0] + 0.1 + _CHARACTER * longest
        return max(own, _CHARACTER * len(_HEAD)) + (_SHARE if any(self.shares) else 0)

    def draw(self, page: Panels, x: float, top: float, height: float) -> None:
        """Draw it from a corner (x, top) of the page downwards; `height` as for `size`."""
        columns, rows = self._table(height)
        grey: dict[str, Any] = {"fontsize": 9, "color": "#505050", "va": "center"}
        step = self._column() + _BETWEEN
        for left in (x + column * step for column in range(columns)):
            page.write(left, top - ROW / 2, _HEAD, 9, **grey)
            if any(self.shares):
                page.write(left + self._column(), top - ROW / 2, self.of, 9, ha="right", **grey)
        for k, (colour, name, share) in enumerate(
            zip(self.colours, self.names, self.shares, strict=True)
        ):
            column, row = divmod(k, rows)
            left, middle = x + column * step, top - (row + 1.5) * ROW
            _swatch(page, (left, middle - _SWATCH[1] / 2, *_SWATCH), colour)
            page.write(left + _SWATCH[0] + 0.08, middle, name, 99, fontsize=9, va="center")
            if share:
                page.write(left + self._column(), middle, share, 9, ha="right", **grey)
        if self.more:
            page.write(x, top - (rows + 1.5) * ROW, self.more, 99, **grey)


def checked_names(names: Mapping[Any, str] | None, most: int | None = None) -> dict[int, str]:
    """Return names by number, also of keys that are text, as YAML and JSON may have them.

    Parameters
    ----------
    names
        As a user gives them.
    most
        The highest number there is; None: that is not known.

    Raises
    ------
    InputError
        No mapping, or names of what there is not.
    """
    if names is None:
        return {}
    if not isinstance(names, Mapping):
        raise InputError(
            f"names={names!r}: expected a mapping of numbers to names, such as {{3: 'B cells'}}."
        )
    found: dict[int, str] = {}
    for key, name in names.items():
        text = str(key).strip()
        number = int(text) if text.isdecimal() else 0
        if number < 1 or (most is not None and number > most):
            there = "metaclusters count from 1" if most is None else f"there are 1 to {most}"
            raise InputError(f"names: there is no metacluster {key!r}: {there}.")
        if number in found:
            raise InputError(f"names: metacluster {number} is named twice.")
        found[number] = str(name)
    return found


def cluster_name(number: int, names: Mapping[int, str] | None) -> str:
    """Return the number, and the name where there is one."""
    name = (names or {}).get(number)
    return common.shorten(f"{number} {name}" if name else f"{number}", _LONGEST)


def percent(part: float, total: float) -> str:
    """Write a share in few characters."""
    if not total:
        return ""
    share = 100 * part / total
    if 0 < share < 0.1:
        return "< 0.1 %"
    return f"{share:.1f} %"


def _swatch(
    page: Panels, box: tuple[float, float, float, float], colour: npt.NDArray[np.float64]
) -> None:
    from matplotlib.patches import Rectangle

    width, height = page.figure.get_size_inches()
    page.figure.add_artist(
        Rectangle(
            (box[0] / width, box[1] / height),
            box[2] / width,
            box[3] / height,
            transform=page.figure.transFigure,
            facecolor=tuple(colour),
            edgecolor="#808080",
            linewidth=0.4,
        )
    )
