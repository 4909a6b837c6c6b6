"""Feature stores on disk or object storage; knows nothing of images or models."""
