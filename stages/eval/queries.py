"""The queries of an evaluation: manifest rows, true positions and features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KDTree

from cache.reader import FeatureReader, gather
from stages.errors import InputError
from stages.eval.config import EvalConfig
from stages.eval.localisers.database import Database
from stages.eval.metrics.units import SamplingUnits
from stages.index.manifest import Manifest
from stages.models.localiser.localiser import Localiser

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Queries:
    """The evaluated queries, in manifest order.

    Attributes
    ----------
    rows : ndarray of int64, shape (Q,)
        Their rows of the manifest.
    truth : ndarray of float64, shape (Q, 2)
        UTM east and north in metres.
    readable : ndarray of bool, shape (Q,)
        Whether they have a feature.
    features : ndarray, shape (readable queries, F)
        Features of the readable queries only.
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
        database: Database | None,
        config: EvalConfig,
    ) -> Queries:
        """Return the configured share of the queries, with the features of the readable ones."""
        count = max(1, round(config.query_fraction * manifest.rows))
        rows = np.sort(np.random.default_rng([config.seed, 1 << 21]).permutation(manifest.rows)[:count])
        readable = reader.valid[rows]
        features = gather(reader, rows[readable], localiser.inputs)
        truth = manifest.positions()[rows]
        # Without a database the centres of the trained cells stand for its photos.
        known = localiser.places.centres if database is None else database.manifest.positions()
        outside = np.ones(len(rows), np.bool_)
        if len(known):
            outside = KDTree(known).query(truth)[0][:, 0] > config.radius_m
        return cls(manifest, rows, truth, readable, features, outside)

    @cached_property
    def units(self) -> SamplingUnits:
        """The independent units that the queries form."""
        return SamplingUnits.of(self.manifest, self.rows)

    def keys(self) -> list[str]:
        """Return the names of the queries."""
        keys = self.manifest.keys(0, self.manifest.rows)
        return [keys[row] for row in self.rows]


def require_zone(queries: Manifest, localiser: Localiser) -> None:
    """Check that queries and classes lie in the same UTM zone, if both are known.

    Raises
    ------
    InputError
        If they lie in different zones.
    """
    zone = localiser.classes.zone
    if queries.zone and zone and queries.zone != zone:
        raise InputError(
            f"the queries lie in UTM zone {queries.zone}, the classes in {zone}: "
            "index both from one data set with `pipeline index`"
        )
