"""Store errors; each message says how to fix the fault."""

from __future__ import annotations


class PlacecacheError(Exception):
    """Base of every error the library raises on purpose.

    The command line prints its message as one line and exits 1; anything else
    is a bug and keeps its traceback.
    """


class StoreError(PlacecacheError):
    """A feature store is absent, incomplete, damaged or in use."""


class RecipeMismatch(StoreError):
    """A feature store was made by another recipe than the one asked for."""
