"""FlowSOM over every pixel of images of a SpatialData object."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scportrait_like.errors import InputError
from scportrait_like.im._images import (
    Names,
    check_outputs,
    clustered_images,
    listed,
    scratch_place,
)
from scportrait_like.io.elements import place_element, raster
from scportrait_like.io.pyramids import write_region
from scportrait_like.io.twins import quiet_spatialdata
from scportrait_like.pixels.assignment import ASSIGN, Assigned, cluster_dtype
from scportrait_like.pixels.clustering import Clustering, warm_up
from scportrait_like.pixels.images import PixelImage
from scportrait_like.pixels.sampling import WEIGH, Sampling, note_sampling
from scportrait_like.pixels.som import SomSettings, flowsom_in
from scportrait_like.pixels.stages import PixelTask
from scportrait_like.raster.sources import spilled
from scportrait_like.run.executors import check_executor_name, choose_executor, is_separate
from scportrait_like.run.memory import SCARCE, granted_cores, memory_budget, tune_allocator
from scportrait_like.run.plan import Unit
from scportrait_like.run.rundir import RunDirectory
from scportrait_like.run.runner import Resources
from scportrait_like.run.scratch import run_in_scratch
from scportrait_like.run.unitfile import UnitReader

if TYPE_CHECKING:
    import pandas as pd
    from flowsom import FlowSOM
    from spatialdata import SpatialData


def flowsom(
    sdata: SpatialData,
    image_name: Names,
    output_cluster_labels_name: Names,
    output_metacluster_labels_name: Names,
    channels: str | int | Iterable[str | int] | None = None,
    fraction: float | None = 0.1,
    n_clusters: int = 5,
    random_state: int = 100,
    chunks: str | int | tuple[int, ...] | None = None,
    scale_factors: Sequence[Mapping[str, int] | int] | None = None,
    client: Any = None,
    persist_intermediate: bool = True,
    write_intermediate: bool = True,
    instance_key: str = "cell_ID",
    region_key: str = "fov_labels",
    spatial_key: str = "spatial",
    overwrite: bool = False,
    *,
    max_samples: int = 2_000_000,
    strata: str | None = None,
    executor: Executor | str | None = None,
    memory_limit: int | str | None = None,
    **kwargs: Any,
) -> tuple[SpatialData, FlowSOM, pd.Series[int]]:
    """Train FlowSOM on a sample of pixels, and give every pixel its cluster and metacluster.

    The `flowsom` package trains (Van Gassen et al. 2015, Quintelier et al. 2021). Each pixel gets
    exactly the cluster that the trained model's ``predict`` gives for its channels as float64; the
    labels are the same whatever the chunks, workers and executor.

    Parameters
    ----------
    sdata
        Changed in place, at the end, one element after the other: when the work fails it is as it
        was.
    image_name
        An image (c, y, x) or (c, z, y, x), or several with the same channels, which then share one
        map. Of several scales the finest is used. `pixel_clustering_preprocess` prepares them.
    output_cluster_labels_name, output_metacluster_labels_name
        Names of the labels ([z,] y, x) that are made, one for each image: the clusters (nodes of
        the map) and metaclusters of the pixels, counted from 1; 0 where a channel is NaN or
        infinite. They are of the smallest unsigned type, with the image's transformations.
    channels
        One or several, by name or position, in the order wanted; None: all.
    fraction
        Share of the pixels (of those without NaN) that the map is trained on, in (0, 1]; None: all.
    n_clusters
        Metaclusters.
    random_state
        Of the sample and of the training.
    chunks
        Of the labels, as a number or in the order ([c,] [z,] y, x); None: about 2048.
    scale_factors
        Of each coarser level of the labels against the one before; None: a single scale.
    client
        A ``dask.distributed.Client`` whose workers do the work.
    persist_intermediate, write_intermediate
        Accepted; nothing intermediate is kept, pixels are read tile by tile.
    instance_key, region_key
        Columns of ``FlowSOM.mudata["cell_data"].obs``: ids of the sampled pixels from 1, and the
        name of the image.
    spatial_key
        Of its ``obsm``: ([z,] y, x) of the sampled pixels.
    overwrite
        Whether labels of those names may be replaced.
    max_samples
        Most pixels that the map is trained on, whatever the fraction; the log says when it cuts.
    strata
        None: pixels are drawn uniformly. "channels": as many of those that are brightest in each
        channel, so that rare phenotypes stay; channels should be comparable.
    executor
        A `concurrent.futures.Executor`, the name of one ("inline", "threads", "processes",
        "dask"), or None: an active dask client, else threads.
    memory_limit
        Bytes (or "4GB") for the process tree; None: `scportrait_like.settings.memory_limit`.
    **kwargs
        For ``flowsom.FlowSOM``: `xdim`, `ydim` (10), `model` (``flowsom.models.FlowSOMEstimator``
        or ``BatchFlowSOMEstimator``), `rlen`, `alpha`, `importance`, ...

    Returns
    -------
    sdata : spatialdata.SpatialData
    fsom : flowsom.FlowSOM
        Trained, with the sample; it counts clusters and metaclusters from 0.
    mapping : pandas.Series
        "metaclustering": the metacluster of each cluster; index and values from 1.

    Raises
    ------
    MissingInputError
        There is no such image.
    InputError
        An unknown channel, images of different channels, a fraction outside (0, 1], more nodes than
        sampled pixels, no pixel without NaN, a channel that is constant, an argument that flowsom
        does not know.
    ElementExistsError
        Labels of that name are there, and `overwrite` is False.
    DiskFullError
        No space left; what was there is unharmed.
    """
    names = listed(image_name, "image_name")
    outputs = _outputs(
        sdata, names, output_cluster_labels_name, output_metacluster_labels_name, overwrite
    )
    channel_names, images = clustered_images(sdata, names, channels)
    for image in images:  # what cannot be made of labels is told before they are
        _labels(sdata, image.name, _no_pixels(image), chunks, scale_factors)
    clustering = Clustering(
        preparation=None,
        sampling=Sampling(fraction, max_samples, random_state, strata),
        som=SomSettings.of(
            channel_names,
            n_clusters=n_clusters,
            xdim=kwargs.pop("xdim", 10),
            ydim=kwargs.pop("ydim", 10),
            seed=random_state,
            model=kwargs.pop("model", None),
            arguments=kwargs,
            instance_key=instance_key,
            region_key=region_key,
            spatial_key=spatial_key,
        ),
        keep=True,
        totals=False,
    )
    with tempfile.TemporaryDirectory(
        prefix=".scportrait-like-", dir=scratch_place(sdata)
    ) as folder:
        sink = _LabelsSink(clustering, images, Path(folder))
        _run(clustering, images, sink, _executor(client, executor), memory_limit)
        for name, places, both in zip(names, sink.places, outputs, strict=True):
            for place, output in zip(places, both, strict=True):
                pixels = _written(place, kept=sdata.path is not None)
                labels = _labels(sdata, name, pixels, chunks, scale_factors)
                place_element(sdata, output, labels, overwrite)
    return sdata, sink.fsom, sink.assigned.trained.mapping


def _outputs(
    sdata: SpatialData, names: Sequence[str], clusters: Names, metaclusters: Names, overwrite: bool
) -> list[tuple[str, str]]:
    """Names of the labels of each image, which may be written."""
    given = {
        "output_cluster_labels_name": listed(clusters, "output_cluster_labels_name"),
        "output_metacluster_labels_name": listed(metaclusters, "output_metacluster_labels_name"),
    }
    for argument, found in given.items():
        if len(found) != len(names):
            raise InputError(
                f"{argument}: {len(names)} images need {len(names)} names, not {len(found)}"
            )
    every = [name for found in given.values() for name in found]
    check_outputs(sdata, every, "labels", overwrite)
    return list(zip(*given.values(), strict=True))


def _executor(client: Any, executor: Executor | str | None) -> Executor | str | None:
    if client is not None:
        if executor is not None:
            raise InputError("give client or executor, not both")
        if not hasattr(client, "get_executor"):
            raise InputError(f"client={client!r} is no dask.distributed.Client")
        # Equal calls are not the same one, and a unit that kills its worker is not tried again.
        found: Executor = client.get_executor(pure=False, retries=0)
        return found
    if isinstance(executor, str):
        check_executor_name(executor, "flowsom")
    return executor


def _run(
    clustering: Clustering,
    images: Sequence[PixelImage],
    sink: _LabelsSink,
    executor: Executor | str | None,
    memory_limit: int | str | None,
) -> None:
    budget, workers = memory_budget(memory_limit), granted_cores()
    tune_allocator(budget < SCARCE)
    plan = clustering.plan(images, budget)
    warm_up(images, None, clustering.n_nodes)
    choice = choose_executor(executor, workers, plan.seconds)

    def make_task(run: RunDirectory) -> PixelTask:
        looked_at = images
        if is_separate(choice):
            looked_at = [replace(each, source=spilled(each.source, run.path)) for each in images]
        sink.task = clustering.task(looked_at, run.units_path)
        return sink.task

    run_in_scratch(plan, make_task, sink, Resources(choice, "threads", workers, budget, 1))


@dataclass
class _LabelsSink:
    """Writes clusters and metaclusters of the images into zarr arrays of a scratch folder.

    Attributes
    ----------
    places
        Of each image the arrays of its clusters and its metaclusters.
    task
        Of the run.
    assigned, fsom
        What was found; there when the run is.
    """

    clustering: Clustering
    images: Sequence[PixelImage]
    folder: Path
    places: list[tuple[Path, Path]] = field(default_factory=list)
    task: PixelTask = field(init=False)
    assigned: Assigned = field(init=False)
    fsom: Any = None

    def add(self, unit: Unit, result: UnitReader) -> None:
        """Take a tile's clusters."""
        if unit.name == WEIGH:
            note_sampling(result)
        if unit.what["stage"] != ASSIGN:
            return
        if not self.places:
            self._begin()
        _image, tile = self.task.place(unit)
        extents = [edge.stop - edge.start for edge in tile.region]
        clusters = self.assigned.take(result).reshape(extents)
        for place, labels in zip(
            self.places[unit.what["image"]], (clusters, self._groups[clusters]), strict=True
        ):
            write_region(place, tile.region, labels)

    def _begin(self) -> None:
        import zarr

        trained = self.clustering.trained_by(self.task)
        self.assigned, self.fsom = Assigned(trained), flowsom_in(self.task)
        n_groups = trained.n_metaclusters
        self._groups = np.append(0, trained.metaclusters).astype(cluster_dtype(n_groups))
        dtypes = cluster_dtype(trained.n_nodes), self._groups.dtype
        for number, image in enumerate(self.images):
            places = self.folder / f"clusters-{number}", self.folder / f"metaclusters-{number}"
            for place, dtype in zip(places, dtypes, strict=True):
                zarr.create_array(place, shape=image.shape, dtype=dtype, chunks=image.grid.edges)
            self.places.append(places)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """All is written."""

    def abort(self) -> None:
        """The folder goes with the call."""


