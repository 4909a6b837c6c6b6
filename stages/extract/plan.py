"""What a run does: the rows of a store, the recipe of their features, the order for each shard."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.recipe import Recipe
from cache.spec import StoreSpec
from cache.storage.paths import StoragePath
from cache.store import FeatureStore, create_or_open
from stages.errors import InputError
from stages.extract.config import ExtractConfig
from stages.extract.crops import Crop
from stages.extract.reuse import ReusedRows
from stages.extract.row_identity import row_identities
from stages.images.augment import AugmentConfig
from stages.images.preprocess import Preprocess
from stages.index.manifest import Manifest
from stages.models.backbones.card import BackboneCard, describe_backbone
from stages.partition.identity import require_own_views
from stages.partition.views import ViewPlan


@dataclass(frozen=True)
class RowSource:
    """The rows of a store: images of a manifest, a crop of each, or planned views augmented with a seed."""

    manifest: Manifest
    views: ViewPlan | None = None
    augment: AugmentConfig | None = None
    seed: int = 0
    crop: Crop | None = None

    def __post_init__(self) -> None:
        if self.views is not None:
            require_own_views(self.views, self.manifest)
        if (self.views is None) != (self.augment is None):
            raise ValueError("views and augment go together: give both or neither")
        if self.views is not None and self.views.last_row >= self.manifest.rows:
            raise InputError(
                f"the view plan names image {self.views.last_row}, but {self.manifest.path} has "
                f"{self.manifest.rows} images: run `pipeline partition` again"
            )

    @property
    def rows(self) -> int:
        """Number of rows of the store."""
        return self.manifest.rows if self.views is None else len(self.views)


@dataclass(frozen=True)
class ShardOrder:
    """All that a worker needs to finish one shard; plain data that can be sent to another process.

    Attributes
    ----------
    todo : dict of int to ndarray
        Chunk -> rows to put through the backbone; chunks that are done are not listed.
    retries : frozenset of int
        Chunks of `todo` that are written already, whose bad rows are tried again.
    reused : ReusedRows
        Rows to copy from older stores.
    image_row, view : ndarray or None
        Manifest row and view number of each row from `first_row` on; None for plain images.
    device : str
        Where the backbone runs; several names, "cuda:0,cuda:1", until a worker picks one.
    bad_limit : int
        The worker stops when more rows than this are bad.
    weights_id : str
        SHA-256 of the weights that made the store.
    threads : int
        CPU threads of the backbone; 0 leaves PyTorch's own choice.
    """

    config: ExtractConfig
    preprocess: Preprocess
    store: StoragePath
    manifest: Path
    shard: int
    todo: dict[int, npt.NDArray[np.int64]]
    retries: frozenset[int]
    reused: ReusedRows
    first_row: int
    image_row: npt.NDArray[np.int64] | None
    view: npt.NDArray[np.int16] | None
    augment: AugmentConfig | None
    seed: int
    device: str
    bad_limit: int
    weights_id: str
    threads: int

    @property
    def images(self) -> int:
        """Number of rows to put through the backbone."""
        return sum(len(rows) for rows in self.todo.values())


def describe(config: ExtractConfig) -> BackboneCard:
    """Return what the configured backbone is, without loading it; see `describe_backbone`."""
    card = describe_backbone(
        config.backbone, weights=config.weights, image_size=config.image_size, outputs=config.stored
    )
    return card if config.decode == "exact" else replace(card, preprocess=card.preprocess.decoding_scaled())


def recipe_for(
    config: ExtractConfig, augment: AugmentConfig | None, seed: int, card: BackboneCard | None = None
) -> Recipe:
    """Return the recipe of the features; `card` is `describe` of the settings where it is known already.

    Raises
    ------
    ConfigError
        If the settings do not suit the backbone.
    WeightsError
        If the weights are not available.
    """
    card = card or describe(config)
    # Pillow goes unnamed: recipes older than the choice of decoder must keep their ids.
    decoder = {} if config.decoder == "pillow" else {"decoder": config.decoder}
    return Recipe(
        backbone=card.name,
        weights=card.weights,
        weights_id=card.weights_id,
        image_size=card.image_size,
        preprocessing={**card.preprocessing, **decoder},
        outputs=card.outputs,
        dtype=config.dtype,
        precision=config.precision,
        augment=None if augment is None else {"seed": seed, **asdict(augment)},
    )


def open_for(
    source: RowSource, recipe: Recipe, path: StoragePath, *, replace: bool, keep: bool
) -> FeatureStore:
    """Open the store of a source's features; create it if it does not exist.

    Raises
    ------
    RecipeMismatch
        If the store has another recipe and neither `replace` nor `keep` is set.
    """
    spec = StoreSpec.for_rows(source.rows, recipe.outputs, recipe.dtype)
    rows = row_identities(source.manifest, source.views)
    return create_or_open(path, spec, recipe, rows, replace=replace, keep=keep)
