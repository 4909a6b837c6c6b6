"""Image files to RGB pixels: formats, preprocessing, augmentation."""
