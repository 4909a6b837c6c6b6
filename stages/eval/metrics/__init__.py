"""Metrics of predictions: breakdowns, calibration, the blocks of details.json."""
