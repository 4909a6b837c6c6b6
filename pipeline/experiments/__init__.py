"""Experiments: rows of changed settings, each trained with several seeds, compared in tables."""
