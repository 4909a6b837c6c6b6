"""Run a stage with the project's parameters and paths, here or on a cluster."""
