"""The rows of experiments.yaml: which settings each one changes, and where its files are.

All rows use the project's index. Features go to the project's own stores where the row's settings make the
same features, otherwise to a folder that all rows with the same settings share; partitions likewise. Each
row and seed has a folder of its own for training and evaluation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cache.storage.paths import storage_path
from cache.store import open_store, store_exists
from pipeline.experiments.paths import RowPaths
from pipeline.project.init import template
from pipeline.project.params import Params, change_setting, read_settings
from pipeline.project.paths import SPLITS, Paths, features_name
from pipeline.project.schema import build
from stages.errors import ConfigError
from stages.extract.config import ExtractConfig
from stages.index.manifest import Manifest

# Rows cannot change these: they are compared on the same images, with the same training seeds.
_SHARED = ("data.", "toycity.", "index.", "pack.", "seeds.train")
# No feature depends on these settings of `extract`; it depends on all others, including future ones.
_WITHOUT_EFFECT = ("compile", "shards", "batch_size", "readers", "threads", "max_bad_fraction")


@dataclass(frozen=True)
class Plan:
    """The content of experiments.yaml: settings by row, and pairs (first, second) of rows to compare."""

    rows: Mapping[str, Mapping[str, Any]]
    compare: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Row:
    """The project's settings (`base`) with some of them changed (`settings`: all sections)."""

    name: str
    project: Path
    settings: Mapping[str, Any]
    base: Params

    def params(self, seed: int) -> Params:
        """Return the settings with a training seed."""
        seeds = {**self.settings["seeds"], "train": seed}
        return build(Params, {**self.settings, "seeds": seeds})

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose features the row needs."""
        return SPLITS if self.params(0).train.augment_views else SPLITS[:2]

    @cached_property
    def images(self) -> str:
        """Digest of the images of database and queries: keys, file lengths and positions."""
        paths = Paths(self.project, "")
        manifests = [Manifest.open(paths.index(split)) for split in ("database", "queries")]
        return digest([(manifest.digest, manifest.row_digest) for manifest in manifests])

    @property
    def recipes(self) -> list[str]:
        """Recipe of each feature store, which names the weights themselves and not only their file."""
        stores = (self.paths(0).features(split) for split in self.splits)
        return [open_store(store).recipe.id for store in stores if store_exists(store)]

    @property
    def features_name(self) -> str:
        """Name of the feature folder: a store holds the features of one recipe only."""
        extract = self.params(0).extract
        settings, project_settings = feature_settings(extract), feature_settings(self.base.extract)
        name = features_name(settings.pop("backbone"), settings.pop("image_size"))
        unchanged = all(project_settings[key] == value for key, value in settings.items())
        return name if unchanged else f"{name}-{digest(settings)}"

    def paths(self, seed: int) -> RowPaths:
        """Return where the files of a seed are."""
        params, folder = self.params(seed), Paths(self.project, "").experiments
        partition = digest([asdict(params.partition), params.seeds.views, self.images])
        views = view_settings(params)
        return RowPaths(
            self.project,
            self.features_name,
            storage_path(params.data.features, self.project),
            run=folder / self.name / f"seed-{seed}",
            partition_folder=folder / f"partition-{partition}",
            views="views" if views == view_settings(self.base) else f"views-{digest(views)}",
        )

    def identity(self, seed: int) -> str:
        """Digest of everything that the numbers of a seed depend on."""
        params = self.params(seed)
        sections = [asdict(part) for part in (params.partition, params.augment, params.train, params.eval)]
        features = [feature_settings(params.extract), self.recipes]
        return digest([version("placecache"), sections, features, params.seeds.views, seed, self.images])


def feature_settings(extract: ExtractConfig) -> dict[str, Any]:
    """Return the settings of `extract` that features depend on."""
    return {name: value for name, value in asdict(extract).items() if name not in _WITHOUT_EFFECT}


def view_settings(params: Params) -> list[Any]:
    """Return the settings that views depend on, besides those of `extract`: groups change no view."""
    partition = {key: value for key, value in asdict(params.partition).items() if key != "groups_per_side"}
    return [partition, asdict(params.augment), params.seeds.views]


def digest(values: object) -> str:
    """Return a short digest of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def read_plan(project: Path) -> Plan:
    """Return the content of the project's experiments.yaml, or of the shipped one if it has none."""
    path = project / "experiments.yaml"
    if not path.exists():
        path = template("experiments.yaml")
    content = read_settings(path)
    rows, pairs = content.get("rows"), content.get("compare") or []
    if not isinstance(rows, dict) or not rows:
        raise ConfigError(f"{path} has no rows: expected `rows:`, and under it names and their settings")
    for name, changes in rows.items():
        if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"{path}: the row {name!r} names a folder: use letters, digits, - and _")
        if not isinstance(changes, dict | None):
            raise ConfigError(f"{path}: {name} is {changes!r}: expected settings such as train.margin: 0.3")
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not set(map(str, pair)) <= rows.keys():
            raise ConfigError(f"{path}: compare holds {pair!r}: expected two of {', '.join(rows)}")
    return Plan({name: rows[name] or {} for name in rows}, tuple((first, second) for first, second in pairs))


def make_row(project: Path, name: str, changes: Mapping[str, Any], base: Params) -> Row:
    """Return a row: the project's settings with valid changes."""
    settings = read_settings(project / "params.yaml")
    for key, value in changes.items():
        if str(key).startswith(_SHARED):
            raise ConfigError(f"experiments.yaml: {name} changes {key}, which is the same for all rows")
        if not change_setting(settings, str(key), value):
            raise ConfigError(f"experiments.yaml: {name} changes {key}, which params.yaml does not have")
    row = Row(name, project, settings, base)
    try:
        row.params(0)
    except ConfigError as fault:
        raise ConfigError(f"experiments.yaml: with the changes of {name}, {fault}") from fault
    return row


def chosen_rows(project: Path, plan: Plan, names: Sequence[str], base: Params) -> list[Row]:
    """Return the named rows, all by default."""
    unknown = [name for name in names if name not in plan.rows]
    if unknown:
        raise ConfigError(f"--only {unknown[0]}: experiments.yaml has {', '.join(plan.rows)}")
    return [make_row(project, name, plan.rows[name], base) for name in names or plan.rows]


def require_localiser(rows: Sequence[Row], localiser: str) -> None:
    """Raise ConfigError unless every row evaluates the localiser that the tables show."""
    for row in rows:
        if localiser not in (evaluated := row.params(0).eval.localisers):
            raise ConfigError(
                f"--localiser {localiser}: {row.name} evaluates {', '.join(evaluated)}; "
                "add it to eval.localisers"
            )
