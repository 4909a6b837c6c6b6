"""The passes of a run: one that is validated, then perhaps one over all images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.storage.paths import StoragePath
from stages.errors import ConfigError, InputError
from stages.files import Progress
from stages.models.localiser.cell_fusion import FusionConfig
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import calibrate
from stages.train.config import TrainConfig
from stages.train.data.feed import open_feed, schedule_of
from stages.train.data.residency import choose_residency, step_bytes
from stages.train.data.source import FeatureSource, TrainingSet
from stages.train.init.initialise import initialise
from stages.train.loop.checkpoint import Checkpoints, identity_of
from stages.train.loop.distributed import Ranks
from stages.train.loop.trainer import LogLine, LoopState, Trainer
from stages.train.loop.validation import Validation
from stages.train.prepare import (
    Files,
    Groups,
    begin_localiser,
    choose_groups,
    load_exemplars,
    load_validation,
    open_source,
)
from stages.train.result import PassRecord

Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]
Mask = npt.NDArray[np.bool_]
_PASSING = ("residency", "checkpoint_s")
"""Settings that may change between a checkpoint and its resumption: no number depends on them."""


@dataclass
class Run:
    """What the passes share.

    Attributes
    ----------
    config, files, partition, views, base, groups, seed, device, ranks, progress
        As given to `stage.run`.
    checkpoint_folder : Path or None
        Where checkpoints go.
    say : callable
        Called with the pass's name and its log whenever that has grown.
    fusion : FusionConfig or None
        How answers are made, to calibrate them on the held-out images.
    weights : str or None
        Where a tail's first weights come from.
    residency : str
        Where the features waited, and why.
    resumed_step : int
        Step at which a checkpoint was taken up.
    samples : int
        Images and views drawn by this process's run, without those before a checkpoint.
    """

    config: TrainConfig
    files: Files
    partition: Path
    views: StoragePath | None
    base: Path
    groups: Groups
    seed: int
    device: torch.device
    ranks: Ranks
    checkpoint_folder: Path | None
    progress: Progress | None
    say: Callable[[str, list[LogLine]], None]
    fusion: FusionConfig | None = None
    weights: str | None = None
    residency: str = ""
    resumed_step: int = 0
    samples: int = 0
    checkpoints: Checkpoints = field(init=False)

    def __post_init__(self) -> None:
        if self.ranks.count > 1 and self.config.schedule != "joint":
            raise ConfigError("several processes train together only with train.schedule: joint")
        self.chosen = choose_groups(self.groups, self.files.classes)
        self.whole = self.groups == "all"
        self.checkpoints = Checkpoints(
            self.checkpoint_folder, self._identity(), self.config.checkpoint_s, self.ranks
        )

    def train(self, rows: Mask, held: Mask) -> tuple[Localiser, PassRecord, PassRecord]:
        """Return the localiser, the record of the pass that made it and of the pass that was validated."""
        found = self.checkpoints.latest()
        first = PassRecord.from_dict(found[1]["first"]) if found and found[1]["pass"] == "refit" else None
        localiser = None
        if first is None:
            localiser, first = self._pass("first", rows, held, None, None, found)
            found = None
        if not (self.config.validation.refit and held.any()):
            if localiser is None:
                raise InputError(f"{self.checkpoint_folder} holds a pass that was not asked for: delete it")
            return localiser, first, first
        del localiser
        localiser, final = self._pass("refit", rows | held, held & False, first.kept_step, first, found)
        return localiser, final, first

    def _pass(
        self,
        name: str,
        rows: Mask,
        held: Mask,
        steps: int | None,
        first: PassRecord | None,
        found: Checkpoint | None,
    ) -> tuple[Localiser, PassRecord]:
        """Train on some rows of the manifest and validate on others; `steps` None: as configured."""
        config, files = self.config, self.files
        everything = open_source(config, files, self.partition, self.views, rows)
        schedule = schedule_of(config, everything, files.classes, self.chosen)
        own = self.ranks.own(schedule.groups)
        source = everything if self.ranks.count == 1 else everything.of_classes(_classes_of(own, files))
        localiser, resident = self._begin(everything, source, held, fresh=found is None)
        validation = load_validation(config, files, held, self.device)
        if steps is None:
            steps = min(config.max_steps, schedule.steps(config.epochs))
        per_epoch = max(1, schedule.steps(1.0))
        with open_feed(config, source, resident, files.classes, own, per_epoch, self.seed) as feed:
            trainer = Trainer(localiser, feed, own, config, train_projection=self.whole, ranks=self.ranks)
            before = _resume(trainer, validation, found) if found else 0

            def at_mark(state: LoopState) -> None:
                self.say(name, state.log)
                if self.checkpoints.due:
                    self._save(name, trainer, validation, first)

            state = trainer.run(steps if schedule.groups else 0, validation, self.progress, at_mark)
        self.ranks.share(localiser, schedule.groups)
        self.resumed_step = max(self.resumed_step, found[1]["step"] if found else 0)
        drawn = self.ranks.total(state.drawn)
        self.samples += int(drawn.sum()) - before
        record = PassRecord.of(
            state, drawn, files.classes, validation, images=everything.images, views=everything.views
        )
        self._keep_exemplars(localiser, rows)
        return localiser, replace(record, calibration=self._calibration(localiser, validation))

    def _keep_exemplars(self, localiser: Localiser, rows: Mask) -> None:
        """Give the localiser some of the rows that it was trained on; heads alone keep those at hand."""
        if self.whole:
            drawn = np.random.default_rng([self.seed, 1 << 21])
            localiser.exemplars = load_exemplars(self.config, self.files, rows, drawn, self.device)

    def _calibration(self, localiser: Localiser, validation: Validation) -> dict[str, Any] | None:
        """What the images held out of this pass say of temperatures and confidences."""
        if self.fusion is None or not self.whole or not len(validation):
            return None
        images = (validation.features, validation.positions)
        radius_m = self.config.validation.radius_m
        return calibrate(localiser, *images, radius_m=radius_m, fusion=self.fusion).to_dict()

    def _begin(
        self, everything: FeatureSource, source: FeatureSource, held: Mask, *, fresh: bool
    ) -> tuple[Localiser, TrainingSet | None]:
        """Return the untrained localiser and the features, unless they are streamed."""
        localiser = begin_localiser(self.config, self.files, self.base, self.groups, self.seed, self.weights)
        localiser.to(self.device)
        weights = sum(value.nbytes for value in localiser.tensors().values())
        residency = choose_residency(
            self.config.residency,
            source.bytes,
            weights,
            self.device,
            beside_bytes=self._beside_bytes(localiser, source, held),
        )
        self.residency = f"{residency.place}: {residency.reason}"
        place, streamed = residency.where(self.device), residency.place == "stream"
        resident = None if streamed else source.read([(0, source.reader.rows)], place)
        if fresh:
            known = resident if self.ranks.count == 1 else None
            initialise(
                self.config, localiser, everything, known, self.chosen, whole=self.whole, seed=self.seed
            )
        return localiser, resident

    def _beside_bytes(self, localiser: Localiser, source: FeatureSource, held: Mask) -> int:
        """Return what lies on the device beside weights and features; next to nothing without a tail."""
        if localiser.tail is None:
            return 0
        rows = self.config.batch_size * (2 if source.views else 1)
        held_out = replace(source, rows=held, view_reader=None).bytes
        return held_out + (step_bytes(localiser.tail, rows) if self.whole else 0)

    def _save(self, name: str, trainer: Trainer, validation: Validation, first: PassRecord | None) -> None:
        state = trainer.state
        meta = {
            "pass": name,
            "step": state.step,
            "first": first.as_dict() if first else None,
            "validation": validation.numbers(),
            "log": [asdict(line) for line in state.log],
            "settings": asdict(self.config),
        }
        drawn = {"drawn": torch.from_numpy(state.drawn)}
        self.checkpoints.save({**trainer.tensors(), **validation.tensors(), **drawn}, meta)

    def _identity(self) -> str:
        files = self.files
        settings = {key: value for key, value in asdict(self.config).items() if key not in _PASSING}
        arrays = (files.labels, files.classes.outlines, files.reader.valid)
        return identity_of(
            {
                "settings": settings,
                "groups": self.chosen,
                "seed": self.seed,
                "recipe": files.reader.recipe.id,
                "data": [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays],
                "processes": self.ranks.count,
            }
        )


def _classes_of(groups: tuple[int, ...], files: Files) -> npt.NDArray[np.bool_]:
    return np.isin(files.classes.group, groups)


def _resume(trainer: Trainer, validation: Validation, found: Checkpoint) -> int:
    """Put everything back as it was; returns how many images and views had been drawn."""
    tensors, meta = found
    with torch.no_grad():
        for name, value in trainer.tensors().items():
            value.copy_(tensors[name])
    state = trainer.state
    state.step, state.drawn = meta["step"], tensors["drawn"].numpy()
    state.log = [LogLine(**line) for line in meta["log"]]
    kept = {name: value.to(trainer.localiser.device) for name, value in tensors.items()}
    validation.resume(kept, meta["validation"])
    return int(state.drawn.sum())
