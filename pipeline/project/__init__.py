"""A project folder: parameters, paths, templates and the demo."""
