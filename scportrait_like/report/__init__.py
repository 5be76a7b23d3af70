"""The report: a page with pictures of a project's inputs and outputs, and the fate of each cell."""

from scportrait_like.report._page import FOLDER, PAGE, write_report

__all__ = ["FOLDER", "PAGE", "write_report"]
