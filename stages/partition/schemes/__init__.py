"""The ways to cut a city: each module's `cut` turns images into partitions, the finest first."""
