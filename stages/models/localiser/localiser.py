"""The trained localiser: projection, heads and classes, enough to place a feature on the map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cache.recipe import Recipe
from stages.models.heads.heads import Head, HeadSettings, Projection
from stages.models.localiser.calibration import Calibration
from stages.models.localiser.exemplars import Exemplars
from stages.models.localiser.io import fill, read_folder, write_folder
from stages.partition.classes import ClassTable
from stages.partition.places import Places

if TYPE_CHECKING:
    from stages.models.trainable_blocks import TailSettings, TrainableBlocks

FORMAT = 2


@dataclass
class Localiser:
    """A projection shared by all groups and one head per group; perhaps a trained tail before them.

    Features are rows of the store: the pooled outputs that it was trained on and, if there is a tail,
    the tensor that it starts from after them.

    Attributes
    ----------
    meta : dict
        What it was made of: ``recipe`` of the features, ``inputs``, ``head``,
        ``embedding_dim``, the grid and a summary of the training.
    projection : Projection
        Features (F), pooled or from the tail, -> embeddings (D).
    heads : list of Head
        One per group, in order; a group without classes has a head of none.
    classes : ClassTable
        Where each class lies.
    exemplars : Exemplars or None
        What each class looks like; set once the weights are trained.
    tail : TrainableBlocks or None
        What was cut off the backbone and is trained with the rest; None: pooled outputs are all there is.
    """

    meta: dict[str, Any]
    projection: Projection
    heads: list[Head]
    classes: ClassTable
    exemplars: Exemplars | None = None
    tail: TrainableBlocks | None = None
    _units: list[Tensor] | None = None

    @classmethod
    def new(
        cls,
        classes: ClassTable,
        recipe: Recipe,
        inputs: tuple[str, ...],
        embedding_dim: int,
        settings: HeadSettings,
        tail: TailSettings | None = None,
    ) -> Localiser:
        """Return an untrained localiser: weights from torch's generator, a tail's still to be filled in."""
        features = sum(recipe.outputs[name] for name in inputs)
        meta = {
            "format": FORMAT,
            "recipe": recipe.to_dict(),
            "inputs": list(inputs),
            "features": features,
            "embedding_dim": embedding_dim,
            "head": dict(vars(settings)),
            "cell_m": classes.cell_m,
            "groups_per_side": classes.groups_per_side,
            "zone": classes.zone,
            "classes": len(classes),
            "tail": None if tail is None else tail.to_dict(),
            "training": {},
        }
        return cls._of_meta(meta, classes)

    @classmethod
    def _of_meta(cls, meta: dict[str, Any], classes: ClassTable) -> Localiser:
        settings = HeadSettings(**meta["head"])
        slices = [classes.group_slice(group) for group in range(classes.groups)]
        heads = [Head(ids.stop - ids.start, meta["embedding_dim"], settings) for ids in slices]
        tail, length = None, meta["features"]
        if meta.get("tail") is not None:
            from stages.models.trainable_blocks import (  # brings the backbones' library along
                TailSettings,
                untrained_tail,
            )

            tail = untrained_tail(TailSettings.from_dict(meta["tail"]))
            length = tail.length
        return cls(meta, Projection(length, meta["embedding_dim"]), heads, classes, tail=tail)

    @property
    def recipe(self) -> Recipe:
        """What must make the features that it is given."""
        return Recipe.from_dict(self.meta["recipe"])

    @property
    def inputs(self) -> tuple[str, ...]:
        """The outputs that a feature is made of, in order: pooled ones, then what a tail starts from."""
        return tuple(self.meta["inputs"])

    @cached_property
    def places(self) -> Places:
        """What answers name; in a grid the classes themselves."""
        return Places.of(self.classes)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.projection.weight.device

    def to(self, device: torch.device | str) -> Localiser:
        """Move its tensors and return it."""
        self.projection.to(device)
        if self.tail is not None:
            self.tail.to(device)
        for head in self.heads:
            head.to(device)
        if self.exemplars is not None:
            self.exemplars = self.exemplars.to(device)
        self._units = None
        return self

    @torch.no_grad()
    def freeze(self) -> Localiser:
        """Normalise all prototypes once, for many predictions without training in between; return itself."""
        self._units = [functional.normalize(head.prototypes.detach(), dim=1) for head in self.heads]
        return self

    def tensors(self) -> dict[str, Tensor]:
        """What is trained, under the names it has on disk; shares memory with the modules."""
        tensors = {f"projection.{name}": value for name, value in self.projection.state_dict().items()}
        if self.tail is not None:
            tensors |= {f"tail.{name}": value for name, value in self.tail.state_dict().items()}
        for group, head in enumerate(self.heads):
            tensors[f"group.{group}.prototypes"] = head.prototypes.detach()
        return tensors

    def save(self, folder: Path) -> None:
        """Write meta.json, localiser.safetensors and classes.parquet; an old folder is replaced last."""
        kept = {} if self.exemplars is None else self.exemplars.tensors()
        write_folder(folder, self.meta, self.tensors() | kept, self.classes)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Localiser:
        """Return the localiser stored in `folder`.

        Raises
        ------
        InputError
            If there is none, it is of another format or its files do not fit each other.
        """
        meta, tensors, classes = read_folder(folder, FORMAT)
        localiser = cls._of_meta(meta, classes)
        localiser.exemplars = Exemplars.taken_from(tensors)
        fill(localiser.tensors(), tensors, folder)
        return localiser.to(device)

    @torch.no_grad()
    def embed(self, features: Tensor | npt.NDArray[np.floating[Any]]) -> Tensor:
        """Return unit embeddings (B, D) of features (B, F), eq. 4.18."""
        return self.projection(self.condensed(features))  # type: ignore[no-any-return]

    def condensed(self, features: Tensor | npt.NDArray[np.floating[Any]]) -> Tensor:
        """Return what the projection takes of features (B, F): what a tail makes of them."""
        given = torch.as_tensor(features)
        if self.tail is None:
            return given.to(self.device)
        return self.tail.in_parts(given[:, self.pooled_length :])

    @property
    def pooled_length(self) -> int:
        """Length of the pooled outputs, which no training changes, at the head of a feature."""
        return int(self.meta["features"]) - (0 if self.tail is None else self.tail.cut.length)

    @property
    def calibration(self) -> Calibration | None:
        """What was fitted on held-out images, if anything was."""
        held = self.meta.get("calibration")
        return None if held is None else Calibration.from_dict(held)

    def positions_of(self, class_id: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the centres of places in metres, shape (..., 2), NaN for place -1."""
        positions = np.full((*class_id.shape, 2), np.nan)
        positions[class_id >= 0] = self.places.centres[class_id[class_id >= 0]]
        return positions

    def cosines(self, embeddings: Tensor, group: int) -> Tensor:
        """Return the cosines (B, K) of embeddings (B, D) with the prototypes of a group, eq. 4.13."""
        if self._units is None:
            return self.heads[group].cosines(embeddings)
        return embeddings @ self._units[group].T
