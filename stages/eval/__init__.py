"""Evaluate: a localiser and queries to predictions, metrics, plots and the report."""
