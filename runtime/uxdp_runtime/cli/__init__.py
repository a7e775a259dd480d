"""The ``uxdp`` command."""

from .group import main

__all__ = ["main"]
