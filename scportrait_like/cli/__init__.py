"""The command line: ``scportrait-like``.

Nothing heavy is imported before a command needs it, so that ``--help`` is fast.
"""

from scportrait_like.cli.app import app, main

__all__ = ["app", "main"]
