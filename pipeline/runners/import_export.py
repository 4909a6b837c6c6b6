"""Export features for other programs, and import features from them."""

from __future__ import annotations

from pathlib import Path

from cache.reader import FeatureReader
from pipeline.project import dvc_link
from pipeline.project.paths import Paths
from stages.errors import InputError
from stages.extract.import_export import TransferResult, export_hdf5, export_npy, import_npy
from stages.files import Progress
from stages.index import stage as index
from stages.index.config import IndexConfig
from stages.index.manifest import Manifest

_EXPORTS = {".h5": export_hdf5, ".hdf5": export_hdf5, ".npy": export_npy}


def export_split(paths: Paths, split: str, file: Path, *, progress: Progress) -> TransferResult:
    """Write one split's features to a file in the format of its suffix.

    Raises
    ------
    InputError
        If the suffix is unknown, or manifest and store do not fit together.
    """
    write = _EXPORTS.get(file.suffix.lower())
    if write is None:
        raise InputError(f"{file} has an unknown suffix: expected {', '.join(_EXPORTS)}")
    reader, manifest = FeatureReader.open(paths.features(split)), Manifest.open(paths.index(split))
    return write(reader, manifest, file, progress=progress)


def import_split(
    paths: Paths,
    split: str,
    array: Path,
    positions: Path,
    *,
    name: str,
    replace: bool,
    progress: Progress,
) -> TransferResult:
    """Make a manifest from a list of positions, and a feature store from the array that belongs to it.

    As in `index`, the queries' positions are converted to the UTM zone of the database.

    Raises
    ------
    InputError
        If a line of the list cannot be used (rows would no longer match), or the array does not fit.
    ConfigError
        If `data.features` is outside the project, but the project holds a store.
    """
    dvc_link.remove_stale_link(paths, split)
    zone = None
    if split == "queries" and paths.index("database").exists():
        zone = Manifest.open(paths.index("database")).zone or None
    strict = IndexConfig(on_error="stop")
    index.run(index.IndexInputs(strict, positions, paths.index(split), split, zone))
    manifest = Manifest.open(paths.index(split))
    store = paths.features(split)
    result = import_npy(array, manifest, store, name=name, replace=replace, progress=progress)
    dvc_link.write_link(paths, split)
    return result
