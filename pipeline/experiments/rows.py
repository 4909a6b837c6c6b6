"""The rows of experiments.yaml: settings that each changes, and where the files of its seeds lie.

The index is the project's own, and so are the feature stores of rows that make features as it does; other
rows' features lie in folders beside them, one for all rows whose settings agree. Partitions lie in
experiments/ in the same manner; so do trainings and evaluations, a folder for each row and seed. The
project's localiser, metrics and plots are never touched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cache.storage.paths import place_of
from pipeline.experiments.paths import RowPaths
from pipeline.project.init import template
from pipeline.project.params import Params, read_settings
from pipeline.project.paths import Paths
from pipeline.project.schema import build
from stages.errors import ConfigError
from stages.extract.config import ExtractConfig
from stages.index.manifest import Manifest

_SHARED = ("data.", "toycity.", "index.", "pack.", "seeds.train")
"""What rows cannot change: they are compared on the same images, with the same training seeds."""
_HOW_ONLY = ("compile", "shards", "batch_size", "readers", "threads", "max_bad_fraction")
"""Settings of how features are made, on which no number depends. Whatever else there is counts."""
_NAMED = ("backbone", "image_size")
"""Settings that name a folder of features."""


@dataclass(frozen=True)
class Plan:
    """What experiments.yaml says.

    Attributes
    ----------
    rows : mapping
        Name of each row -> `section.key` -> value.
    compare : tuple
        Pairs of names: the gain of the first over the second is tested.
    """

    rows: Mapping[str, Mapping[str, Any]]
    compare: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Row:
    """One row: the settings of the project with some of them changed.

    Attributes
    ----------
    name : str
        The row's name.
    project : Path
        Folder of the project.
    settings : mapping
        All sections of params.yaml, with this row's changes.
    base : Params
        The project's settings without them.
    """

    name: str
    project: Path
    settings: Mapping[str, Any]
    base: Params

    def params(self, seed: int) -> Params:
        """Return the settings with a training seed."""
        seeds = {**self.settings["seeds"], "train": seed}
        return build(Params, {**self.settings, "seeds": seeds})

    @cached_property
    def images(self) -> str:
        """Digest of the database's and the queries' keys and positions."""
        own = Paths(self.project, "")
        return digest([Manifest.open(own.index(split)).digest for split in ("database", "queries")])

    @property
    def features_name(self) -> str:
        """Name of the feature folder.

        A store holds the features of one recipe. With the project's settings, but for backbone and
        size, it is the folder that the project has, or would have; with others one of their own.
        """
        extract = self.params(0).extract
        ours, usual = deciding(extract), deciding(self.base.extract)
        name = "-".join(str(ours.pop(setting)) for setting in _NAMED)
        return name if all(usual[setting] == ours[setting] for setting in ours) else f"{name}-{digest(ours)}"

    def paths(self, seed: int) -> RowPaths:
        """Return where the files of a seed are."""
        params, folder = self.params(seed), Paths(self.project, "").experiments
        cut = digest([asdict(params.partition), params.seeds.views, self.images])
        shown = [asdict(params.partition), asdict(params.augment), params.seeds.views]
        usual = [asdict(self.base.partition), asdict(self.base.augment), self.base.seeds.views]
        return RowPaths(
            self.project,
            self.features_name,
            place_of(params.data.features, self.project),
            run=folder / self.name / f"seed-{seed}",
            cut=folder / f"partition-{cut}",
            views="views" if shown == usual else f"views-{digest(shown)}",
        )

    def identity(self, seed: int) -> str:
        """Digest of everything that the numbers of a seed depend on."""
        params = self.params(seed)
        sections = [asdict(part) for part in (params.partition, params.augment, params.train, params.eval)]
        return digest([sections, deciding(params.extract), params.seeds.views, seed, self.images])


def deciding(extract: ExtractConfig) -> dict[str, Any]:
    """Return the settings of the section `extract` that features depend on."""
    return {name: value for name, value in asdict(extract).items() if name not in _HOW_ONLY}


def digest(facts: object) -> str:
    """Return a short digest of plain values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def read_plan(project: Path) -> Plan:
    """Return what the project's experiments.yaml says, or the one that comes with the program.

    Raises
    ------
    ConfigError
        If it is no YAML, or its rows or pairs are not what they should be.
    """
    own = project / "experiments.yaml"
    path = own if own.exists() else template("experiments.yaml")
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
    """Return a row of the project's settings with changes.

    Raises
    ------
    ConfigError
        If a setting is unknown, out of range, one that all rows share, or does not go with the project's.
    """
    settings = read_settings(project / "params.yaml")
    for key, value in changes.items():
        *parents, last = str(key).split(".")
        section: Any = settings
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise ConfigError(f"experiments.yaml: {name} changes {key}, which is no setting of params.yaml")
        if str(key).startswith(_SHARED):
            raise ConfigError(f"experiments.yaml: {name} changes {key}, which all rows share")
        section[last] = value
    row = Row(name, project, settings, base)
    try:
        row.params(0)
    except ConfigError as fault:
        raise ConfigError(f"experiments.yaml: with the changes of {name}, {fault}") from fault
    return row


def chosen_rows(project: Path, plan: Plan, names: Sequence[str], base: Params) -> list[Row]:
    """Return the rows of those names, all for none.

    Raises
    ------
    ConfigError
        If there is no such row, or a row's settings do not hold.
    """
    unknown = [name for name in names if name not in plan.rows]
    if unknown:
        raise ConfigError(f"--only {unknown[0]}: experiments.yaml has {', '.join(plan.rows)}")
    return [make_row(project, name, plan.rows[name], base) for name in names or plan.rows]


def require_localiser(rows: Sequence[Row], localiser: str) -> None:
    """Check that every row evaluates what the tables are to show.

    Raises
    ------
    ConfigError
        If one does not.
    """
    for row in rows:
        if localiser not in (there := row.params(0).eval.localisers):
            raise ConfigError(
                f"--localiser {localiser}: {row.name} evaluates {', '.join(there)}; add it to eval.localisers"
            )
