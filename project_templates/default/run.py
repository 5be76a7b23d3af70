"""Load an image and a mask, extract, measure, featurize every cell, look at the pictures.

Run it with ``python run.py``, and again after an interruption or a change in config.yml or here: it
goes on where it stopped, and leaves alone what is done.
"""

from pathlib import Path

from scportrait_like import Project

HERE = Path(__file__).resolve().parent

# An OME-TIFF with all channels, or a list of TIFFs, one a channel.
IMAGE = HERE / "input" / "image.ome.tif"
# A mask: the number of its cell in each pixel, 0 between the cells.
LABELS = HERE / "input" / "labels.tif"

project = Project(HERE)
project.load_input_from_tif_files(IMAGE)
project.load_labels(LABELS, kind="cytosol")  # or kind="nucleus"; both may be loaded

project.run()  # every section of config.yml; or project.extract(), .aggregate(), ...

print(project)
print(f"Pictures of it all: {project.report()}")
