"""Every on-disk name, key and dtype, once."""

from __future__ import annotations

from typing import Final

# The project folder
CONFIG_FILE: Final = "config.yml"
LOG_FILE: Final = "processing.log"
STORE: Final = "scportrait.sdata"
LOCK_FILE: Final = ".lock"
INDEX_DIR: Final = ".index"  # the cell index of each labels element, one parquet file each

# Elements of the SpatialData store
INPUT_IMAGE: Final = "input_image"
SEG_NUCLEUS: Final = "seg_all_nucleus"
SEG_CYTOSOL: Final = "seg_all_cytosol"
CENTERS_PREFIX: Final = "centers_"  # centers_seg_all_nucleus, ...
LABELS_OF_KIND: Final = {"nucleus": SEG_NUCLEUS, "cytosol": SEG_CYTOSOL}
GLOBAL: Final = "global"  # pixels
MICROMETER: Final = "micrometer"
ATTRS_KEY: Final = "scportrait_like"  # our own attributes of an element: its revision
REVISION: Final = "revision"
MADE_BY: Final = "made_by"  # the folder of the step whose output it is

# Tables
INSTANCE_KEY: Final = "scportrait_cell_id"
REGION_KEY: Final = "region"
INTENSITIES: Final = "intensities"

# A step's folder
RUN_FILE: Final = "run.json"  # the fingerprint, beside a complete output and in a run directory
LEDGER_FILE: Final = "ledger.parquet"
UNITS_DIR: Final = "units"
BATCHES_DIR: Final = "batches"
JOURNAL_FILE: Final = "journal.txt"
REFUSED_FILE: Final = "refused"
PLAN_FILE: Final = "plan.json"  # in the plan's folder; its last file, so it marks it whole
OUTPUT_DIR: Final = "output"

# Extraction
EXTRACTION_DIR: Final = "extraction"
EXTRACTION_DATA: Final = "data"
H5SC_FILE: Final = "single_cells.h5sc"
REMOVED_FILE: Final = "removed_classes.csv"
IMAGES_KEY: Final = "single_cell_images"  # obsm[...] and uns[...] of an .h5sc file

# Aggregation
AGGREGATION_DIR: Final = "aggregation"

# Featurization
FEATURIZATION_DIR: Final = "featurization"
FEATURES: Final = "features"
MODEL_FILE: Final = "model.npz"  # what a model was fitted to, beside the ledger
FEATURIZATION_KEY: Final = "featurization"  # uns[...] of a table of features

# Pixel clustering
PIXEL_CLUSTERING_DIR: Final = "pixel_clustering"
PIXEL_CLUSTERS: Final = "pixel_clusters"  # labels: clusters and metaclusters, counted from 1
PIXEL_METACLUSTERS: Final = "pixel_metaclusters"
PIXEL_CLUSTER_INTENSITIES: Final = "pixel_cluster_intensities"  # tables that annotate them
PIXEL_METACLUSTER_INTENSITIES: Final = "pixel_metacluster_intensities"
PIXEL_CLUSTER_COUNTS: Final = "pixel_cluster_counts"  # the table that annotates the mask
SOM_FILE: Final = "model.json"  # the trained map
MAPPING_FILE: Final = "mapping.csv"  # the metacluster of each cluster


def picked(name: str, n_cells: int, seed: int) -> str:
    """Name of what was made of some cells, picked at random."""
    return f"{name}_ncells_{n_cells}_seed_{seed}"


def partial(name: str, n_cells: int, seed: int) -> str:
    """Name of what a partial run made, as scPortrait calls it."""
    return f"partial_{picked(name, n_cells, seed)}"


# Chunks of what the loaders write: one channel, 2048 x 2048 pixels. At this edge 2.7 % of the cells
# cross a border, and a plane of uint16 is 8 MB.
CHUNK: Final = 2048
# A pyramid ends when its last level fits a screen.
PYRAMID_SMALLEST: Final = 1024
