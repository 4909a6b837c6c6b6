"""Checks of a project: status, verify and doctor."""
