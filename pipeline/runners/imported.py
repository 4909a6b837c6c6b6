"""A project on imported features: index and extraction have nothing to do but to check and to restore."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cache.errors import RecipeMismatch
from cache.reader import FeatureReader
from cache.recipe import Recipe
from cache.spec import StoreSpec
from cache.store import FeatureStore, create_or_open, open_store, store_exists
from pipeline.project import dvc_link
from pipeline.project.params import Params
from pipeline.project.paths import Paths
from stages.errors import InputError
from stages.extract.row_identity import has_rows, row_identities
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest
from stages.index.skipped import Tally, skipped_path
from stages.partition.views import ViewPlan

OTHER = {"database": "queries", "queries": "database"}


def restore_index(params: Params, paths: Paths) -> Iterator[tuple[str, object]]:
    """Put the manifests that came with imported features in their place, and yield a line per split.

    DVC deletes the outputs of a stage before it runs the stage, and checks out those of another version.

    Raises
    ------
    InputError
        If a split is not imported, or the splits do not belong together.
    """
    for split in OTHER:
        manifest = imported_manifest(params, paths, split)
        done = "nothing to do"
        if not _is_copy(paths.index(split), manifest):
            copy_manifest(manifest, paths.index(split))
            done = "restored"
        if not skipped_path(paths.index(split)).exists():
            Tally().write_list(skipped_path(paths.index(split)))
        yield split, f"{manifest.rows:,} images, imported as {params.extract.imported}: {done}"
    require_zone(paths, "queries", imported_manifest(params, paths, "queries").zone)


def keep_imported(params: Params, paths: Paths, split: str) -> str:
    """Check that the imported features of a split are complete, and return a line to print.

    Views are not imported: their store is created without rows, because DVC expects it.

    Raises
    ------
    InputError
        If features are missing or belong to other images, or views are planned.
    """
    store = check_imported(params, paths, "database" if split == "views" else split)
    if split == "views":
        _create_without_views(paths, store.recipe)
    dvc_link.write_link(paths, split)
    return f"extract {split}: imported as {params.extract.imported}, nothing to do"


def check_imported(params: Params, paths: Paths, split: str) -> FeatureStore:
    """Return the store of an imported split.

    Raises
    ------
    InputError
        If it does not exist, lacks rows or belongs to other images.
    RecipeMismatch
        If database and queries differ in length or type.
    """
    manifest = imported_manifest(params, paths, split)
    store, again = paths.features(split), f"run `pipeline import features` again for {split}"
    if not store_exists(store):
        raise InputError(f"{store} does not exist: {again}")
    reader = FeatureReader.open(store)
    if reader.missing_rows:
        raise InputError(f"{store} lacks {reader.missing_rows:,} of {reader.rows:,} rows: {again}")
    if not has_rows(reader.store, manifest):
        raise InputError(f"{store} was imported for other images than {paths.imported(split)} lists: {again}")
    require_recipe(paths, split, reader.recipe)
    return reader.store


def imported_manifest(params: Params, paths: Paths, split: str) -> Manifest:
    """Return the manifest that came with the features of a split; InputError if there is none."""
    if not paths.imported(split).exists():
        name = params.extract.imported
        raise InputError(
            f"the {split} features of {name} are not imported: run `pipeline import features FEATURES "
            f"POSITIONS --split {split} --name {name}`"
        )
    return Manifest.open(paths.imported(split))


def copy_manifest(manifest: Manifest, path: Path, root: Path | None = None) -> None:
    """Write the rows of a manifest to another place; `root` is the folder of the images, if it is another."""
    write_manifest(
        path, manifest.batches(), root=root or manifest.root, zone=manifest.zone, source=manifest.source
    )


def require_recipe(paths: Paths, split: str, recipe: Recipe) -> None:
    """Reject features of another length or type than the stores of that name, of both splits."""
    for other in OTHER:
        store = paths.features(other)
        differences = recipe.differences(open_store(store).recipe) if store_exists(store) else []
        if differences:
            raise RecipeMismatch(
                f"these {split} features and the {other} in {store} differ ({'; '.join(differences)}): "
                "import both with the same length and type, use another --name, or replace the old ones with "
                "--replace"
            )


def require_zone(paths: Paths, split: str, zone: str) -> None:
    """Reject positions in another UTM zone than those of the other split."""
    other = OTHER[split]
    path = paths.imported(other)
    if path.exists() and (other_zone := Manifest.open(path).zone) != zone:
        raise InputError(
            f"the {split} positions are in UTM zone {zone or 'unknown'}, the {other} in "
            f"{other_zone or 'unknown'}: give both a column zone, or latitude and longitude, "
            "and import both again"
        )


def _create_without_views(paths: Paths, recipe: Recipe) -> None:
    plan = ViewPlan.load(paths.partition / "views.parquet")
    if len(plan):
        raise InputError(
            f"{len(plan):,} views are planned, but imported features have none: set partition.max_views to 0 "
            "and run `pipeline partition`"
        )
    dvc_link.remove_stale_link(paths, "views")
    spec = StoreSpec.for_rows(0, recipe.outputs, recipe.dtype)
    rows = row_identities(Manifest.open(paths.index("database")), plan)
    create_or_open(paths.features("views"), spec, recipe, rows, keep=True)


def _is_copy(path: Path, manifest: Manifest) -> bool:
    """Whether `path` holds the same images at the same positions."""
    try:
        copy = Manifest.open(path)
    except InputError:  # absent or damaged
        return False
    return (copy.digest, copy.zone) == (manifest.digest, manifest.zone)
