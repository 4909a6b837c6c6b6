"""The settings of training; importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.errors import require
from stages.models.aggregators.config import AggregatorSettings


@dataclass(frozen=True)
class ValidationConfig:
    """What is held out of the database to choose the weights; queries never are.

    Attributes
    ----------
    share : float
        Share of the images held out: whole visits (a class's images of one
        date, or of one position where dates are unknown), never all of a
        class. 0 trains on everything and keeps the last weights.
    max_images : int
        No more than this many are held out, however large the city.
    times : int
        How often to validate, evenly spread over the training.
    patience : int
        Stop after this many validations in a row that are clearly worse than the best.
    refit : bool
        Afterwards train anew on all images, the held-out ones too, for as
        many steps as were chosen. Costs the time again; worth it in a small city.
    score : {"softmax", "cosine"}
        How classes of different groups are compared, as ``eval.score``.
    radius_m : float
        Distance within which a prediction is right, as ``eval.radius_m``.
    """

    share: float
    max_images: int
    times: int
    patience: int
    refit: bool
    score: Literal["softmax", "cosine"]
    radius_m: float

    def __post_init__(self) -> None:
        require("train.validation.share", self.share, 0 <= self.share < 1, "0 <= share < 1")
        require("train.validation.max_images", self.max_images, self.max_images > 0, "a positive number")
        require("train.validation.times", self.times, self.times > 0, "a positive number")
        require("train.validation.patience", self.patience, self.patience > 0, "a positive number")
        require("train.validation.radius_m", self.radius_m, self.radius_m > 0, "a positive number")


@dataclass(frozen=True)
class TrainConfig:
    """How the projection and the heads are trained.

    Attributes
    ----------
    inputs : "all" or tuple of str
        Pooled outputs of the backbone that make a feature, joined in order.
    tail : bool
        Train what `extract.cut` left of the backbone, from the cached tensors, with projection and heads.
    aggregator : AggregatorSettings
        How the tail's tokens become a feature; ``pooled`` by `inputs`, as the frozen backbone does.
    embedding_dim : int
        D, length of an embedding.
    head : {"aamc", "lmcc", "linear"}
        Kind of head.
    scale : float
        s, multiplies cosines.
    margin : float
        m: radians for ``aamc``, a cosine for ``lmcc``.
    easy_margin : bool
        ``aamc``: margin only where the cosine is positive.
    margin_power : float
        LDAM: a class of n images has a margin in proportion to n ** -power,
        with `margin` as the group's mean; 0 is the same for all.
    class_weight_beta : float
        Class-balanced loss: a sample weighs in proportion to (1 - beta) /
        (1 - beta ** n); 0 is the same for all.
    logit_adjustment : float
        tau times the log of a class's share of the images joins its logit in training; 0 is none.
    initial_weights : {"data", "whitened", "random"}
        ``data``: principal components of the features as projection, means of
        the classes' embeddings as prototypes. ``whitened``: the same with
        components divided by their deviation.
    standardise : bool
        Give every component of the feature mean 0 and deviation 1 first.
    sampling : {"class", "image"}
        What is equally likely to be drawn: every class or every image of a group.
    schedule : {"rotate", "joint"}
        ``rotate``: the groups take turns. ``joint``: a step takes one batch of
        every group and sums the losses.
    turn : {"step", "epoch"}
        How long a turn of ``rotate`` lasts: one step, or as many as the
        group has images.
    class_sampling : float
        Share of the negatives that a step's softmax runs over, drawn anew
        each step (Partial FC); 1 is all of them.
    augment_views : bool
        Long-tail augmentation: add cached views of the images drawn.
    mix_views : bool
        A view joins as a random mixture of its feature and its original's.
    feature_noise : float
        Deviation of Gaussian noise on each component of a feature, in
        standard deviations of that component over the images.
    exemplars : int
        Photos of each class that the localiser keeps to compare queries with; 0: none.
    epochs : float
        Draws per training image.
    max_steps : int
        No more steps than this, however large the city.
    batch_size : int
        Images drawn per step; views come on top.
    learning_rate_tail, learning_rate_projection, learning_rate_heads : float
        Adam's, of the kinds of weights: the tail's pretrained blocks; projection and aggregator; prototypes.
    weight_decay : float
        Decoupled (AdamW), of all weights.
    precision : {"auto", "float32", "bfloat16"}
        Of the inputs of the heads' matrix products; sums and the softmax are
        float32. ``auto``: bfloat16 on a GPU, float32 on a CPU.
    compile : bool
        Whether the loss and its gradients go through torch.compile: half a minute at the start, then
        faster on a GPU with many classes.
    residency : {"auto", "device", "host", "stream"}
        Where the features wait: beside the weights, in main memory, or in
        the store, a part at a time. ``auto``: the first where they fit.
    stream_rows : int
        Rows of such a part; two parts are in memory at a time. Where rows hold a tensor for a tail a part
        has fewer, so that it takes about 2 GiB with its views.
    checkpoint_s : float
        Least seconds between two checkpoints; 0 takes one whenever the loss is read.
    validation : ValidationConfig
        What is held out to choose the weights.
    """

    inputs: Literal["all"] | tuple[str, ...]
    tail: bool
    aggregator: AggregatorSettings
    embedding_dim: int
    head: Literal["aamc", "lmcc", "linear"]
    scale: float
    margin: float
    easy_margin: bool
    margin_power: float
    class_weight_beta: float
    logit_adjustment: float
    initial_weights: Literal["data", "whitened", "random"]
    standardise: bool
    sampling: Literal["class", "image"]
    schedule: Literal["rotate", "joint"]
    turn: Literal["step", "epoch"]
    class_sampling: float
    augment_views: bool
    mix_views: bool
    feature_noise: float
    exemplars: int
    epochs: float
    max_steps: int
    batch_size: int
    learning_rate_tail: float
    learning_rate_projection: float
    learning_rate_heads: float
    weight_decay: float
    precision: Literal["auto", "float32", "bfloat16"]
    compile: bool
    residency: Literal["auto", "device", "host", "stream"]
    stream_rows: int
    checkpoint_s: float
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
