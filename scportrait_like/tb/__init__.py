"""Tables of cells of a SpatialData object, and windows of them, as functions.

>>> import scportrait_like as sl
>>> sdata = sl.datasets.pixie_example()
>>> sl.tb.allocate_intensity(
...     sdata,
...     image_name="raw_image_fov0",
...     labels_name="label_whole_fov0",
...     output_table_name="intensities",
...     obs_stats=["var", "count"],
...     to_coordinate_system="fov0",
... )
>>> sl.tb.featurize(
...     sdata,
...     image_name="raw_image_fov0",
...     labels_name="label_whole_fov0",
...     table_name="intensities",
...     output_table_name="intensities",
...     diameter=32,
...     embedding_dimension=8,
...     model="pca",
...     to_coordinate_system="fov0",
... )
"""

from scportrait_like.tb._cluster_intensity import cluster_intensity
from scportrait_like.tb._featurize import featurize
from scportrait_like.tb._instances import extract_instances
from scportrait_like.tb._intensity import allocate_intensity

__all__ = ["allocate_intensity", "cluster_intensity", "extract_instances", "featurize"]
