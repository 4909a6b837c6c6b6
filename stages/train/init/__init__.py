"""Initial weights of projection and heads."""
