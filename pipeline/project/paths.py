"""Where every artifact of a project is, in the order of the stages; no other module joins paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.storage.paths import StoragePath

SPLITS = ("database", "queries", "views")
CROP_SPLITS = {position: f"queries-crop-{round(100 * position)}" for position in (0.0, 0.25, 0.75, 1.0)}
"""Stores of crops of the queries besides the centre, by position; see `eval.crops`."""


def features_name(backbone: str, image_size: int) -> str:
    """Return the name of a feature folder, such as `timm-resnet18-224`; Windows and SMB forbid colons."""
    return f"{backbone.replace(':', '-')}-{image_size}"


@dataclass(frozen=True)
class Paths:
    """The files of one project folder.

    Parameters
    ----------
    project
        Folder that holds params.yaml; relative paths in params.yaml start here.
    features_name
        Name of the feature folder, so that stores of several backbones can exist side by side.
    features_home
        Folder that holds feature folders; None for data/features in the project, where DVC tracks them.
    """

    project: Path
    features_name: str
    features_home: StoragePath | None = None

    @property
    def toycity(self) -> Path:
        """Folder of the toy city."""
        return self.project / "data" / "toycity"

    def index(self, split: str) -> Path:
        """Return the manifest of one split: one row per image."""
        return self.project / "data" / "index" / f"{split}.parquet"

    @property
    def partition(self) -> Path:
        """Folder of classes, labels and view plan."""
        return self.project / "data" / "partition"

    def features(self, split: str) -> StoragePath:
        """Return the feature store of one split, on a disk or on object storage."""
        from cache.storage.paths import storage_path  # imports numpy, which `--help` does not need

        if self.features_home is None:
            return storage_path(self.tracked_features(split))
        return storage_path(self.features_home) / self.features_name / f"{split}.zarr"

    @property
    def elsewhere(self) -> StoragePath:
        """Return the file with features of drawn pictures, beside the stores."""
        return self.features("database").parent / "elsewhere.npz"

    def features_link(self, split: str) -> Path:
        """Return what DVC tracks for one split's features; one file, of whichever backbone is set."""
        return self.project / "data" / "features" / f"{split}.json"

    def tracked_features(self, split: str) -> Path:
        """Return the default place of one split's features."""
        return self.project / "data" / "features" / self.features_name / f"{split}.zarr"

    def lock(self, command: str) -> Path:
        """Return the file that names the process which runs a command in this project."""
        return self.project / f".{command}.lock"

    def imported(self, split: str) -> Path:
        """Return the manifest that came with imported features: the source of the split's index."""
        return self.tracked_features(split).with_suffix(".parquet")

    @property
    def models(self) -> Path:
        """Folder of the localiser and its checkpoints."""
        return self.project / "models"

    @property
    def localiser(self) -> Path:
        """Folder of the trained localiser, all that `pipeline locate` needs."""
        return self.models / "localiser"

    def head(self, group: int) -> Path:
        """Return the folder of one head while a worker trains it."""
        return self.models / f"localiser.group-{group}"

    @property
    def checkpoints(self) -> Path:
        """Folder from which an interrupted training resumes."""
        return self.models / "localiser.checkpoints"

    @property
    def results(self) -> Path:
        """Folder of metrics, predictions and plots."""
        return self.project

    @property
    def metrics(self) -> Path:
        """The numbers that `dvc metrics` shows and compares."""
        return self.results / "metrics.json"

    @property
    def details(self) -> Path:
        """All numbers of the evaluation, block by block."""
        return self.results / "details.json"

    @property
    def timings(self) -> Path:
        """How long each localiser took; no two runs take as long, so DVC does not track it."""
        return self.results / "timings.json"

    @property
    def predictions(self) -> Path:
        """One row per query: truth, answer, error."""
        return self.results / "predictions.parquet"

    @property
    def plots(self) -> Path:
        """Folder of the data for `dvc plots`, and of figures."""
        return self.results / "plots"

    @property
    def training_log(self) -> Path:
        """Folder of loss, speed and validation by training step."""
        return self.plots / "training"

    @property
    def curve(self) -> Path:
        """LR@N by N."""
        return self.plots / "lr_curve.csv"

    @property
    def report(self) -> Path:
        """The page that shows where the localiser fails."""
        return self.project / "report.html"

    @property
    def experiments(self) -> Path:
        """Folder of all experiments, apart from the project's own localiser."""
        return self.project / "experiments"
