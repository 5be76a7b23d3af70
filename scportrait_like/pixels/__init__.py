"""Rows of pixels of images: prepared, sampled, and given the nearest node of a map."""
