"""Call a stage with the project's settings and paths, here or on a cluster."""
