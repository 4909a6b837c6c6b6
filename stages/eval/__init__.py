"""A localiser and queries -> predictions, metrics and the LR@N curve."""
