"""Sources of images: a folder, a CSV, a text list or a manifest; one module reads each kind."""
