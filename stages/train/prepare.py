"""Before the first step: open and check the inputs, split the images, make the localiser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cache.reader import FeatureReader
from stages.errors import ConfigError, InputError
from stages.extract.row_identity import require_same_rows
from stages.index.manifest import Manifest
from stages.models.heads.heads import HeadSettings
from stages.models.localiser.localiser import Localiser
from stages.models.trainable_blocks import TrainableBlocks, TrainableBlocksSettings
from stages.partition.classes import ClassTable, in_class, load_labels
from stages.partition.identity import require_one_partition
from stages.partition.views import ViewPlan
from stages.train.config import TrainConfig
from stages.train.data.holdout import hold_out, visit_numbers
from stages.train.data.load import chosen_inputs, load_rows, open_views
from stages.train.data.source import FeatureSource
from stages.train.inputs import Groups, TrainInputs
from stages.train.loop.validation import Validation


@dataclass(frozen=True)
class Files:
    """The opened inputs of a run."""

    manifest: Manifest
    classes: ClassTable
    labels: npt.NDArray[np.int32]
    reader: FeatureReader
    plan: ViewPlan | None
    views: FeatureReader | None
    pooled: tuple[str, ...]
    tail: TrainableBlocksSettings | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Outputs that make a row: the pooled ones and, with a tail, the tensor that it starts from."""
        return self.pooled if self.tail is None else (*self.pooled, self.tail.source)


def open_files(inputs: TrainInputs) -> Files:
    """Open the inputs and check that they belong together.

    Raises
    ------
    InputError
        If one does not exist or they belong to different manifests.
    StoreError
        If features or planned views are not extracted yet.
    """
    manifest, reader = Manifest.open(inputs.manifest), FeatureReader.open(inputs.features)
    classes = ClassTable.load(inputs.partition / "classes.parquet")
    labels = load_labels(inputs.partition / "labels.npy")
    if len(labels) != manifest.rows or labels.max(initial=-1) >= len(classes):
        raise InputError(
            f"{inputs.partition} was made for another manifest than {inputs.manifest}: "
            "run `pipeline partition` again"
        )
    plan = ViewPlan.load(inputs.partition / "views.parquet") if inputs.config.augment_views else None
    require_one_partition(inputs.partition, manifest, classes, labels, plan)
    require_same_rows(reader.store, manifest)
    reader.require_complete()
    views = open_views(inputs.views, plan, reader, manifest) if plan else None
    pooled = chosen_inputs(inputs.config, reader)
    tail = (
        TrainableBlocksSettings.of(reader.recipe, pooled, inputs.config.aggregator)
        if inputs.config.tail
        else None
    )
    return Files(manifest, classes, labels, reader, plan, views, pooled, tail)


def choose_groups(groups: Groups, classes: ClassTable) -> tuple[int, ...]:
    """Return the numbers of the groups to train, ascending.

    Raises
    ------
    ConfigError
        If a group does not exist, or none is given.
    """
    if isinstance(groups, str):
        return tuple(range(classes.groups))
    unknown = sorted(set(groups) - set(range(classes.groups)))
    if unknown or not groups:
        raise ConfigError(f"groups {unknown or 'none'}: expected some of 0 to {classes.groups - 1}")
    return tuple(sorted(set(groups)))


def new_localiser(inputs: TrainInputs, files: Files) -> Localiser:
    """Return a new localiser, or the one at `inputs.base` with new heads where only these are trained.

    Raises
    ------
    ConfigError
        If the localiser at `inputs.base` is needed and does not exist or does not fit.
    WeightsError
        If a tail is to be trained and the backbone's weights are missing or differ from those of the
        features.
    """
    config, recipe = inputs.config, files.reader.recipe
    settings = HeadSettings(config.head, config.scale, config.margin, config.easy_margin)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(inputs.seed)
        new = Localiser.new(files.classes, recipe, files.inputs, config.embedding_dim, settings, files.tail)
        if inputs.train_projection and files.tail is not None:
            new.tail = TrainableBlocks.pretrained(files.tail, recipe, inputs.weights)
    if inputs.groups == "all":
        return new
    folder = inputs.base or inputs.output
    require_base(folder)
    base = Localiser.load(folder)
    differing = [key for key in new.meta if key != "training" and new.meta[key] != base.meta.get(key)]
    ours, theirs = new.classes, base.classes
    if ours.groups != theirs.groups or not np.array_equal(ours.outlines, theirs.outlines):
        differing.append("cells")
    if differing:
        raise ConfigError(
            f"the localiser at {folder} differs in {', '.join(differing)}: train all groups again"
        )
    for group in inputs.groups:
        base.heads[group] = new.heads[group]
    return base


def require_base(base: Path) -> None:
    """Raise ConfigError unless there is a localiser that heads alone can be trained against."""
    if not base.exists():
        raise ConfigError(
            f"no localiser at {base} whose projection these groups could share: train all groups first"
        )


def split_rows(
    config: TrainConfig, files: Files, groups: tuple[int, ...], seed: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return masks of the manifest rows to train on and of those held out, each (rows,).

    Bad rows, rows of no class and rows of other groups are in neither.

    Raises
    ------
    InputError
        If no row is left.
    """
    trained = np.isin(files.classes.group, groups)
    usable = in_class(files.labels, trained) & files.reader.valid
    if not usable.any():
        raise InputError(
            f"no image to train on: {int(in_class(files.labels).sum())} images have a class; "
            "lower partition.min_images_per_class, or see `pipeline status --bad`"
        )
    holdout = np.zeros_like(usable)
    wanted = round(min(config.validation.share * usable.sum(), config.validation.max_images))
    if wanted:
        visits = visit_numbers(files.manifest)[usable]
        classes = _finest(files.labels[usable], trained)
        holdout[usable] = hold_out(classes, visits, wanted, np.random.default_rng([seed, 1 << 20]))
    return usable & ~holdout, holdout


def _finest(labels: npt.NDArray[np.int32], trained: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return each image's class in the first partition where it has a class that is trained, (n,)."""
    if labels.ndim == 1:
        return labels
    first = ((labels >= 0) & trained[labels]).argmax(axis=1)
    finest: npt.NDArray[np.int32] = labels[np.arange(len(labels)), first]
    return finest


def open_source(files: Files, rows: npt.NDArray[np.bool_]) -> FeatureSource:
    """Return the features to train on: the marked rows and their views."""
    return FeatureSource(files.reader, files.inputs, files.labels, rows, files.views, files.plan)


def load_validation(
    config: TrainConfig, files: Files, holdout: npt.NDArray[np.bool_], device: torch.device
) -> Validation:
    """Return the held-out images with their true positions."""
    features = load_rows(files.reader, holdout, files.inputs, device)
    return Validation(features, files.manifest.positions()[holdout], config.validation)