def _labels(
    sdata: SpatialData,
    image_name: str,
    pixels: Any,
    chunks: Any,
    scale_factors: Sequence[Mapping[str, int] | int] | None,
) -> Any:
    """A labels element of lazy pixels, placed as the image is."""
    from spatialdata.models import Labels2DModel, Labels3DModel
    from spatialdata.transformations import get_transformation

    model = Labels2DModel if pixels.ndim == 2 else Labels3DModel
    try:
        if chunks is not None:
            plain = chunks if isinstance(chunks, (int, str)) else tuple(chunks)[-pixels.ndim :]
            pixels = pixels.rechunk(plain)
        with quiet_spatialdata():
            return model.parse(
                pixels,
                transformations=dict(get_transformation(raster(sdata, image_name), get_all=True)),
                scale_factors=None if scale_factors is None else list(scale_factors),
                chunks=tuple(edges[0] for edges in pixels.chunks),
            )
    except (ValueError, TypeError, ArithmeticError) as error:
        raise InputError(
            f"labels of {image_name} cannot be made with chunks={chunks!r}, "
            f"scale_factors={scale_factors!r}: {error}"
        ) from error


def _no_pixels(image: PixelImage) -> Any:
    """Lazy labels of the shape of an image."""
    import dask.array as da

    zeros: Any = da.zeros
    return zeros(image.shape, dtype=np.uint8, chunks=image.grid.edges)


def _written(place: Path, kept: bool) -> Any:
    """Pixels of a zarr array of the scratch folder; in memory where nobody keeps them."""
    import dask.array as da

    from_zarr: Any = da.from_zarr  # it carries no annotations
    pixels = from_zarr(str(place))
    if kept:
        return pixels
    from_array: Any = da.from_array
    return from_array(pixels.compute(), chunks=pixels.chunks)
