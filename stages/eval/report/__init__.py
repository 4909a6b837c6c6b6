"""The report: one HTML page with numbers, plots, a map and the worst failures."""
