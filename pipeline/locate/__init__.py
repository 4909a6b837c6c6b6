"""Locate photos with a trained localiser."""
