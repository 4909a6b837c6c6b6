"""Features of a split out to other programs, and other programs' features in."""

from __future__ import annotations

from pathlib import Path

from cache.reader import FeatureReader
from pipeline.project import dvc_link
from pipeline.project.params import Params
from pipeline.project.paths import Paths
from stages.errors import InputError
from stages.extract.import_export import TransferResult, export_hdf5, export_npy, import_npy
from stages.files import Progress
from stages.index import stage as index
from stages.index.config import IndexConfig
from stages.index.manifest import Manifest

_EXPORTS = {".h5": export_hdf5, ".hdf5": export_hdf5, ".npy": export_npy}


def export_split(paths: Paths, split: str, file: Path, *, progress: Progress) -> TransferResult:
    """Return what writing one split's features to a file did; its suffix says how.

    Raises
    ------
    InputError
        If there is no such kind of file, or manifest and store do not belong together.
    """
    write = _EXPORTS.get(file.suffix.lower())
    if write is None:
        raise InputError(f"{file} is of no known kind: expected {', '.join(_EXPORTS)}")
    reader, manifest = FeatureReader.open(paths.features(split)), Manifest.open(paths.index(split))
    return write(reader, manifest, file, progress=progress)


def import_split(
    params: Params,
    paths: Paths,
    split: str,
    array: Path,
    positions: Path,
    *,
    name: str,
    replace: bool,
    progress: Progress,
) -> TransferResult:
    """Return what taking in features and the positions they belong to did; both become the project's own.

    The queries' positions are put in the zone of the database, as `index` does it.

    Raises
    ------
    InputError
        If a line of the list is unusable, since rows would no longer match, or the array does not fit.
    ConfigError
        If features are to go elsewhere, but a store of theirs is in the project.
    """
    dvc_link.remove_stale_link(paths, split)
    zone = None
    if split == "queries" and paths.index("database").exists():
        zone = Manifest.open(paths.index("database")).zone or None
    strict = IndexConfig(on_error="stop")
    index.run(strict, source=positions, output=paths.index(split), split=split, zone=zone)
    manifest = Manifest.open(paths.index(split))
    store = paths.features(split)
    moved = import_npy(array, manifest, store, name=name, replace=replace, progress=progress)
    dvc_link.write_link(paths, split)
    return moved
