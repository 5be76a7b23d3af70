"""Trees of points: which to join, and where to draw them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Edges = npt.NDArray[np.int64]

# Rounds of the layout: most of what is won is won early.
_ROUNDS: Final = 300
_WORK: Final = 200_000_000  # pairs of nodes, all rounds together
_SETTLED: Final = 1e-4


def spanning_tree(points: Floats) -> Edges:
    """Return the edges (n - 1, 2) of the minimum spanning tree of points (n, d).

    Prim's algorithm, which knows what a distance of 0 is; of equal distances the lowest numbers.
    """
    n = len(points)
    edges = np.empty((max(n - 1, 0), 2), np.int64)
    nearest, parent = np.full(n, np.inf), np.zeros(n, np.int64)
    outside = np.ones(n, bool)
    here = 0
    for k in range(n - 1):
        outside[here] = False
        distance = ((points - points[here]) ** 2).sum(axis=1)
        closer = outside & (distance < nearest)
        nearest[closer], parent[closer] = distance[closer], here
        here = int(np.where(outside, nearest, np.inf).argmin())
        edges[k] = parent[here], here
    return edges


def tree_layout(n: int, edges: Edges) -> Floats:
    """Return places (n, 2) for the nodes of a tree, in the square [-1, 1].

    Distances upon the page follow the steps along the tree (the stress of Kamada and Kawai 1989,
    made small by majorisation, Gansner et al. 2004), from a radial start, where no edges cross.
    """
    if n == 1:
        return np.zeros((1, 2))
    steps = _steps(n, edges)
    places = _stressed(_radial(steps, edges), steps)
    places -= (places.max(axis=0) + places.min(axis=0)) / 2
    largest = np.abs(places).max()
    return places / largest if largest > 0 else places


def _steps(n: int, edges: Edges) -> Floats:
    """Number of edges between any two nodes (n, n)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import shortest_path

    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (n, n)).tocsr()
    found: Floats = shortest_path(graph, directed=False, unweighted=True)
    return found


def _radial(steps: Floats, edges: Edges) -> Floats:
    """Place nodes in circles about the middle of the tree, each branch in a sector of its own."""
    n = len(steps)
    root = int(steps.max(axis=1).argmin())
    beside: list[list[int]] = [[] for _ in range(n)]
    for a, b in edges.tolist():
        beside[a].append(b)
        beside[b].append(a)
    order, parent = [root], {root: -1}
    for node in order:
        for other in beside[node]:
            if other != parent[node]:
                parent[other] = node
                order.append(other)
    leaves = np.zeros(n)
    for node in reversed(order):
        leaves[node] = max(leaves[node], 1)
        if parent[node] >= 0:
            leaves[parent[node]] += leaves[node]
    angles, begins = np.zeros(n), np.zeros(n)
    widths = 2 * np.pi * leaves / leaves[root]
    for node in order:
        begin = begins[node]
        angles[node] = begin + widths[node] / 2
        for other in beside[node]:
            if other != parent[node]:
                begins[other] = begin
                begin += widths[other]
    radius = steps[root]
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _stressed(places: Floats, steps: Floats) -> Floats:
    """Move nodes until the distances between them are near the steps along the tree."""
    n = len(steps)
    apart = steps + np.eye(n)
    weights = 1 / apart**2 - np.eye(n)
    # Fixed: the first node stays, which makes the system regular.
    laplacian = np.diag(weights.sum(axis=1)) - weights
    inverse = np.linalg.inv(laplacian[1:, 1:])
    for _ in range(min(_ROUNDS, max(10, _WORK // n**2))):
        distance = np.sqrt(((places[:, None] - places[None]) ** 2).sum(axis=2))
        ratio = weights * steps / np.where(distance > 1e-9, distance, np.inf)
        pull = ratio.sum(axis=1)[:, None] * places - ratio @ places
        moved = np.concatenate([np.zeros((1, 2)), inverse @ pull[1:]])
        change = np.abs((moved - moved[0]) - (places - places[0])).max()
        places = moved
        if change < _SETTLED:
            break
    return places
