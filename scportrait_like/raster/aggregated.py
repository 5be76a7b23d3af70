"""The result of an aggregation, merged from what the units found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like.kernels import LabelPartials, merge_in_passing
from scportrait_like.raster.aggregation import CHANNELS_TOGETHER
from scportrait_like.raster.statistics import Floats, Measure, Parts, Rank, Statistic
from scportrait_like.run.plan import Plan
from scportrait_like.run.runner import RunReport
from scportrait_like.run.unitfile import UnitReader

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Aggregated:
    """Statistics of n labels in c channels.

    Attributes
    ----------
    ids
        (n,) int64, ascending, or in the order that was asked for.
    count
        (n,) int64, pixels.
    centroid
        (n, 3) float64, mean pixel coordinates (z, y, x); NaN where a label has no pixels.
    values
        (n, c) float64 a statistic; (n, 1) for those that look at no channel.
    notes
        What the user should know.
    report
        Of the run that found them.
    """

    ids: Counts
    count: Counts
    centroid: Floats
    values: dict[str, Floats]
    notes: tuple[str, ...] = ()
    report: RunReport | None = None

    def reindex(self, ids: Counts, statistics: Mapping[str, Statistic]) -> Aggregated:
        """Return the rows of some ids, in their order; absent ones get what a statistic says."""
        at = np.minimum(np.searchsorted(self.ids, ids), max(len(self.ids) - 1, 0))
        there = self.ids[at] == ids if len(self.ids) else np.zeros(len(ids), bool)
        at = at[there]

        def rows(found: NDArray[Any], absent: float) -> NDArray[Any]:
            out = np.full((len(ids), *found.shape[1:]), absent, found.dtype)
            out[there] = found[at]
            return out

        values = {name: rows(found, statistics[name].absent) for name, found in self.values.items()}
        count, centroid = rows(self.count, 0), rows(self.centroid, np.nan)
        return replace(self, ids=ids, count=count, centroid=centroid, values=values)


@dataclass(frozen=True)
class Needs:
    """What statistics need together, each once.

    Attributes
    ----------
    measures, ranks
        Of all statistics.
    """

    measures: tuple[Measure, ...]
    ranks: tuple[Rank, ...]

    @classmethod
    def of(cls, statistics: Mapping[str, Statistic]) -> Needs:
        """Collect the needs of statistics."""
        needs = dict.fromkeys(need for each in statistics.values() for need in each.needs)
        return cls(
            tuple(need for need in needs if isinstance(need, Measure)),
            tuple(need for need in needs if isinstance(need, Rank)),
        )


def merge_units(
    plan: Plan,
    units: Mapping[str, UnitReader],
    statistics: Mapping[str, Statistic],
    n_channels: int,
) -> Aggregated:
    """Merge what the units of a plan found, in the plan's order.

    Besides the result a few channels' figures are held at once.
    """
    tiles = [units[unit.name] for unit in plan.units if "tile" in unit.what]
    merged = merge_in_passing(_geometry(tile) for tile in tiles)
    count = merged.area
    values = {
        name: np.empty((len(count), n_channels if each.per_channel else 1))
        for name, each in statistics.items()
    }
    notes: set[str] = set()
    if len(count):
        merging = _Merging(plan, units, tiles, merged.ids, Needs.of(statistics))
        for start in range(0, n_channels, CHANNELS_TOGETHER):
            columns = slice(start, min(start + CHANNELS_TOGETHER, n_channels))
            parts = Parts(count, merging.block(columns), notes)
            for name, each in statistics.items():
                if each.per_channel:
                    values[name][:, columns] = each.finish(parts).T
        for name, each in statistics.items():
            if not each.per_channel:
                values[name][:] = each.finish(Parts(count)).T
    centroid = merged.sums / count[:, None]
    return Aggregated(merged.ids, count, centroid, values, tuple(sorted(notes)))


def _geometry(tile: UnitReader) -> LabelPartials:
    ids, area, sums, box = (np.array(tile[name]) for name in ("ids", "area", "sums", "box"))
    tile.release()
    return LabelPartials(ids, area, sums, box)


@dataclass(frozen=True)
class _Share:
    """What a tile gives: labels seen for the first time, and those that others saw before."""

    reader: UnitReader
    new: Counts
    new_rows: Counts
    old: Counts
    old_rows: Counts
    before: Counts  # pixels of the old ones in earlier tiles
    area: Counts


class _Merging:
    """Merges the figures of all units, some channels at a time.

    The tiles are gone through for each of these anew: what they have in common is nowhere held for
    all of them, since labels may be in any number of tiles.
    """

    def __init__(
        self,
        plan: Plan,
        units: Mapping[str, UnitReader],
        tiles: Sequence[UnitReader],
        ids: Counts,
        needs: Needs,
    ) -> None:
        self._plan, self._units, self._tiles = plan, units, tiles
        self._ids, self._needs = ids, needs

    def _shares(self) -> Iterator[_Share]:
        seen = np.zeros(len(self._ids), np.int64)
        for reader in self._tiles:
            rows = np.searchsorted(self._ids, reader["ids"])
            if len(rows):
                area, before = np.array(reader["area"]), seen[rows]
                new, old = np.flatnonzero(before == 0), np.flatnonzero(before)
                yield _Share(reader, new, rows[new], old, rows[old], before[old], area[old])
                seen[rows] += area
            reader.release()

    def block(self, columns: slice) -> dict[Measure | Rank, Floats]:
        """All needs in some channels: (c, n, width) each, (c, n, 2) for a rank."""
        number, width = columns.start // CHANNELS_TOGETHER, columns.stop - columns.start
        shape = width, len(self._ids)
        found: dict[Measure | Rank, Floats] = {
            measure: np.empty((*shape, measure.width)) for measure in self._needs.measures
        }
        ranks = np.empty((*shape, len(self._needs.ranks), 2))
        for share in self._shares():
            for measure in self._needs.measures:
                _add(share, measure, share.reader[f"{measure.name}.{number}"], found[measure])
            if self._needs.ranks:
                # Labels that cross tiles get theirs from the joins, below.
                ranks[:, share.new_rows] = share.reader[f"ranks.{number}"][:, share.new]
        if self._needs.ranks:
            self._join(number, ranks)
        return found | {rank: ranks[:, :, place] for place, rank in enumerate(self._needs.ranks)}

    def _join(self, number: int, ranks: Floats) -> None:
        for unit in self._plan.units:
            if "kind" in unit.what:
                ids = self._plan.arrays[unit.what["kind"]][slice(*unit.what["labels"])]
                rows = np.searchsorted(self._ids, ids)
                ranks[:, rows] = self._units[unit.name][f"ranks.{number}"]
                self._units[unit.name].release()


def _add(share: _Share, measure: Measure, figures: Floats, out: Floats) -> None:
    """Put a tile's figures to those of earlier tiles."""
    out[:, share.new_rows] = figures[:, share.new]
    if len(share.old):
        mine, theirs = out[:, share.old_rows], figures[:, share.old]
        out[:, share.old_rows] = measure.merge(mine, theirs, share.before, share.area)
