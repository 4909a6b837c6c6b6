"""Features of a split to other programs, and features of other programs as a split of the project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cache.reader import FeatureReader
from pipeline.project import dvc_link
from pipeline.project.init import set_params
from pipeline.project.params import Params, change_setting, read_settings
from pipeline.project.paths import Paths, features_name
from pipeline.project.schema import build
from pipeline.runners.imported import OTHER, copy_manifest, require_recipe, require_zone
from stages.errors import ConfigError, InputError
from stages.extract.config import IMPORTED
from stages.extract.feature_files import feature_file
from stages.extract.import_export import (
    TransferResult,
    export_folder,
    export_hdf5,
    export_npy,
    import_features,
)
from stages.extract.imported_features import check, recipe_of
from stages.files import Progress
from stages.index import stage as index
from stages.index.colmap import convert_colmap_positions, write_colmap_positions
from stages.index.config import IndexConfig
from stages.index.manifest import Manifest

_EXPORTS = {".h5": export_hdf5, ".hdf5": export_hdf5, ".npy": export_npy, "": export_folder}


@dataclass(frozen=True)
class ImportRequest:
    """What `pipeline import features` was told."""

    features: Path
    positions: Path
    split: str
    name: str
    replace: bool = False


def export_split(paths: Paths, split: str, file: Path, *, progress: Progress) -> TransferResult:
    """Write one split's features to a file whose suffix names the format, or to a folder.

    Raises
    ------
    InputError
        If the format is not known, or manifest and store do not belong together.
    """
    write = _EXPORTS.get(file.suffix.lower())
    if write is None:
        known = ", ".join(filter(None, _EXPORTS))
        raise InputError(
            f"{file} is not a known kind of file: expected {known}, or a folder without a suffix"
        )
    reader, manifest = FeatureReader.open(paths.features(split)), Manifest.open(paths.index(split))
    return write(reader, manifest, file, progress=progress)


def import_split(
    params: Params, paths: Paths, request: ImportRequest, *, progress: Progress
) -> list[tuple[str, object]]:
    """Import features and positions as a split of the project, and return the lines to print.

    Everything is checked first: a rejected import changes nothing. Then the store is written, then its
    manifest, params.yaml and the index, so that a kill leaves the old project or the new one.

    Raises
    ------
    InputError
        If the features or a position cannot be used, or the splits do not belong together.
    RecipeMismatch
        If the store has features of another length or type and `replace` is not set.
    ConfigError
        If the name or the settings do not allow an import, or features elsewhere also exist in the project.
    """
    settings = _settings(paths, request.name)
    target = imported_paths(params, paths, request.name)
    _require_name(params, request)
    with _indexed(request, target) as manifest, feature_file(request.features, manifest) as file:
        report = check(file, manifest, params.extract.max_bad_fraction, progress)
        recipe = recipe_of(file, request.name)
        if not request.replace:
            require_recipe(target, request.split, recipe)
            require_zone(target, request.split, manifest.zone)
        dvc_link.remove_stale_link(target, request.split)
        store = target.features(request.split)
        result = import_features(
            file, manifest, store, recipe=recipe, replace=request.replace, progress=progress
        )
        copy_manifest(manifest, target.imported(request.split), request.positions.parent)
    if settings:
        set_params(paths.project / "params.yaml", settings)
    copy_manifest(Manifest.open(target.imported(request.split)), target.index(request.split))
    dvc_link.write_link(target, request.split)
    changes = [("params.yaml", f"{name}: {_yaml(value)}") for name, value in settings.items()]
    return [*result.facts(), *report.facts(), *changes]


def imported_paths(params: Params, paths: Paths, name: str) -> Paths:
    """Return the paths of the project with features imported as `name`."""
    return replace(paths, features_name=features_name(f"{IMPORTED}:{name}", params.extract.image_size))


@contextmanager
def _indexed(request: ImportRequest, paths: Paths) -> Iterator[Manifest]:
    """Index the positions, every one of which must be usable, into a folder that is deleted afterwards.

    The zone is that of the other split if it is imported already.
    """
    other, source = paths.imported(OTHER[request.split]), request.positions
    zone = Manifest.open(other).zone if other.exists() and not request.replace else None
    with TemporaryDirectory() as folder:
        if source.suffix.lower() == ".txt" and source.exists():
            source = Path(folder) / "positions.csv"
            convert_colmap_positions(request.positions, source)
        output = Path(folder) / f"{request.split}.parquet"
        strict = IndexConfig(on_error="stop")
        index.run(index.IndexInputs(strict, (source,), output, request.split, zone or None))
        yield Manifest.open(output)


def _settings(paths: Paths, name: str) -> dict[str, object]:
    """Return the settings that an import changes; ConfigError if the others do not fit them."""
    changes = {
        "data.database": IMPORTED,
        "data.queries": IMPORTED,
        "extract.backbone": f"{IMPORTED}:{name}",
        "partition.max_views": 0,
        "train.augment_views": False,
        "train.inputs": "all",
    }
    settings = read_settings(paths.project / "params.yaml")
    changed = {key: value for key, value in changes.items() if _setting(settings, key) != value}
    for key, value in changed.items():
        change_setting(settings, key, value)
    build(Params, settings)
    return changed


def _setting(settings: dict[str, object], name: str) -> object:
    section, _, key = name.partition(".")
    values = settings[section]
    return values[key] if isinstance(values, dict) else None


def _yaml(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _require_name(params: Params, request: ImportRequest) -> None:
    name = params.extract.imported
    if request.split == "queries" and name not in (None, request.name):
        raise ConfigError(
            f"--name is {request.name}, but the database was imported as {name}: use --name {name}, "
            f"or import the database as {request.name} first"
        )


def export_positions(paths: Paths, split: str, file: Path) -> list[tuple[str, object]]:
    """Write a split's positions in COLMAP's text form, and return the lines to print."""
    return [("images", write_colmap_positions(Manifest.open(paths.index(split)), file)), ("file", file)]
