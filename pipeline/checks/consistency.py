"""Check that images, manifests, view plan, settings and feature stores fit together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cache.errors import PlacecacheError
from cache.storage.shard_claims import claims_on
from cache.store import FeatureStore, open_store, store_exists
from pipeline.checks.finding import Finding
from pipeline.project.params import Params
from pipeline.project.paths import Paths
from pipeline.runners.imported import check_imported
from stages.extract.plan import recipe_for
from stages.extract.row_identity import has_rows
from stages.files import path_at_home
from stages.index.manifest import Manifest
from stages.partition.views import ViewPlan

SAMPLE = 100  # images to check: enough to notice a wrong folder


def check_index(params: Params, paths: Paths, split: str, rows: dict[str, int]) -> Iterator[Finding]:
    """Check that a split's manifest and images exist; add its row count to `rows`."""
    subject, home = f"index {split}", path_at_home(paths.project)
    if not paths.index(split).exists():
        sources = [home / source for source in params.data.sources(split) if source != "toycity"]
        if absent_sources := [source for source in sources if not source.exists()]:
            text = f"{absent_sources[0]} does not exist"
            yield Finding(subject, "blocks", text, f"set data.{split} in params.yaml")
        else:
            yield Finding(subject, "note", "no manifest yet", "run `pipeline index`")
        return
    try:
        manifest = Manifest.open(paths.index(split))
    except PlacecacheError as fault:
        yield Finding.of(subject, fault)
        return
    rows[split] = manifest.rows
    if absent := _absent_images(manifest):
        text = f"{len(absent)} sampled images do not exist, such as {absent[0]}"
        yield Finding(subject, "blocks", text, f"mount {manifest.root}, or run `pipeline index`")
    else:
        yield Finding(subject, "ok", f"{manifest.rows:,} images in {manifest.root}")


def check_import(params: Params, paths: Paths) -> Iterator[Finding]:
    """Check that imported features of database and queries are complete and belong together."""
    for split in ("database", "queries"):
        try:
            store = check_imported(params, paths, split)
        except PlacecacheError as fault:
            yield Finding.of(f"features {split}", fault)
        else:
            text = f"{store.spec.rows:,} rows, imported as {params.extract.imported}"
            yield Finding(f"features {split}", "ok", text)


def _absent_images(manifest: Manifest) -> list[Path]:
    """Return which of an even sample of images do not exist; packs are not opened."""
    if "pack_shard" in manifest.column_names:
        return [] if manifest.root.is_dir() else [manifest.root]
    chosen = np.unique(np.linspace(0, manifest.rows - 1, SAMPLE // 10, dtype=np.int64))
    keys = [key for row in chosen for key in manifest.keys(int(row), int(row) + SAMPLE // 10)]
    return [path for path in map(manifest.image_path, dict.fromkeys(keys)) if not path.exists()]


def check_views(paths: Paths, rows: dict[str, int]) -> Iterator[Finding]:
    """Check that the view plan exists and fits the manifest; add its row count to `rows`."""
    plan = paths.partition / "views.parquet"
    if not plan.exists():
        yield Finding("partition", "note", "no view plan yet, views not counted", "run `pipeline partition`")
        return
    views = ViewPlan.load(plan)
    rows["views"] = len(views)
    if "database" in rows and views.last_row >= rows["database"]:
        text = f"the view plan names row {views.last_row}, but the manifest has {rows['database']} rows"
        yield Finding("partition", "blocks", text, "run `pipeline partition`")
    else:
        yield Finding("partition", "ok", f"{len(views):,} views planned")


def check_store(params: Params, paths: Paths, split: str, rows: dict[str, int]) -> Iterator[Finding]:
    """Check that a store fits settings and rows, is complete, and is not being written."""
    path, subject, command = paths.features(split), f"features {split}", f"pipeline extract --split {split}"
    if not store_exists(path):
        yield Finding(subject, "note", "not extracted yet", f"run `{command}`")
        return
    try:
        store = open_store(path)
    except PlacecacheError as fault:
        yield Finding.of(subject, fault)
        return
    wanted = recipe_for(params.extract, params.augment if split == "views" else None, params.seeds.views)
    differences = wanted.differences(store.recipe)
    missing = store.ledger.missing()
    if differences:
        text = f"made with other settings: {'; '.join(differences)}"
        yield Finding(subject, "blocks", text, f"restore those settings, or run `{command} --replace`")
    elif split in rows and not _same_rows(store, paths, split):
        text = f"its rows differ from the {'view plan' if split == 'views' else 'manifest'}"
        yield Finding(subject, "note", text, f"run `{command}`, which reuses the features of unchanged rows")
    elif len(missing):
        yield Finding(
            subject, "note", f"{len(missing)} of {store.spec.chunks} chunks missing", f"run `{command}`"
        )
    else:
        yield Finding(subject, "ok", f"{store.spec.rows:,} rows, complete, recipe {store.recipe.id}")
    for holder in dict.fromkeys(str(claim) for claim in claims_on(path)):
        yield Finding(subject, "note", f"being extracted by {holder}")


def _same_rows(store: FeatureStore, paths: Paths, split: str) -> bool:
    """Whether a store has the rows of the split's manifest or of the view plan."""
    if split != "views":
        return has_rows(store, Manifest.open(paths.index(split)))
    plan = ViewPlan.load(paths.partition / "views.parquet")
    return has_rows(store, Manifest.open(paths.index("database")), plan)
