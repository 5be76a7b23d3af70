"""Self-organising maps: the grid of nodes, and the tree that joins them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scportrait_like.errors import InputError, ShapeError
from scportrait_like.plot._clusters import checked_metaclusters
from scportrait_like.plot._legends import Legend, checked_names
from scportrait_like.plot._palette import cluster_colours, ink_upon
from scportrait_like.plot._panels import Panels
from scportrait_like.plot._trees import spanning_tree, tree_layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

# Inches
_EDGE: Final = 4.0  # of a panel
_GAP: Final = 0.25
_NAME: Final = 2.0  # room for what stands above the grid
_WIDEST: Final = 0.6  # between neighbours of the grid
_SMALLEST: Final = 0.025  # radius of a node
_LARGEST: Final = 0.3
_WRITTEN: Final = 0.08  # nodes of so large a radius bear their number, others have it below
_ROOM: Final = 0.33  # between neighbours of the grid, for numbers that stand below
_FILLED: Final = 0.97  # of the distance between two nodes, by both of their radii


def plot_som(
    codes: npt.ArrayLike,
    metaclusters: npt.ArrayLike,
    shape: tuple[int, int],
    *,
    counts: npt.ArrayLike | None = None,
    names: Mapping[int, str] | None = None,
    title: str | None = None,
    footnote: str = "",
    save: str | Path | None = None,
) -> Figure:
    """Draw a self-organising map: its grid, and the minimum spanning tree of its nodes.

    Parameters
    ----------
    codes
        (K, c) numbers: the place of each node among the channels.
    metaclusters
        (K,) integers: that of each node, counted from 1.
    shape
        (xdim, ydim) of the grid, K = xdim * ydim; node k stands at x = k // ydim, y = k % ydim, as
        in the package flowsom.
    counts
        (K,) pixels of each node; the areas of the nodes follow them. A node of none is a ring.
    names
        Names of metaclusters by number.
    title, footnote
        Drawn above and below.
    save
        Where to write the picture; the suffix chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
        The grid, then the tree, and a legend with the metaclusters' shares.

    Raises
    ------
    InputError, ShapeError
        The arguments do not fit each other.
    """
    nodes, groups, sizes = _checked(codes, metaclusters, shape, counts)
    known = counts is not None
    sums = np.bincount(groups, sizes)
    found = {int(group): int(sums[group]) if known else 0 for group in np.unique(groups)}
    legend = Legend.listing(found, checked_names(names, int(groups.max())), "of pixels")
    grid, step = _grid(shape)
    width, height = shape[0] * step, shape[1] * step
    column = max(width, _NAME)
    wide, tall = legend.size(_EDGE)
    notes = ["areas of nodes: their shares"] if known else []
    notes += ["rings: no pixel"] if (sizes == 0).any() else []
    page = Panels.grid(
        1,
        (column + _GAP + _EDGE, _EDGE),
        beside=_GAP + wide,
        below=max(0.1, tall - _EDGE),
        last=0,
        title=title,
        footnote="; ".join([*notes, footnote] if footnote else notes),
        left=0.15,
    )
    left, bottom, across, _ = page.boxes[0]
    right = left + column + _GAP
    page.boxes[:] = [
        (left, bottom + _EDGE - height, width, height),
        (right, bottom, _EDGE, _EDGE),
    ]
    page.name(0, f"Grid of {shape[0]} x {shape[1]} nodes", column)
    drawn = _Nodes(groups, sizes)
    drawn.draw(page, page.boxes[0], grid, _FILLED * step / 2, below=step >= _ROOM)
    page.name(1, "Minimum spanning tree", _EDGE)
    edges = spanning_tree(nodes)
    laid = tree_layout(len(nodes), edges) * (_EDGE / 2 - _LARGEST) + _EDGE / 2
    drawn.draw(page, page.boxes[1], laid, _LARGEST, edges)
    legend.draw(page, left + across + _GAP, bottom + _EDGE, _EDGE)
    return page.finish(save)


def _checked(
    codes: npt.ArrayLike,
    metaclusters: npt.ArrayLike,
    shape: tuple[int, int],
    counts: npt.ArrayLike | None,
) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Return codes (K, c), metaclusters (K,) and pixels (K,), all 1 where none were counted."""
    nodes, groups = np.asarray(codes, np.float64), checked_metaclusters(metaclusters)
    if nodes.ndim != 2 or 0 in nodes.shape or groups is None or len(groups) != len(nodes):
        raise ShapeError(
            "codes must be (K, c), not empty, and metaclusters (K,), but they are "
            f"{nodes.shape} and {np.shape(metaclusters)}."
        )
    if not np.isfinite(nodes).all():
        raise InputError("codes hold NaN or infinity.")
    if shape[0] < 1 or shape[0] * shape[1] != len(nodes):
        raise ShapeError(f"shape={shape} does not have the {len(nodes)} nodes of codes.")
    sizes = np.ones(len(nodes)) if counts is None else np.asarray(counts, np.float64)
    if sizes.shape != (len(nodes),):
        raise ShapeError(f"counts must be ({len(nodes)},), but are {sizes.shape}.")
    return nodes, groups, sizes


