"""Find images and their positions -> the manifest, one row per image."""

from stages.index.config import IndexConfig
from stages.index.run import IndexResult, run

__all__ = ["IndexConfig", "IndexResult", "run"]
