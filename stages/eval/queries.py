"""The queries of an evaluation: manifest rows, true positions and features."""

from __future__ import annotations

from collections.abc import Sequence
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
from stages.index.utm_zone import Zone
from stages.models.localiser.embedded import Embedded
from stages.models.localiser.evidence import join_crops
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
    embedded : Embedded
        Features of the readable queries only, with their embeddings.
    outside : ndarray of bool, shape (Q,)
        Whether no known photo lies within the radius.
    """

    manifest: Manifest
    rows: npt.NDArray[np.int64]
    truth: Floats
    readable: Bools
    embedded: Embedded
    outside: Bools

    @classmethod
    def load(
        cls,
        crops: Sequence[FeatureReader],
        manifest: Manifest,
        localiser: Localiser,
        database: Database | None,
        config: EvalConfig,
    ) -> Queries:
        """Return the configured share of the queries, with the features of the readable ones.

        The stores of all crops, the centre first, become one feature per query; see `join_crops`.
        """
        count = max(1, round(config.query_fraction * manifest.rows))
        rows = np.sort(np.random.default_rng([config.seed, 1 << 21]).permutation(manifest.rows)[:count])
        readable = np.all([reader.valid[rows] for reader in crops], axis=0)
        features = join_crops(
            localiser, [gather(reader, rows[readable], localiser.inputs) for reader in crops]
        )
        truth = manifest.positions()[rows]
        # Without a database the centres of the trained cells stand for its photos.
        known = localiser.places.centres if database is None else database.manifest.positions()
        outside = np.ones(len(rows), np.bool_)
        if len(known):
            outside = KDTree(known).query(truth)[0][:, 0] > config.radius_m
        embedded = Embedded.of(localiser, features)
        return cls(manifest, rows, truth, readable, embedded, outside)

    @cached_property
    def units(self) -> SamplingUnits:
        """The independent units that the queries form."""
        return SamplingUnits.of(self.manifest, self.rows)

    def keys(self) -> list[str]:
        """Return the names of the queries."""
        keys = self.manifest.keys(0, self.manifest.rows)
        return [keys[row] for row in self.rows]


def require_zone(manifest: Manifest, localiser: Localiser) -> None:
    """Check that the positions of a manifest and the classes are metres of one UTM zone.

    Raises
    ------
    InputError
        If they lie in different zones, or the zone of only one of them is known.
    """
    zone, other = localiser.classes.zone, manifest.zone
    if zone == other or (zone and other and Zone.of(zone).same_grid(Zone.of(other))):
        return
    if zone and other:
        raise InputError(
            f"{manifest.path} lies in UTM zone {other}, the classes in {zone}: "
            "index database and queries of one city with `pipeline index`"
        )
    states, lacks = (manifest.path, "the classes") if other else ("the classes", manifest.path)
    raise InputError(
        f"{states} lies in UTM zone {other or zone}, {lacks} in an unknown zone: add a column zone to the "
        "positions without one, then run `pipeline index` and the stages after it"
    )
