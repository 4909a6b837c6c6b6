"""Metrics of predictions: breakdowns, confidence, reliability."""
