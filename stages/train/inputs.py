"""What a training run is given: settings, files, seed and device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cache.storage.paths import StoragePath
from stages.models.localiser.cell_fusion import FusionConfig
from stages.train.config import TrainConfig

Groups = Literal["all"] | tuple[int, ...]


@dataclass(frozen=True)
class TrainInputs:
    """The inputs of a training run.

    Attributes
    ----------
    config : TrainConfig
        Hyper-parameters.
    partition : Path
        Folder of classes, labels and view plan.
    features, views : Path
        Feature stores of the database and of the planned views.
    manifest : Path
        The database's manifest: positions and dates for the validation.
    elsewhere : StoragePath, optional
        Features of drawn pictures, which answers are withheld for; may be missing.
    output : Path
        Folder of the new localiser.
    seed : int
        The same seed gives the same tensors, on a CPU to the bit.
    groups : "all" or tuple of int
        Heads to train. Named heads are trained alone: the projection and the tail of `base` stay as they are.
    base : Path, optional
        Localiser that lends its tail, projection and other heads; by default `output`.
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    log : Path, optional
        Folder of loss, samples_per_s and validation_lr1 over the steps, rewritten with each line.
    checkpoints : Path, optional
        Folder of checkpoints; a run resumes from its own.
    fusion : FusionConfig, optional
        How answers are made of scores. If given, confidences are calibrated on the held-out images.
    weights : str, optional
        Source of a tail's first weights, as `extract.weights`; by default the source named in the features'
        recipe.
    """

    config: TrainConfig
    partition: Path
    features: StoragePath
    views: StoragePath | None
    manifest: Path
    output: Path
    seed: int
    groups: Groups = "all"
    base: Path | None = None
    device: str = "cpu"
    log: Path | None = None
    checkpoints: Path | None = None
    fusion: FusionConfig | None = None
    weights: str | None = None
    elsewhere: StoragePath | None = None

    @property
    def train_projection(self) -> bool:
        """Whether the shared projection and tail are trained, not only some heads."""
        return self.groups == "all"
