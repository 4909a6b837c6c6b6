"""What a training run did, for people and for meta.json."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np

from stages.localiser import Localiser
from stages.train.config import TrainConfig
from stages.train.loop import LoopResult
from stages.train.validation import Validation

BUCKETS = ("head", "mid", "tail")


@dataclass(frozen=True)
class TrainResult:
    """What a training run did.

    Attributes
    ----------
    steps : int
        Steps that the last pass took.
    samples : int
        Images and views drawn, in all passes.
    samples_per_s, seconds : float
        Speed and length of the passes: reading, first weights, steps and validations.
    loss : float
        Mean over the last stretch of the log.
    drawn : dict of str to int
        Samples per bucket of classes (head, mid, tail) in the last pass.
    images, masked, held_out, views : int
        Images trained on, images of classes left out since their features are
        bad, images held out for validation, views ready to join.
    validation_lr1 : float or None
        LR@1 in percent on the images held out when the weights were chosen; it flatters a little.
    kept_step : int
        The step that was chosen.
    classes : int
        Classes of the groups trained.
    groups : tuple of int
        The groups trained.
    projection : str
        "trained", or "frozen" where only some groups were trained.
    """

    steps: int
    samples: int
    samples_per_s: float
    seconds: float
    loss: float
    drawn: dict[str, int]
    images: int
    masked: int
    held_out: int
    views: int
    validation_lr1: float | None
    kept_step: int
    classes: int
    groups: tuple[int, ...]
    projection: str

    def facts(self) -> list[tuple[str, object]]:
        """Return (name, value) pairs for a person to read."""
        facts = asdict(self)
        facts["drawn"] = ", ".join(f"{name} {count:,}" for name, count in self.drawn.items())
        facts["groups"] = ", ".join(map(str, self.groups))
        return [(name.replace("_", " "), "none" if value is None else value) for name, value in facts.items()]


@dataclass(frozen=True)
class Trained:
    """One pass over the data: the localiser and what the pass was like.

    Attributes
    ----------
    localiser : Localiser
        Trained.
    loop : LoopResult
        Steps, samples and log.
    validation : Validation
        The held-out images, none of them for no validation.
    images, views : int
        Images trained on, views ready to join.
    """

    localiser: Localiser
    loop: LoopResult
    validation: Validation
    images: int
    views: int

    def without_weights(self) -> Trained:
        """Return the same without the best weights kept aside: they take as much memory again."""
        return replace(self, validation=self.validation.emptied())


def summarise(
    final: Trained,
    first: Trained,
    *,
    groups: tuple[int, ...],
    seconds: float,
    masked: int,
    whole: bool,
) -> TrainResult:
    """Return the numbers of a finished run.

    Parameters
    ----------
    final : Trained
        The pass whose weights are kept.
    first : Trained
        The pass that was validated; the same one unless all images were trained on afterwards.
    groups : tuple of int
        The groups trained.
    seconds : float
        Time that all passes took.
    masked : int
        Images left out since their features are bad.
    whole : bool
        Whether the projection was trained.
    """
    classes, drawn, validation = final.localiser.classes, final.loop.drawn, first.validation
    passes = {id(run.loop): run.loop for run in (first, final)}.values()
    samples = sum(int(loop.drawn.sum()) for loop in passes)
    return TrainResult(
        steps=final.loop.steps,
        samples=samples,
        samples_per_s=samples / max(seconds, 1e-9),
        seconds=seconds,
        loss=final.loop.log[-1].loss if final.loop.log else float("nan"),
        drawn={bucket: int(drawn[classes.bucket == bucket].sum()) for bucket in BUCKETS},
        images=final.images,
        masked=masked,
        held_out=validation.images,
        views=final.views,
        validation_lr1=validation.kept_percent if validation.images else None,
        kept_step=validation.kept_step if validation.images else final.loop.steps,
        classes=int(np.isin(classes.group, groups).sum()),
        groups=groups,
        projection="trained" if whole else "frozen",
    )


def record(localiser: Localiser, config: TrainConfig, result: TrainResult, seed: int) -> None:
    """Put what a later reader wants to know into meta.json; no times, so that equal runs give equal files."""
    facts = asdict(result)
    for timed in ("seconds", "samples_per_s"):
        del facts[timed]
    if not math.isfinite(facts["loss"]):
        facts["loss"] = None
    localiser.meta["training"] = {**facts, "seed": seed, "settings": asdict(config)}
