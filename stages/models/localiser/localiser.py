"""The trained localiser: projection, heads, classes, exemplars and perhaps a tail, stored in one folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cache.recipe import Recipe
from stages.errors import InputError
from stages.models.heads.heads import Head, HeadSettings, Projection
from stages.models.localiser.calibration import Calibration
from stages.models.localiser.exemplars import Exemplars
from stages.models.localiser.io import copy_tensors, read_folder, write_folder
from stages.partition.classes import ClassTable
from stages.partition.places import Places

if TYPE_CHECKING:
    from stages.models.trainable_blocks import TrainableBlocks, TrainableBlocksSettings


@dataclass
class Localiser:
    """A projection shared by all groups and one head per group, perhaps behind a trained tail.

    Features are rows of the store: the pooled outputs that it was trained on and, with a tail, the tensor
    that the tail starts from.

    Attributes
    ----------
    meta : dict
        ``recipe`` of the features, ``inputs``, ``head``, ``embedding_dim``, the grid, a summary of the
        training, the calibration.
    projection : Projection
        Features (F), pooled or from the tail, -> embeddings (D).
    heads : list of Head
        One per group, in order; an empty head for a group without classes.
    classes : ClassTable
        Where each class lies.
    exemplars : Exemplars or None
        Photos of each class; set after training.
    tail : TrainableBlocks or None
        Last blocks of the backbone, trained with the rest; None where features are only pooled outputs.
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
        tail: TrainableBlocksSettings | None = None,
    ) -> Localiser:
        """Return an untrained localiser with random weights; a tail's weights are uninitialised."""
        features = sum(recipe.outputs[name] for name in inputs)
        meta = {
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
            from stages.models.trainable_blocks import (  # imports timm, which takes seconds
                TrainableBlocks,
                TrainableBlocksSettings,
            )

            tail = TrainableBlocks.empty(TrainableBlocksSettings.from_dict(meta["tail"]))
            length = tail.length
        return cls(meta, Projection(length, meta["embedding_dim"]), heads, classes, tail=tail)

    @property
    def recipe(self) -> Recipe:
        """Recipe of the features that it takes."""
        return Recipe.from_dict(self.meta["recipe"])

    @property
    def inputs(self) -> tuple[str, ...]:
        """Outputs joined into a feature, in order: pooled ones, then the tensor that a tail starts from."""
        return tuple(self.meta["inputs"])

    @cached_property
    def places(self) -> Places:
        """Places that answers name; in a grid the classes themselves."""
        return Places.of(self.classes)

    @property
    def device(self) -> torch.device:
        """Device of its tensors."""
        return self.projection.weight.device

    def to(self, device: torch.device | str) -> Localiser:
        """Move its tensors and return self."""
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
        """Normalise all prototypes once, for many predictions without training in between; return self."""
        self._units = [functional.normalize(head.prototypes.detach(), dim=1) for head in self.heads]
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Return the trained tensors under their names on disk; they share memory with the modules."""
        tensors = {f"projection.{name}": value for name, value in self.projection.state_dict().items()}
        if self.tail is not None:
            tensors |= {f"tail.{name}": value for name, value in self.tail.state_dict().items()}
        for group, head in enumerate(self.heads):
            tensors[f"group.{group}.prototypes"] = head.prototypes.detach()
        return tensors

    def save(self, folder: Path) -> None:
        """Write the files of `stages.models.localiser.io`, in place of an old folder."""
        if self.exemplars is None:
            return write_folder(folder, self.meta, self.tensors(), self.classes)
        tensors = self.tensors() | self.exemplars.tensors()
        return write_folder(folder, self.meta, tensors, self.classes, self.exemplars.photos)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Localiser:
        """Return the localiser stored in `folder`.

        Raises
        ------
        InputError
            If it does not exist, has another format or its files do not fit each other.
        """
        meta, tensors, classes, photos = read_folder(folder)
        try:
            localiser = cls._of_meta(meta, classes)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError) as error:
            raise InputError(
                f"{folder / 'meta.json'} is damaged ({error!r}): run `pipeline train-heads` again"
            ) from error
        exemplars = Exemplars.pop_from(tensors)
        localiser.exemplars = None if exemplars is None else replace(exemplars, photos=photos)
        copy_tensors(tensors, localiser.tensors(), folder)
        return localiser.to(device)

    @torch.no_grad()
    def embed(self, features: Tensor | npt.NDArray[np.floating[Any]]) -> Tensor:
        """Return unit embeddings (B, D) of features (B, F), eq. 4.18.

        Of several views of each query (B, V, F), it is the mean of their embeddings, which is shorter: its
        cosines are the mean of theirs.
        """
        stored = torch.as_tensor(features)
        embedded: Tensor = self.projection(self.through_tail(stored.flatten(0, -2)))
        return embedded if stored.ndim == 2 else embedded.view(*stored.shape[:2], -1).mean(dim=1)

    def through_tail(self, features: Tensor | npt.NDArray[np.floating[Any]]) -> Tensor:
        """Return the projection's input for features (B, F): the features themselves without a tail."""
        stored = torch.as_tensor(features)
        if self.tail is None:
            return stored.to(self.device)
        return self.tail.in_parts(stored[:, self.pooled_length :])

    @property
    def pooled_length(self) -> int:
        """Length of the pooled outputs, the first part of a feature, which training does not change."""
        return int(self.meta["features"]) - (0 if self.tail is None else self.tail.split.length)

    @property
    def calibration(self) -> Calibration | None:
        """Calibration fitted on held-out images, if any."""
        stored = self.meta.get("calibration")
        return None if stored is None else Calibration.from_dict(stored)

    @property
    def familiarity_threshold(self) -> float | None:
        """Familiarity below which an answer is withheld; None if that was not fitted."""
        # Older localisers have "familiarity_threshold" instead, which belongs to another measure.
        return self.meta.get("least_familiarity")

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
