"""The queries that an evaluation looks at: which, where they were taken, what they look like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KDTree

from cache.errors import RecipeMismatch
from cache.reader import FeatureReader, gather
from stages.errors import InputError
from stages.eval.config import EvalConfig
from stages.eval.localisers.compare import Database
from stages.index.manifest import Manifest
from stages.models.localiser.localiser import Localiser

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Queries:
    """The queries looked at, in manifest order.

    Attributes
    ----------
    manifest : Manifest
        All queries.
    rows : ndarray of int64, shape (Q,)
        Rows of the manifest that are looked at.
    truth : ndarray of float64, shape (Q, 2)
        Where they were taken, metres.
    readable : ndarray of bool, shape (Q,)
        Whether they have a feature.
    features : ndarray, shape (readable ones, F)
        Of the readable ones.
    outside : ndarray of bool, shape (Q,)
        Whether no known photo lies within the radius.
    """

    manifest: Manifest
    rows: npt.NDArray[np.int64]
    truth: Floats
    readable: Bools
    features: npt.NDArray[np.floating]
    outside: Bools

    @classmethod
    def load(
        cls,
        reader: FeatureReader,
        manifest: Manifest,
        localiser: Localiser,
        photos: Database | None,
        config: EvalConfig,
    ) -> Queries:
        """Return the configured share of the queries, with the features of the readable ones."""
        count = max(1, round(config.query_fraction * manifest.rows))
        rows = np.sort(np.random.default_rng([config.seed, 1 << 21]).permutation(manifest.rows)[:count])
        readable = reader.valid[rows]
        features = gather(reader, rows[readable], localiser.inputs)
        truth = manifest.positions()[rows]
        # Where photos were taken; without a database the trained cells stand for them.
        known = localiser.places.centres if photos is None else photos.manifest.positions()
        outside = np.ones(len(rows), np.bool_)
        if len(known):
            outside = KDTree(known).query(truth)[0][:, 0] > config.radius_m
        return cls(manifest, rows, truth, readable, features, outside)

    def keys(self) -> list[str]:
        """Names of the queries looked at."""
        keys = self.manifest.keys(0, self.manifest.rows)
        return [keys[row] for row in self.rows]


def require_fit(localiser: Localiser, reader: FeatureReader, queries: Manifest) -> None:
    """Check that queries, their features and the localiser belong together.

    Raises
    ------
    RecipeMismatch
        If the features were made otherwise than those the localiser was trained on.
    InputError
        If store and manifest differ in length, or lie in another zone than the classes.
    StoreError
        If features are not extracted yet.
    """
    differences = localiser.recipe.differences(reader.recipe)
    if differences:
        raise RecipeMismatch(
            f"the localiser was trained on other features than {reader.store.path} holds "
            f"({'; '.join(differences)}): run `pipeline train-heads` again"
        )
    if reader.rows != queries.rows:
        raise InputError(
            f"{reader.store.path} holds {reader.rows} rows, {queries.path} has {queries.rows}: "
            "run `pipeline extract --split queries`"
        )
    if queries.zone and localiser.classes.zone and queries.zone != localiser.classes.zone:
        raise InputError(
            f"queries lie in UTM zone {queries.zone}, the classes in {localiser.classes.zone}: "
            "index both from one data set with `pipeline index`"
        )
    reader.require_complete()
