"""Settings of training, under the names and with the meaning that params.yaml gives them.

Importing this module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.errors import require
from stages.models.aggregators.config import AggregatorSettings


@dataclass(frozen=True)
class ValidationConfig:
    """`train.validation`: images held out of the database to choose the weights; queries never are."""

    share: float  # of the images, held out: one visit each of some classes, at most half of a class
    max_images: int  # upper limit of the images held out
    times: int  # validations, evenly spread over the training
    patience: int  # stop after this many clearly worse ones in a row
    refit: bool  # then train again on all images
    score: Literal["softmax", "cosine"]  # as eval.score
    radius_m: float  # as eval.radius_m

    def __post_init__(self) -> None:
        require("train.validation.share", self.share, 0 <= self.share < 1, "0 <= share < 1")
        require("train.validation.max_images", self.max_images, self.max_images > 0, "a positive number")
        require("train.validation.times", self.times, self.times > 0, "a positive number")
        require("train.validation.patience", self.patience, self.patience > 0, "a positive number")
        require("train.validation.radius_m", self.radius_m, self.radius_m > 0, "a positive number")


@dataclass(frozen=True)
class TrainConfig:
    """`train`: how the projection, the heads and perhaps a tail are trained."""

    inputs: Literal["all"] | tuple[str, ...]  # pooled outputs joined to a feature
    tail: bool  # train the backbone's blocks after extract.cut
    aggregator: AggregatorSettings  # how a tail's tokens become a feature
    embedding_dim: int  # D
    head: Literal["aamc", "lmcc", "linear"]  # ArcFace, CosFace, no margin
    scale: float  # s, multiplies cosines
    margin: float  # m, radians (aamc) or a cosine (lmcc)
    easy_margin: bool  # margin only where the cosine is positive
    margin_power: float  # LDAM; 0: one margin
    class_weight_beta: float  # class-balanced loss; 0: no weights
    logit_adjustment: float  # tau; 0: none
    initial_weights: Literal["data", "whitened", "random"]  # of projection and heads
    standardise: bool  # components of features to mean 0, deviation 1
    sampling: Literal["class", "image"]  # what is equally likely to be drawn
    schedule: Literal["rotate", "joint"]  # groups in turns or all in each step
    turn: Literal["step", "epoch"]  # length of a group's turn
    class_sampling: float  # share of the negative classes in a step's softmax
    augment_views: bool  # cached views join their originals
    mix_views: bool  # as random mixtures with them
    feature_noise: float  # deviation, on standardised features
    exemplars: int  # photos kept of each class
    epochs: float  # draws per training image
    max_steps: int  # upper limit of the steps
    batch_size: int  # images per step, without views
    learning_rate_tail: float  # pretrained blocks
    learning_rate_projection: float  # projection and aggregator
    learning_rate_heads: float  # prototypes
    weight_decay: float  # decoupled (AdamW)
    precision: Literal["auto", "float32", "bfloat16"]  # of matrix products
    compile: bool  # torch.compile the loss
    residency: Literal["auto", "device", "host", "stream"]  # where features wait
    stream_rows: int  # rows in memory while streaming
    checkpoint_s: float  # least seconds between checkpoints; 0: at each log line
    validation: ValidationConfig

    def __post_init__(self) -> None:
        require(
            "train.inputs", self.inputs, len(self.inputs) > 0, "all or a list of outputs such as [cls, avg]"
        )
        require("train.scale", self.scale, self.scale > 0, "a positive number such as 100")
        limit = 1.57 if self.head == "aamc" else 1.0
        require("train.margin", self.margin, 0 <= self.margin < limit, f"0 <= margin < {limit}")
        for name in ("embedding_dim", "epochs", "max_steps", "batch_size", "stream_rows"):
            require(f"train.{name}", getattr(self, name), getattr(self, name) > 0, "a positive number")
        require("train.class_sampling", self.class_sampling, 0 < self.class_sampling <= 1, "0 < share <= 1")
        rates = ("learning_rate_tail", "learning_rate_projection", "learning_rate_heads", "weight_decay")
        long_tail = ("margin_power", "logit_adjustment", "feature_noise")
        for name in (*rates, *long_tail, "checkpoint_s", "exemplars"):
            require(
                f"train.{name}", getattr(self, name), getattr(self, name) >= 0, "zero or a positive number"
            )
        self._require_sensible_long_tail()
        kind = self.aggregator.kind
        require(
            "train.aggregator.kind", kind, self.tail or kind == "pooled", "pooled, since train.tail is false"
        )

    def _require_sensible_long_tail(self) -> None:
        beta = self.class_weight_beta
        require("train.class_weight_beta", beta, 0 <= beta < 1, "0 <= beta < 1")
        fits = self.margin_power == 0 or self.head != "linear"
        require("train.margin_power", self.margin_power, fits, "0, since a linear head has no margin")
        fits = not self.mix_views or self.augment_views
        require("train.mix_views", self.mix_views, fits, "false, since train.augment_views is off")
        fits = self.feature_noise == 0 or self.standardise
        require("train.feature_noise", self.feature_noise, fits, "0, since train.standardise is off")
        fits = self.feature_noise == 0 or not self.tail
        require("train.feature_noise", self.feature_noise, fits, "0, since train.tail is true")
