"""Where the files of one row and seed are: beside the project's own, which are never touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.project.paths import Paths

if TYPE_CHECKING:
    from cache.storage.paths import StoragePath


@dataclass(frozen=True)
class RowPaths(Paths):
    """The files of one row and seed: its folder, its partition, and the name of its store of views."""

    run: Path = Path()
    partition_folder: Path = Path()
    views: str = "views"

    @property
    def partition(self) -> Path:
        """Folder of classes, labels and view plan."""
        return self.partition_folder

    @property
    def models(self) -> Path:
        """Folder of the localiser and its checkpoints."""
        return self.run

    @property
    def results(self) -> Path:
        """Folder of metrics, predictions and plots."""
        return self.run

    def features(self, split: str) -> StoragePath:
        """Feature store of one split."""
        return super().features(self.views if split == "views" else split)

    def tracked_features(self, split: str) -> Path:
        """Where the store of one split would be in the project."""
        return super().tracked_features(self.views if split == "views" else split)
