"""The training loop: steps, optimisers, validation, checkpoints, several processes."""
