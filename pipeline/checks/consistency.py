"""Whether images, manifests, view plan, settings and feature stores go together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cache.errors import PlacecacheError
from cache.storage.shard_claims import claims_on
from cache.store import FeatureStore, open_store, row_ids, store_exists
from pipeline.checks.finding import Finding
from pipeline.project.params import Params
from pipeline.project.paths import Paths
from stages.extract.plan import recipe_for
from stages.index.manifest import Manifest
from stages.partition.views import ViewPlan

SAMPLE = 100  # images looked for, and identities compared: enough for a wrong folder or another list


def check_index(params: Params, paths: Paths, split: str, rows: dict[str, int]) -> Iterator[Finding]:
    """Yield whether a split's manifest and images are there; its row count goes into `rows`."""
    subject, setting = f"index {split}", getattr(params.data, split)
    source = paths.project / setting
    if not paths.index(split).exists():
        if setting != "toycity" and not source.exists():
            yield Finding(subject, "blocks", f"no {source}", f"set data.{split} in params.yaml")
        else:
            yield Finding(subject, "note", "no manifest yet", "pipeline index")
        return
    try:
        manifest = Manifest.open(paths.index(split))
    except PlacecacheError as fault:
        yield Finding.of(subject, fault)
        return
    rows[split] = manifest.rows
    absent = _absent_images(manifest)
    if absent:
        text = f"of {min(SAMPLE, manifest.rows)} images looked for, {len(absent)} are absent: {absent[0]}"
        yield Finding(subject, "blocks", text, f"mount {manifest.root}, or pipeline index")
    else:
        yield Finding(subject, "ok", f"{manifest.rows:,} images, under {manifest.root}")


def _absent_images(manifest: Manifest) -> list[Path]:
    """Return which of a few images, evenly spread, are not where the manifest says; packs are not opened."""
    if "pack_shard" in manifest.column_names:
        return [] if manifest.root.is_dir() else [manifest.root]
    chosen = np.unique(np.linspace(0, manifest.rows - 1, SAMPLE // 10, dtype=np.int64))
    keys = [key for row in chosen for key in manifest.keys(int(row), int(row) + SAMPLE // 10)]
    return [path for path in map(manifest.image_path, dict.fromkeys(keys)) if not path.exists()]


def check_views(paths: Paths, rows: dict[str, int]) -> Iterator[Finding]:
    """Yield whether the view plan is there and goes with the manifest; its rows go into `rows`."""
    plan = paths.partition / "views.parquet"
    if not plan.exists():
        yield Finding("partition", "note", "no view plan yet: views are not counted", "pipeline partition")
        return
    views = ViewPlan.load(plan)
    rows["views"] = len(views)
    beyond = int(views.row[-1]) if len(views) else -1
    if "database" in rows and beyond >= rows["database"]:
        text = f"the view plan speaks of image {beyond}, of {rows['database']} images"
        yield Finding("partition", "blocks", text, "pipeline partition")
    else:
        yield Finding("partition", "ok", f"{len(views):,} views planned")


def check_store(params: Params, paths: Paths, split: str, rows: dict[str, int]) -> Iterator[Finding]:
    """Yield whether a store goes with the settings and the rows, is complete and at rest."""
    path, subject = paths.features(split), f"features {split}"
    if not store_exists(path):
        yield Finding(subject, "note", "not extracted yet", f"pipeline extract --split {split}")
        return
    command = f"pipeline extract --split {split}"
    try:
        store = open_store(path)
    except PlacecacheError as fault:
        yield Finding.of(subject, fault)
        return
    wanted = recipe_for(params.extract, params.augment if split == "views" else None, params.seeds.views)
    differences = wanted.differences(store.recipe)
    missing = store.ledger.missing()
    if differences:
        text = f"made by another recipe: {'; '.join(differences)}"
        yield Finding(subject, "blocks", text, f"restore these settings, or {command} --replace")
    elif split in rows and not _same_rows(store, paths, split, rows[split]):
        text = f"made for other rows than the {'view plan' if split == 'views' else 'manifest'} has now"
        yield Finding(subject, "note", text, f"{command} (what is there is carried over)")
    elif len(missing):
        yield Finding(subject, "note", f"{len(missing)} of {store.spec.chunks} chunks missing", command)
    else:
        yield Finding(subject, "ok", f"{store.spec.rows:,} rows, complete, recipe {store.recipe.id}")
    for holder in dict.fromkeys(str(claim) for claim in claims_on(path)):
        yield Finding(subject, "note", f"being extracted by {holder}")


def _same_rows(store: FeatureStore, paths: Paths, split: str, rows: int) -> bool:
    """Whether a store is for these rows, judged by their number and the identities of a few."""
    if store.spec.rows != rows:
        return False
    chosen = [int(row) for row in np.unique(np.linspace(0, rows - 1, min(rows, SAMPLE), dtype=np.int64))]
    manifest = Manifest.open(paths.index("database" if split == "views" else split))
    if split == "views":
        plan = ViewPlan.load(paths.partition / "views.parquet")
        names = [f"{_key(manifest, int(plan.row[row]))}#{plan.view[row]}" for row in chosen]
    else:
        names = [_key(manifest, row) for row in chosen]
    found = np.concatenate([np.empty(0, np.uint64), *(store.row_ids(slice(r, r + 1)) for r in chosen)])
    return bool(np.array_equal(found, row_ids(names)))


def _key(manifest: Manifest, row: int) -> str:
    return manifest.keys(row, row + 1)[0]
