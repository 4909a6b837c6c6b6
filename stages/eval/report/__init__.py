"""Predictions, metrics and photos -> one self-contained page that shows where a localiser fails."""
