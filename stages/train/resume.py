"""What a checkpoint of a training run holds, and how a run goes on from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from stages.train.inputs import TrainInputs
from stages.train.loop.checkpoint import Checkpoint
from stages.train.loop.trainer import LogLine, Trainer
from stages.train.loop.validation import Validation
from stages.train.prepare import Files
from stages.train.result import PassRecord

_FREE_SETTINGS = ("residency", "checkpoint_s")
"""Settings that may change between a checkpoint and its resumption: no number depends on them."""


def identity_of_run(inputs: TrainInputs, files: Files, groups: tuple[int, ...], processes: int) -> str:
    """Return a digest of everything the numbers of a run depend on: only equal runs share checkpoints."""
    settings = {key: value for key, value in asdict(inputs.config).items() if key not in _FREE_SETTINGS}
    arrays = (files.labels, files.classes.outlines, files.reader.valid)
    facts = {
        "settings": settings,
        "groups": groups,
        "seed": inputs.seed,
        "recipe": files.reader.recipe.id,
        "data": [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays],
        "processes": processes,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def snapshot(
    name: str, first: PassRecord | None, trainer: Trainer, validation: Validation
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the meta of a checkpoint of the pass of that name."""
    state = trainer.state
    meta = {
        "pass": name,
        "step": state.step,
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
