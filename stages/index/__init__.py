"""Index: find images and their positions and write the manifest, one row per image."""
