"""What a checkpoint of a training run holds, and how a run goes on from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stages.files import sha256_of
from stages.models.localiser.io import FILES
from stages.train.inputs import TrainInputs
from stages.train.loop.checkpoint import Checkpoint
from stages.train.loop.trainer import LogLine, Trainer
from stages.train.loop.validation import Validation
from stages.train.prepare import Files
from stages.train.result import PassRecord

_FREE_SETTINGS = ("residency", "checkpoint_s")
"""Settings that may change between a checkpoint and its resumption: no number depends on them."""


def identity_of_run(
    inputs: TrainInputs,
    files: Files,
    groups: tuple[int, ...],
    holdout: npt.NDArray[np.bool_],
    processes: int,
) -> str:
    """Return a digest of everything the numbers of a run depend on: only equal runs share checkpoints."""
    settings = {key: value for key, value in asdict(inputs.config).items() if key not in _FREE_SETTINGS}
    classes, plan = files.classes, files.plan
    arrays: list[npt.NDArray[Any]] = [
        files.labels,
        classes.outlines,
        classes.centres,
        classes.p_aug,
        files.reader.valid,
        holdout,
    ]
    arrays += [] if plan is None else [plan.row, plan.view]
    stores = [reader.store for reader in (files.reader, files.views) if reader is not None]
    facts = {
        "settings": settings,
        "groups": groups,
        "seed": inputs.seed,
        "fusion": None if inputs.fusion is None else asdict(inputs.fusion),
        "images": [files.manifest.digest, files.manifest.row_digest],
        "features": [(store.recipe.id, store.ledger.digest()) for store in stores],
        "data": [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays],
        "base": None if inputs.train_projection else _digest_of(inputs.base or inputs.output),
        "processes": processes,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _digest_of(localiser: Path) -> str:
    """Return a digest of the localiser that lends its projection."""
    digests = [sha256_of(localiser / name) for name in FILES if (localiser / name).exists()]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def snapshot(
    name: str, first: PassRecord | None, trainer: Trainer, validation: Validation, *, streamed: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the meta of a checkpoint of the pass of that name."""
    state = trainer.state
    meta = {
        "pass": name,
        "step": state.step,
        "streamed": streamed,
        "first": first.as_dict() if first else None,
        "validation": validation.numbers(),
        "log": [asdict(line) for line in state.log],
        "settings": asdict(trainer.config),
    }
    drawn = {"drawn": torch.from_numpy(state.drawn)}
    return {**trainer.tensors(), **validation.tensors(), **drawn}, meta


def restore(checkpoint: Checkpoint, trainer: Trainer, validation: Validation) -> None:
    """Give weights, moments, counts, log and validation the values of the checkpoint."""
    tensors, meta = checkpoint
    with torch.no_grad():
        for name, value in trainer.tensors().items():
            value.copy_(tensors[name])
    state = trainer.state
    state.step, state.drawn = meta["step"], tensors["drawn"].numpy()
    state.log = [LogLine(**line) for line in meta["log"]]
    on_device = {name: value.to(trainer.localiser.device) for name, value in tensors.items()}
    validation.resume(on_device, meta["validation"])
