"""Geometry of images and masks: sources, tiles, the cell index, portraits."""
