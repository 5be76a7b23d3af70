"""Pixel clustering: a self-organising map of pixels, and the cluster of every pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from scportrait_like import names
from scportrait_like.config import StepConfig
from scportrait_like.errors import InputError, MissingInputError
from scportrait_like.io.cluster_tables import COLUMNS
from scportrait_like.io.clustering_inputs import (
    SavedMap,
    channels_of_map,
    clustered_image,
    saved_map_changes,
    transforms_of,
)
from scportrait_like.io.inputs_of_steps import Channels, check_elements, find_channels
from scportrait_like.io.pixel_clustering_output import (
    CellFacts,
    ClusteringFacts,
    PixelClusteringSink,
)
from scportrait_like.io.tables import check_channels
from scportrait_like.pixels.clustering import Clustering, warm_up
from scportrait_like.pixels.images import PixelImage
from scportrait_like.pixels.preparation import Preparation
from scportrait_like.pixels.sampling import STRATA, Sampling
from scportrait_like.pixels.som import SomSettings
from scportrait_like.pixels.som_settings import MOST_NODES
from scportrait_like.pixels.trained_som import TrainedSom
from scportrait_like.run.plan import Plan, Sink, Task
from scportrait_like.run.rundir import Fingerprint, RunDirectory, changes
from scportrait_like.step import ProcessingStep
from scportrait_like.table_step import Placed, TableStep

Percent = Annotated[float, Field(ge=0, le=100)]
# Keys that mean nothing where a saved map is applied: it brings what they say.
TRAINING: Final = (
    "channels",
    "fraction",
    "max_samples",
    "strata",
    "n_clusters",
    "xdim",
    "ydim",
    "random_state",
    "estimator",
    "preprocess",
)


def _sigma(value: Any) -> Any:
    """Refuse in one sentence what would otherwise fail twice: as a number and as a list."""
    for each in value if isinstance(value, list) else [value]:
        is_number = isinstance(each, (int, float)) and not isinstance(each, bool)
        if value is not None and not (is_number and 0 <= each < math.inf):
            raise ValueError("must be a number from 0 on, a list of one for each channel, or null")
    return value


class PreprocessConfig(BaseModel):
    """Key ``preprocess``: the parameters of `scportrait_like.im.pixel_clustering_preprocess`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    p: Percent | None = 99.0
    p_sum: Percent | None = 5.0
    p_post: Percent | None = 99.9
    sigma: Annotated[float | list[float] | None, BeforeValidator(_sigma)] = 2.0
    norm_sum: bool = True
    cap_max: Annotated[float, Field(gt=0)] | None = None
    cast_dtype: Literal["float32", "float64"] = "float32"

    def preparation(self) -> Preparation:
        """What they mean."""
        given = self.model_dump(exclude={"cast_dtype"})
        return Preparation(**given, dtype=self.cast_dtype)


def _preprocess(value: Any) -> Any:
    """Take false for none, and nothing or true for the usual."""
    if value is False:
        return None
    if value is None or value is True:
        return {}
    known = PreprocessConfig.model_fields
    if isinstance(value, Mapping) and (unknown := [key for key in value if key not in known]):
        raise ValueError(f"unknown {', '.join(map(str, unknown))}; known are {', '.join(known)}")
    return value


def _known_strata(name: str | None) -> str | None:
    if name is not None and name not in STRATA:
        raise ValueError(f"known are {', '.join(STRATA)}, or null")
    return name


