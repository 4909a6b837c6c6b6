"""Training data: sources, residency, schedules, samplers and the feed of batches."""
