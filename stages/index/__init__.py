"""Find images and their positions -> the manifest, one row per image."""
