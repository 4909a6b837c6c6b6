"""What a run is about: where rows come from, what makes their features, what one worker is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.recipe import Recipe
from cache.spec import StoreSpec
from cache.storage.paths import StoragePath
from cache.store import FeatureStore, create_or_open, row_ids
from stages.errors import InputError
from stages.extract.config import ExtractConfig
from stages.extract.reuse import ReusedRows
from stages.images.augment import AugmentConfig
from stages.index.manifest import Manifest
from stages.models.backbones.backbone import describe_backbone
from stages.partition.views import ViewPlan

_KEY_BLOCK = 1 << 17


@dataclass(frozen=True)
class RowSource:
    """What the rows of a store are: images of a manifest, or planned views of them.

    Attributes
    ----------
    manifest : Manifest
        The images.
    views : ViewPlan or None
        The view plan; None for the images themselves.
    augment : AugmentConfig or None
        How views are drawn; goes with `views`.
    seed : int
        Seed of the views.
    """

    manifest: Manifest
    views: ViewPlan | None
    augment: AugmentConfig | None
    seed: int

    def __post_init__(self) -> None:
        if (self.views is None) != (self.augment is None):
            raise ValueError("views and augment go together: give both or neither")
        if self.views is not None and len(self.views) and int(self.views.row[-1]) >= self.manifest.rows:
            raise InputError(
                f"the view plan speaks of image {int(self.views.row[-1])}, but {self.manifest.path} has "
                f"{self.manifest.rows} images: run `pipeline partition` again"
            )

    @property
    def rows(self) -> int:
        """Rows of the store."""
        return self.manifest.rows if self.views is None else len(self.views)

    def names(self) -> Iterator[str]:
        """Yield the name that identifies each row: the key, or ``key#view``."""
        for start in range(0, self.manifest.rows, _KEY_BLOCK):
            stop = min(start + _KEY_BLOCK, self.manifest.rows)
            keys = self.manifest.keys(start, stop)
            if self.views is None:
                yield from keys
                continue
            low, high = np.searchsorted(self.views.row, [start, stop])
            span = slice(low, high)
            for row, view in zip(self.views.row[span].tolist(), self.views.view[span].tolist(), strict=True):
                yield view_name(keys[row - start], view)


@dataclass(frozen=True)
class ShardOrder:
    """All that one worker needs to finish one shard; plain data that can be sent to another process.

    Attributes
    ----------
    config : ExtractConfig
        The settings.
    store : StoragePath
    manifest : Path
        Where features go and where keys come from.
    shard : int
        Number of the shard.
    todo : dict of int to ndarray
        Chunk -> rows that must go through the backbone; chunks not listed are done.
    carried : ReusedRows
        Rows that are copied from stores that were moved aside.
    first_row : int
        Store row that the next two begin with.
    image_row, view : ndarray or None
        Manifest row and view number of the shard's rows, for views.
    augment : AugmentConfig or None
        How views are drawn.
    seed : int
        Seed of the views.
    device : str
        Where the backbone runs.
    bad_limit : int
        More bad rows than this stop the worker.
    weights_id : str
        SHA-256 of the weights that the store was begun with.
    again : frozenset of int
        Chunks of `todo` that are finished and only have bad rows to try again.
    threads : int
        CPU threads of the backbone; 0 leaves PyTorch's own choice.
    """

    config: ExtractConfig
    store: StoragePath
    manifest: Path
    shard: int
    todo: dict[int, npt.NDArray[np.int64]]
    carried: ReusedRows
    first_row: int
    image_row: npt.NDArray[np.int64] | None
    view: npt.NDArray[np.int16] | None
    augment: AugmentConfig | None
    seed: int
    device: str
    bad_limit: int
    weights_id: str
    again: frozenset[int]
    threads: int

    @property
    def images(self) -> int:
        """Rows to put through the backbone."""
        return sum(len(rows) for rows in self.todo.values())


def view_name(key: str, view: int) -> str:
    """Return the name of a view's row."""
    return f"{key}#{view}"


def recipe_for(config: ExtractConfig, augment: AugmentConfig | None, seed: int) -> Recipe:
    """Return what the features are made of, without loading the backbone.

    Raises
    ------
    ConfigError, WeightsError
        If the backbone cannot be had as configured.
    """
    card = describe_backbone(
        config.backbone, weights=config.weights, image_size=config.image_size, outputs=config.stored
    )
    # Pillow decodes wherever nothing is said: elsewhere than in extraction there is no other.
    decoder = {} if config.decoder == "pillow" else {"decoder": config.decoder}
    return Recipe(
        backbone=card.name,
        weights=card.weights,
        weights_id=card.weights_id,
        image_size=card.image_size,
        preprocessing={**card.preprocess.as_dict(), **decoder},
        outputs=card.outputs,
        dtype=config.dtype,
        precision=config.precision,
        augment=None if augment is None else {"seed": seed, **asdict(augment)},
    )


def open_for(
    config: ExtractConfig, source: RowSource, path: StoragePath, *, replace: bool, keep: bool
) -> FeatureStore:
    """Return the store that the source's features go to, made if need be.

    Raises
    ------
    RecipeMismatch
        If the store there was made by another recipe and neither `replace` nor `keep` is set.
    """
    recipe = recipe_for(config, source.augment, source.seed)
    spec = StoreSpec.for_rows(source.rows, recipe.outputs, recipe.dtype)
    return create_or_open(path, spec, recipe, row_ids(source.names()), replace=replace, keep=keep)
