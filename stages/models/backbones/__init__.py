"""Frozen backbones from timm: registry, weights, preprocessing, pooled outputs, split points."""