def _grid(shape: tuple[int, int]) -> tuple[Floats, float]:
    """Return the places (K, 2) of the nodes in inches, and the distance of neighbours."""
    step = min(_EDGE / max(shape), _WIDEST)
    x, y = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    return (np.stack([x, y], axis=1) + 0.5) * step, step


def _radii(places: Floats, sizes: Floats, largest: float) -> Floats:
    """Return radii (K,) in inches: areas follow sizes, and no node covers another."""
    roots = np.sqrt(sizes / max(float(sizes.max()), 1e-300))
    room = np.full(len(places), np.inf)
    for k in range(1, len(places)):
        apart = np.sqrt(((places[:k] - places[k]) ** 2).sum(axis=1))
        fitting = _FILLED * apart / np.maximum(roots[:k] + roots[k], 1e-9)
        room[k] = min(room[k], fitting.min())
        room[:k] = np.minimum(room[:k], fitting)
    if len(places) > 1:
        largest = min(largest, float(room.min()))
    return np.maximum(roots * largest, _SMALLEST)


@dataclass(frozen=True)
class _Nodes:
    """What is drawn at each node: its metacluster's colour (K,), its size (K,) and number."""

    groups: npt.NDArray[np.int64]
    sizes: Floats

    def draw(
        self,
        page: Panels,
        box: tuple[float, float, float, float],
        places: Floats,
        largest: float,
        edges: npt.NDArray[np.int64] | None = None,
        below: bool = False,
    ) -> None:
        """Draw them; their numbers where all nodes have room for it, in them or below."""
        from matplotlib.collections import LineCollection, PatchCollection
        from matplotlib.patches import Circle

        axes = page.axes(box)
        axes.set_axis_off()
        axes.set_xlim(0, box[2])
        axes.set_ylim(0, box[3])
        if edges is not None:
            lines = places[edges].tolist()
            axes.add_collection(LineCollection(lines, colors="#909090", linewidths=0.8, zorder=1))
        radii, colours = _radii(places, self.sizes, largest), cluster_colours(self.groups.tolist())
        there = (self.sizes > 0)[:, None]
        faces, rims = np.where(there, colours, 1.0), np.where(there, 0.6 * colours, colours)
        order = np.argsort(-radii, kind="stable")  # the smaller upon the larger
        circles = [Circle(tuple(places[k]), radii[k]) for k in order]
        axes.add_collection(
            PatchCollection(
                circles, facecolors=faces[order].tolist(), edgecolors=rims[order].tolist(),
                linewidths=0.6, zorder=2,
            )
        )  # fmt: skip
        large = radii >= _WRITTEN
        if not (below or large.all()):  # a few numbers would look like a message
            return
        for k, (x, y) in enumerate(places + box[:2]):
            style: dict[str, Any] = {"fontsize": 6, "ha": "center", "va": "center"}
            if large[k]:
                page.write(x, y, str(k + 1), 99, color=ink_upon(faces[k]), **style)
            else:
                style |= {"va": "top", "color": "#505050"}
                page.write(x, y - radii[k] - 0.01, str(k + 1), 99, **style)