class PixelClusteringConfig(StepConfig):
    """Section ``PixelClustering``.

    Attributes
    ----------
    fraction
        Share of the pixels that the map is trained on; None: all, up to `max_samples`.
    max_samples
        Most pixels that it is trained on.
    strata
        None: pixels are drawn uniformly; ``channels``: as many of those that are brightest in each
        channel.
    n_clusters
        Metaclusters.
    xdim, ydim
        Edges of the map: it has ``xdim * ydim`` clusters.
    random_state
        Of the sample and of the training.
    estimator
        ``default`` or ``batch``: which of flowsom's two trains.
    preprocess
        How pixels are prepared; None (false in the file): they are taken as they are.
    model
        A saved map to apply instead of training one: a ``model.json``, or the folder of the project
        (or of its pixel clustering) that has one. A relative path starts from the project's folder,
        or else from the working directory.
    count_in_cells
        Whether to count each cluster's pixels in each cell of the mask, where there is one.
    clusters_name, metaclusters_name
        Of the labels elements.
    clusters_table_name, metaclusters_table_name
        Of their tables of mean intensities.
    table_name
        Of the table of counts in cells.
    """

    fraction: Annotated[float, Field(gt=0, le=1)] | None = 0.1
    max_samples: int = Field(2_000_000, ge=1)
    strata: Annotated[str | None, AfterValidator(_known_strata)] = None
    n_clusters: int = Field(5, ge=1)
    xdim: int = Field(10, ge=1, le=MOST_NODES)
    ydim: int = Field(10, ge=1, le=MOST_NODES, validate_default=True)
    random_state: int = Field(100, ge=0, lt=2**32)
    estimator: Literal["default", "batch"] = "default"
    preprocess: Annotated[PreprocessConfig | None, BeforeValidator(_preprocess)] = (
        PreprocessConfig()
    )
    model: str | None = None
    count_in_cells: bool = True
    clusters_name: str | None = None
    metaclusters_name: str | None = None
    clusters_table_name: str | None = None
    metaclusters_table_name: str | None = None

    @field_validator("ydim")
    @classmethod
    def _has_nodes(cls, value: int, info: ValidationInfo) -> int:
        """Refuse a map with fewer nodes than metaclusters, or with too many."""
        n_nodes = value * info.data.get("xdim", MOST_NODES // value)
        if not max(2, info.data.get("n_clusters", 1)) <= n_nodes <= MOST_NODES:
            raise ValueError(
                f"xdim * ydim must be two at least, as many as n_clusters, and {MOST_NODES:,} at "
                "most"
            )
        return value

    @field_validator("model")
    @classmethod
    def _trains_nothing(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Refuse settings of a training that does not take place."""
        fields, data = cls.model_fields, info.data  # of those that stand above this one
        given = [key for key in TRAINING if key in data and data[key] != fields[key].default]
        if value is not None and given:
            raise ValueError(
                f"a saved map has settings, channels and a preparation of its own; leave out "
                f"{', '.join(given)}"
            )
        return value

    @field_validator(
        "clusters_name", "metaclusters_name", "clusters_table_name", "metaclusters_table_name"
    )
    @classmethod
    def _is_its_own(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Refuse one name for two of the elements."""
        for key, other in info.data.items():
            if key.endswith("_name") and value is not None and other == value:
                raise ValueError(f"{key} is the same; give each a name of its own")
        return value

    def result_keys(self) -> dict[str, Any]:
        """The keys that can change a result: none of the training where there is none."""
        found = super().result_keys()
        if self.model is not None:
            for key in ("model", *TRAINING):
                del found[key]
        return found


class PixelClustering(TableStep):
    """Train a self-organising map on a sample of pixels (FlowSOM), and assign every pixel.

    Into the project's store go two labels elements, the clusters and the metaclusters of all
    pixels, a table of mean intensities for each, and, where there is a mask, the table that says
    how many pixels of each cluster lie in each cell. The output folder holds ``model.json``, the
    trained map with the numbers of its preparation, ``mapping.csv`` and ``run.json``.
    """

    Config: ClassVar[type[StepConfig]] = PixelClusteringConfig
    config: PixelClusteringConfig
    folder: ClassVar[str] = names.PIXEL_CLUSTERING_DIR
    makes_rasters: ClassVar[bool] = True

    def process(self, *, overwrite: bool | None = None) -> Path:
        """Cluster all pixels.

        Parameters
        ----------
        overwrite
            True starts anew; see `ProcessingStep.execute`.

        Returns
        -------
        pathlib.Path
            Folder of the trained map; labels and tables stand in ``project.sdata``.

        Raises
        ------
        InputError
            Channels, sizes, a sample or a saved map that do not work.
        ElementExistsError
            Something else than this step's element has one of the names.
        StaleRunError
            What lies there was made from other settings or inputs.
        """
        self.check(overwrite=overwrite)
        return self.execute({}, overwrite)

    def check(
        self, before: Sequence[ProcessingStep] = (), *, overwrite: bool | None = None
    ) -> None:
        """Refuse what could not be read or written; see `process`."""
        self.check_table({}, overwrite, COLUMNS)
        with self.absent_yet(before):
            self.inputs()
            self._look()

    # Names

    def _named(self, given: str | None, usual: str) -> str:
        return given or (f"{usual}_{self.config.name}" if self.config.name else usual)

    def table_of(self, call: Mapping[str, Any]) -> str:
        """Name of the table of counts in cells."""
        return self._named(self.config.table_name, names.PIXEL_CLUSTER_COUNTS)

    @property
    def clusters_name(self) -> str:
        """Name of the labels of clusters."""
        return self._named(self.config.clusters_name, names.PIXEL_CLUSTERS)

    @property
    def metaclusters_name(self) -> str:
        """Name of the labels of metaclusters."""
        return self._named(self.config.metaclusters_name, names.PIXEL_METACLUSTERS)

    @property
    def clusters_table_name(self) -> str:
        """Name of the table of the clusters' mean intensities."""
        return self._named(self.config.clusters_table_name, names.PIXEL_CLUSTER_INTENSITIES)

    @property
    def metaclusters_table_name(self) -> str:
        """Name of the table of the metaclusters' mean intensities."""
        return self._named(self.config.metaclusters_table_name, names.PIXEL_METACLUSTER_INTENSITIES)

    def placed(self, call: Mapping[str, Any]) -> list[Placed]:
        """Return the labels and tables, that of the counts only where there is a mask."""
        found = [
            Placed(self.clusters_name, "labels", "clusters_name"),
            Placed(self.metaclusters_name, "labels", "metaclusters_name"),
            Placed(self.clusters_table_name, "tables", "clusters_table_name"),
            Placed(self.metaclusters_table_name, "tables", "metaclusters_table_name"),
        ]
        return [*found, *super().placed(call)] if self._mask else found

    def output_name(self, call: Mapping[str, Any]) -> str:
        """``data``, or the section's own name."""
        return self.config.name or super().output_name(call)

    def repeat(self, call: Mapping[str, Any], overwrite: bool = True) -> str:
        """How a user writes the call."""
        return f"project.cluster_pixels({'overwrite=True' if overwrite else ''})"

    # Inputs

    @property
    def _mask(self) -> str | None:
        """Name of the mask in whose cells pixels are counted."""
        there = self.config.labels is not None or self.labels in self.filehandler
        return self.labels if self.config.count_in_cells and there else None

    def inputs(self) -> tuple[str, ...]:
        """The image, and the mask where there is one."""
        image, mask = self.config.image, self._mask
        found = (image,) if mask is None else (image, mask)
        check_elements(self.filehandler, image, found)
        return found

    def fingerprint(self, call: Mapping[str, Any]) -> Fingerprint:
        """Everything that can change the result; a saved map counts by its content."""
        found, saved = super().fingerprint(call), self._saved_map
        if saved is not None:
            found["model"] = saved.record(self._run_directory(saved.output).path)
        return found

    def differences(self, made: Fingerprint, now: Fingerprint) -> list[str]:
        """List what differs between two fingerprints; a saved map by its path, not by a hash."""
        if made.get("model") and now.get("model"):
            changed = saved_map_changes(made["model"], now["model"])
            return [*changed, *changes({**made, "model": None}, {**now, "model": None})]
        return changes(made, now)

    # A saved map

    @property
    def _saved_map(self) -> SavedMap | None:
        if self.config.model is None:
            return None
        return SavedMap(self.config.model, self.project_location, self.output_path)

    def _saved(self) -> TrainedSom | None:
        saved = self._saved_map
        if saved is None:
            return None
        with self._naming("model"):
            return saved.load()

    @contextmanager
    def _naming(self, key: str) -> Iterator[None]:
        """Say in errors which section is meant."""
        try:
            yield
        except (InputError, MissingInputError) as error:
            raise type(error)(f"section {self.title}: key {key}: {error}") from error

    # Plan, task, sink

    def _channels(self, saved: TrainedSom | None) -> Channels:
        there, image = self.filehandler, self.config.image
        if saved is None:
            found = find_channels(there, image, self.config.channels, self.title)
        else:
            with self._naming("model"):
                found = channels_of_map(there, image, saved.channels)
        check_channels([name for _, name in found], image)
        return found

    def _clustering(self, saved: TrainedSom | None, channels: Channels) -> Clustering:
        config = self.config
        if saved is not None:
            with self._naming("model"):
                preparation, _ = saved.prepared_by()
            return Clustering(preparation, trained=saved)
        preparation = None if config.preprocess is None else config.preprocess.preparation()
        if preparation is not None:
            with self._naming("preprocess"):
                preparation.check_differs(len(channels))
        return Clustering(
            preparation=preparation,
            sampling=Sampling(
                config.fraction, config.max_samples, config.random_state, config.strata
            ),
            som=SomSettings.of(
                [name for _, name in channels],
                n_clusters=config.n_clusters,
                xdim=config.xdim,
                ydim=config.ydim,
                seed=config.random_state,
                model=config.estimator,
            ),
        )

    def _look(self) -> tuple[Clustering, PixelImage]:
        """What is to be done, and with which image."""
        saved = self._saved()
        channels = self._channels(saved)
        with self._naming("image"):
            image = clustered_image(self.filehandler, self.config.image, channels, self._mask)
        return self._clustering(saved, channels), image

    def plan(self, call: Mapping[str, Any]) -> Plan:
        """Cut the image into tiles; the mask is indexed."""
        clustering, image = self._look()
        self._cells()
        return clustering.plan([image], self.budget())

    def task(self, plan: Plan, run: RunDirectory) -> Task:
        """Return the work of a unit; kernels are compiled here, before any worker starts."""
        clustering, image = self._look()
        prepared = clustering.preparation
        warm_up([image], prepared.dtype if prepared else None, clustering.n_nodes)
        return clustering.task([image], run.units_path)

    def sink(self, plan: Plan, output: Path, call: Mapping[str, Any]) -> Sink:
        """Return what writes the labels, and the tables and the map at the end."""
        clustering, image = self._look()
        facts = ClusteringFacts(
            clusters=self.clusters_name,
            metaclusters=self.metaclusters_name,
            cluster_table=self.clusters_table_name,
            metacluster_table=self.metaclusters_table_name,
            region_key=self.config.region_key,
            attributes=self.table_attributes(call),
            transforms=transforms_of(self.filehandler, self.config.image),
            cells=self._cells(),
        )
        units_path = RunDirectory(output.parent).units_path
        task = clustering.task([image], units_path)
        return PixelClusteringSink(clustering, task, output, self.filehandler, facts)

    def _cells(self) -> CellFacts | None:
        mask, there, key = self._mask, self.filehandler, self.config.instance_key
        if mask is None:
            return None
        return CellFacts.of(there, mask, self.table_of({}), key, self.budget())
