"""The output of a pixel clustering: two labels elements, tables, and the trained map."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scportrait_like import names
from scportrait_like.errors import InputError, RunError
from scportrait_like.filehandler import FileHandler
from scportrait_like.io.cluster_tables import CLUSTER, METACLUSTER, counts_table, groups_table
from scportrait_like.io.indexes import labels_index
from scportrait_like.io.pyramids import RasterWriter
from scportrait_like.io.tables import instance_dtype
from scportrait_like.pixels.assignment import ASSIGN, Assigned, cluster_dtype
from scportrait_like.pixels.clustering import Clustering
from scportrait_like.pixels.sampling import WEIGH, note_sampling
from scportrait_like.pixels.stages import PixelTask
from scportrait_like.pixels.trained_som import TrainedSom
from scportrait_like.raster.index import CellIndex
from scportrait_like.run.memory import granted_cores
from scportrait_like.run.plan import Unit
from scportrait_like.run.unitfile import UnitReader

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusteringFacts:
    """What the elements of a pixel clustering are called and say of themselves.

    Attributes
    ----------
    clusters, metaclusters
        The labels elements.
    cluster_table, metacluster_table
        Their tables of mean intensities.
    region_key
        Column of `obs` of all tables.
    attributes
        Our own attributes of all elements.
    transforms
        A spatialdata transformation for each coordinate system, those of the image.
    cells
        Of the table of counts in cells; None: there is no mask.
    """

    clusters: str
    metaclusters: str
    cluster_table: str
    metacluster_table: str
    region_key: str
    attributes: Mapping[str, str]
    transforms: Mapping[str, Any]
    cells: CellFacts | None = None


@dataclass(frozen=True)
class CellFacts:
    """What the table of counts in cells is called and is about.

    Attributes
    ----------
    table
        Its name.
    region
        The mask.
    ids_dtype
        Of the ids in `obs`.
    instance_key
        Their column.
    index
        Of the mask.
    """

    table: str
    region: str
    ids_dtype: np.dtype[Any]
    instance_key: str
    index: CellIndex

    @classmethod
    def of(
        cls, filehandler: FileHandler, mask: str, table: str, instance_key: str, budget: int
    ) -> CellFacts:
        """Look up the cells of a mask; its index is made where there is none yet.

        Raises
        ------
        InputError
            The mask is empty.
        """
        index = labels_index(filehandler, mask, budget)
        if len(index) == 0:
            raise InputError(
                f"mask {mask} is empty: it holds no label above 0. With count_in_cells: false it "
                "is not read"
            )
        ids_dtype = instance_dtype(filehandler.open_array(mask).dtype)
        return cls(table, mask, ids_dtype, instance_key, index)


class PixelClusteringSink:
    """Writes each tile's clusters as it comes; all elements appear at the end, one by one.

    Parameters
    ----------
    clustering, task
        Of the run, over one image of the store.
    output
        Folder of the output, for the map.
    filehandler
        Of the project.
    facts
        Of the elements.
    """

    def __init__(
        self,
        clustering: Clustering,
        task: PixelTask,
        output: Path,
        filehandler: FileHandler,
        facts: ClusteringFacts,
    ) -> None:
        self._clustering, self._task, self._output = clustering, task, output
        self._filehandler, self._facts = filehandler, facts
        self._rasters = ExitStack()
        self._writers: list[RasterWriter] = []

    def add(self, unit: Unit, result: UnitReader) -> None:
        """Take a unit; of the tiles that were assigned the clusters are written."""
        if unit.what["stage"] == WEIGH:
            note_sampling(result)
        if unit.what["stage"] != ASSIGN:
            result.release()
            return
        if not self._writers:
            self._begin()
        _, tile = self._task.place(unit)
        extents = [edge.stop - edge.start for edge in tile.region]
        clusters = self._assigned.take(result).reshape(extents)
        for writer, labels in zip(self._writers, (clusters, self._groups[clusters]), strict=True):
            writer.write(tile.region, labels)

    def _begin(self) -> None:
        """Open the labels, once the map is there."""
        facts, (image,) = self._facts, self._task.images
        trained = self._clustering.trained_by(self._task)
        self._assigned = Assigned(trained)
        n_groups = trained.n_metaclusters
        self._groups = np.append(0, trained.metaclusters).astype(cluster_dtype(n_groups))
        # Tiles are whole chunks of the image: those of two never share one of the labels'.
        chunks = image.source.chunks[1:]
        dtypes = cluster_dtype(trained.n_nodes), self._groups.dtype
        for name, dtype in zip((facts.clusters, facts.metaclusters), dtypes, strict=True):
            writer = self._filehandler.raster_writer(
                name,
                "labels",
                image.shape,
                dtype,
                chunks=chunks,
                transforms=facts.transforms,
                attributes=facts.attributes,
                overwrite=True,
            )
            self._writers.append(self._rasters.enter_context(writer))

    def flush(self) -> None:
        """Nothing is seen before the end."""

    def close(self) -> None:
        """Complete the labels, and place them and the tables."""
        trained, facts = self._assigned.trained, self._facts
        trained.save(self._output / names.SOM_FILE)
        trained.mapping.rename_axis(CLUSTER).to_csv(self._output / names.MAPPING_FILE)
        tables = self._tables(trained)
        with ThreadPoolExecutor(granted_cores()) as pool:
            for writer in self._writers:
                writer.build_pyramid(pool.map)
        self._rasters.close()
        for name, table in tables.items():
            self._filehandler.write_element(name, table, True, facts.attributes)

    def _tables(self, trained: TrainedSom) -> dict[str, AnnData]:
        facts, found = self._facts, self._assigned
        if empty := int((found.counts == 0).sum()):
            logger.info("%s: %d clusters without a pixel", facts.clusters, empty)
        groups = trained.metaclusters
        group_means, group_counts = found.merged(groups)
        tables = {
            facts.cluster_table: groups_table(
                found.means,
                found.counts,
                trained.channels,
                facts.clusters,
                cluster_dtype(trained.n_nodes),
                region_key=facts.region_key,
                instance_key=CLUSTER,
                obs={METACLUSTER: groups},
            ),
            facts.metacluster_table: groups_table(
                group_means,
                group_counts,
                trained.channels,
                facts.metaclusters,
                self._groups.dtype,
                region_key=facts.region_key,
                instance_key=METACLUSTER,
            ),
        }
        if facts.cells is not None:
            tables[facts.cells.table] = self._counts(facts.cells, groups)
        return tables

    def _counts(self, cells: CellFacts, groups: NDArray[np.int64]) -> AnnData:
        index = cells.index
        return counts_table(
            self._assigned.cells(),
            index.ids.astype(cells.ids_dtype),
            groups,
            cells.region,
            area=index.area,
            centroid=index.centroid[:, ::-1].copy(),
            region_key=self._facts.region_key,
            instance_key=cells.instance_key,
        )

    def abort(self) -> None:
        """Let go of what was written."""
        stopped = RunError("the run was stopped")
        self._rasters.__exit__(RunError, stopped, None)
