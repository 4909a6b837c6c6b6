"""Metrics of predictions: breakdowns, calibration, the blocks of metrics.json."""
