"""Where the files of one row and seed lie, beside the project's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.storage.paths import StoragePath
from pipeline.project.paths import Paths


@dataclass(frozen=True)
class RowPaths(Paths):
    """The files of one row and seed; whatever is not named here is the project's own.

    Attributes
    ----------
    run : Path
        Folder of the training and its evaluation.
    cut : Path
        Folder of the partition.
    views : str
        Name of the store of views.
    """

    run: Path = Path()
    cut: Path = Path()
    views: str = "views"

    @property
    def partition(self) -> Path:
        """Folder of classes, labels and view plan."""
        return self.cut

    def features(self, split: str) -> StoragePath:
        """Feature store of one split; views of another plan have a store of their own."""
        return super().features(self.views if split == "views" else split)

    def tracked_features(self, split: str) -> Path:
        """Where the store of one split would lie in the project."""
        return super().tracked_features(self.views if split == "views" else split)

    @property
    def localiser(self) -> Path:
        """Folder of the trained localiser."""
        return self.run / "localiser"

    @property
    def checkpoints(self) -> Path:
        """Where a training that was interrupted can go on."""
        return self.run / "localiser.checkpoints"

    @property
    def plots(self) -> Path:
        """Folder of the curves."""
        return self.run / "plots"

    @property
    def training_log(self) -> Path:
        """Loss, speed and validation over the training steps."""
        return self.plots / "training"

    @property
    def curve(self) -> Path:
        """LR@N over N."""
        return self.plots / "lr_curve.csv"

    @property
    def metrics(self) -> Path:
        """The numbers of the evaluation."""
        return self.run / "metrics.json"

    @property
    def predictions(self) -> Path:
        """One row per query."""
        return self.run / "predictions.parquet"
