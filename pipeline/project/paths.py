"""Where every artifact lives, in flow order; nothing else joins paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.storage.paths import StoragePath

SPLITS = ("database", "queries", "views")


@dataclass(frozen=True)
class Paths:
    """The files of one project folder.

    Parameters
    ----------
    project
        Folder that holds params.yaml; relative paths in params.yaml start here.
    features_name
        Name of the feature folder, so that stores of several backbones live side by side.
    features_home
        Where feature folders live; None: where DVC tracks them, data/features in the project.
    """

    project: Path
    features_name: str
    features_home: StoragePath | None = None

    @property
    def toycity(self) -> Path:
        """Folder of the city that the project draws."""
        return self.project / "data" / "toycity"

    def index(self, split: str) -> Path:
        """Manifest of one split: a row per image."""
        return self.project / "data" / "index" / f"{split}.parquet"

    @property
    def partition(self) -> Path:
        """Folder of classes, labels and view plan."""
        return self.project / "data" / "partition"

    def features(self, split: str) -> StoragePath:
        """Feature store of one split, on a disk or on object storage."""
        if self.features_home is None:
            return self.tracked_features(split)
        return self.features_home / self.features_name / f"{split}.zarr"

    def tracked_features(self, split: str) -> Path:
        """What DVC tracks of one split's features: the store, or a note of where else it is."""
        return self.project / "data" / "features" / self.features_name / f"{split}.zarr"

    @property
    def localiser(self) -> Path:
        """Folder of the trained localiser, all that `pipeline locate` needs."""
        return self.project / "models" / "localiser"

    def head(self, group: int) -> Path:
        """Return the folder of one head while it is trained on its own, apart from the others."""
        return self.project / "models" / f"localiser.group-{group}"

    @property
    def checkpoints(self) -> Path:
        """Where a training run that was interrupted can go on."""
        return self.project / "models" / "localiser.checkpoints"

    @property
    def training_log(self) -> Path:
        """Loss, speed and validation over the training steps, for `dvc plots`."""
        return self.project / "plots" / "training"

    @property
    def metrics(self) -> Path:
        """The numbers that `dvc metrics` shows and compares."""
        return self.project / "metrics.json"

    @property
    def predictions(self) -> Path:
        """One row per query: truth, answer, error."""
        return self.project / "predictions.parquet"

    @property
    def curve(self) -> Path:
        """LR@N over N, for `dvc plots`."""
        return self.project / "plots" / "lr_curve.csv"

    @property
    def plots(self) -> Path:
        """Folder of the plots' data, for `dvc plots`, and of figures for people."""
        return self.project / "plots"

    @property
    def report(self) -> Path:
        """The page that shows where the localiser fails."""
        return self.project / "report.html"

    @property
    def experiments(self) -> Path:
        """Folder of rows trained side by side, apart from the project's own localiser."""
        return self.project / "experiments"
