"""The nearest of some nodes for each of many rows: a matrix product, and what rounding left open.

Of the squared distances |x - w|^2 the smallest belongs to the largest score x.w - |w|^2 / 2. Scores
come from a matrix product in float32. A row is decided where its two best scores lie further apart
than rounding could have moved them; the others are looked at in float64; what is a tie even there
is told to the caller.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Int64, checked_output, frozen
from ._jit import jit

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# Rows at a time, and most scores: those of 100 nodes stay in a core's cache.
_BLOCK = 2048
_SCORES = 1 << 20
_UNIT = 2.0**-24  # of rounding in float32
_UNIT64 = 2.0**-53
# Nodes that reach further have squares, or products with pixels, that float32 may not hold.
_LARGEST = 1e18
# Products below this are lost where the processor takes them for zero.
_SMALLEST = 2.0**-120


class Nodes(NamedTuple):
    """Nodes, moved so that their mean is the origin: rounding grows with the distance from there.

    Attributes
    ----------
    codes : (k, c) float64
    shift : (c,) float64
    weights : (k, c) float32
        NaN where products could be more than float32 holds: then float64 decides.
    halves : (k,) float32
        Half of the squared lengths of ``weights``.
    reach : float
        The largest length.
    """

    codes: Float64
    shift: Float64
    weights: Float32
    halves: Float32
    reach: float

    @classmethod
    def of(cls, codes: npt.ArrayLike) -> Nodes:
        """Prepare nodes (k, c)."""
        given = np.ascontiguousarray(codes, np.float64)
        shift = given.mean(axis=0)
        moved = given - shift
        squares = (moved**2).sum(axis=1)
        with np.errstate(over="ignore"):
            weights, halves = moved.astype(np.float32), (squares / 2).astype(np.float32)
        reach = float(np.sqrt(squares.max()))
        if not reach < _LARGEST:
            weights[:] = np.nan
        return cls(given, shift, weights, halves, reach)


@jit
def _move(
    pixels: Array, start: int, shift: Float64, block: Float32, norms: Float32, bad: npt.NDArray[Any]
) -> None:
    n_channels, n = block.shape
    norms[:] = 0
    bad[:] = False
    for channel in range(n_channels):
        row, to, origin = pixels[channel], block[channel], shift[channel]
        for i in range(n):
            value = np.float64(row[start + i])
            bad[i] |= value - value != 0
            moved = np.float32(value - origin)
            to[i] = moved
            norms[i] += moved * moved


@jit
def _two_best(
    scores: Float32, halves: Float32, best: Float32, second: Float32, which: npt.NDArray[np.int32]
) -> None:
    n_nodes, n = scores.shape
    best[:] = -np.inf
    second[:] = -np.inf
    which[:] = 0
    for node in range(n_nodes):
        row, half = scores[node], halves[node]
        for i in range(n):
            score = row[i] - half
            before = best[i]
            lower = score if score < before else before
            second[i] = lower if lower > second[i] else second[i]
            which[i] = np.int32(node) if score > before else which[i]
            best[i] = score if score > before else before


@jit
def _decide(
    best: Float32,
    second: Float32,
    which: npt.NDArray[np.int32],
    norms: Float32,
    bad: npt.NDArray[Any],
    n_channels: int,
    reach: float,
    out: Array,
    open_rows: Int64,
) -> int:
    found = 0
    for i in range(best.size):
        if bad[i]:
            out[i] = 0
            continue
        length = np.sqrt(np.float64(norms[i])) * (1 + 1e-5)
        # Rounding of x and w (2), of the product's sum (c), of the difference and of |w|^2 / 2.
        moved = _UNIT * ((n_channels + 4) * length * reach + 2 * reach * reach)
        moved += (n_channels + 4) * (_SMALLEST + 8 * _UNIT64 * (length + reach) ** 2)
        if np.float64(best[i]) - np.float64(second[i]) > 2.2 * moved:
            out[i] = which[i] + 1
        else:
            out[i] = 0
            open_rows[found] = i
            found += 1
    return found


@jit
def _nearest_exactly(
    rows: Float64, codes: Float64, shift: Float64, reach: float, out: Int64
) -> None:
    n_channels = rows.shape[1]
    for i in range(rows.shape[0]):
        row = rows[i]
        length = 0.0
        for channel in range(n_channels):
            length += (row[channel] - shift[channel]) ** 2
        best = second = np.inf
        which = -1
        for node in range(codes.shape[0]):
            distance = 0.0
            for channel in range(n_channels):
                distance += (row[channel] - codes[node, channel]) ** 2
            if distance < best:
                best, second, which = distance, best, node
            elif distance < second:
                second = distance
        # Whoever computes the same distances in float64, in any order, comes this near to them, and
        # so does a tree that leaves out nodes by their distance from a centre.
        moved = 8 * _UNIT64 * (n_channels + 4) * (np.sqrt(length) + reach)
        out[i] = which + 1 if np.sqrt(second) - np.sqrt(best) > moved else 0


class _Buffers(NamedTuple):
    """What a block of n rows is worked on in; contiguous, since kernels are compiled for that."""

    block: Float32
    norms: Float32
    bad: npt.NDArray[np.bool_]
    scores: Float32
    best: Float32
    second: Float32
    which: npt.NDArray[np.int32]
    left: Int64

    @classmethod
    def of(cls, n_channels: int, n_nodes: int, n: int) -> _Buffers:
        return cls(
            np.empty((n_channels, n), np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.bool_),
            np.empty((n_nodes, n), np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.int32),
            np.empty(n, np.int64),
        )


def nearest_nodes(pixels: Array, nodes: Nodes, out: Array) -> Int64:
    """Find the nearest node of each pixel, by the Euclidean distance of its float64 row.

    Parameters
    ----------
    pixels : (c, n), any real dtype
    nodes
        Of the same channels.
    out : (n,), an unsigned dtype that holds k
        The node of each pixel, counted from 1; 0 where a channel is NaN or infinite, and at ties.

    Returns
    -------
    (t,) int64, ascending: pixels with two nodes at the same distance, as far as float64 can tell.
    """
    values = frozen(pixels, pixels.dtype.newbyteorder("="))
    n_channels, n = values.shape
    target = checked_output(out, out.dtype)
    if n_channels != nodes.codes.shape[1] or target.shape != (n,):
        raise ValueError(
            f"{values.shape} pixels, {nodes.codes.shape} nodes, {target.shape} results: no match"
        )
    ties = [np.zeros(0, np.int64)]
    edge = max(16, min(_BLOCK, _SCORES // len(nodes.codes)))
    b = _Buffers.of(n_channels, len(nodes.codes), min(edge, n))
    for start in range(0, n, edge):
        here = target[start : start + edge]
        if len(here) < b.best.size:  # the last one
            b = _Buffers.of(n_channels, len(nodes.codes), len(here))
        _move(values, start, nodes.shift, b.block, b.norms, b.bad)
        with np.errstate(all="ignore"):
            np.matmul(nodes.weights, b.block, out=b.scores)
        _two_best(b.scores, nodes.halves, b.best, b.second, b.which)
        found = _decide(
            b.best, b.second, b.which, b.norms, b.bad, n_channels, nodes.reach, here, b.left
        )
        if found:
            ties.append(start + _settle(values, start, b.left[:found], nodes, here))
    return np.concatenate(ties)


def _settle(values: Array, start: int, rows: Int64, nodes: Nodes, here: Array) -> Int64:
    """Decide in float64 what can be; return the others."""
    exact = np.ascontiguousarray(values[:, start + rows].T, np.float64)
    decided = np.empty(len(rows), np.int64)
    _nearest_exactly(exact, nodes.codes, nodes.shift, nodes.reach, decided)
    here[rows] = decided
    left: Int64 = rows[decided == 0]
    return left
