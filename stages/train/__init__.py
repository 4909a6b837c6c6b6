"""Train: cached features and classes to a localiser."""
