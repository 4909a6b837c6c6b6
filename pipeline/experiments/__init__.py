"""Experiments: rows of settings, trained with several seeds and compared."""
