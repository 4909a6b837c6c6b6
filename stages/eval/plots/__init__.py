"""Curves and SVG plots of the metrics."""
