"""Export features (HDF5 in hloc's layout, .npy with a list of keys) and import .npy features."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from cache.reader import FeatureReader
from cache.recipe import Recipe
from cache.spec import StoreSpec
from cache.storage.paths import AnyPath, StoragePath
from cache.store import create_or_open, drop_reusable
from cache.writer import ChunkWriter
from stages.errors import InputError
from stages.extract.row_identity import require_same_rows, row_identities
from stages.files import Progress, replacing
from stages.index.manifest import Manifest
from stages.models.backbones.registry import pooled_among

IMPORTED = "imported"
OUTPUT = "imported"


@dataclass(frozen=True)
class TransferResult:
    """Features exported or imported, rows without a valid feature, feature length, and the written path."""

    rows: int
    skipped: int
    length: int
    path: AnyPath

    def facts(self) -> list[tuple[str, object]]:
        """Return what to print, in reading order."""
        return [
            ("features", self.rows),
            ("without a feature", self.skipped),
            ("length", self.length),
            ("file", self.path),
        ]


def export_hdf5(
    reader: FeatureReader, manifest: Manifest, path: Path, *, progress: Progress | None = None
) -> TransferResult:
    """Write HDF5 in hloc's layout: a group per image, named by its key, with ``global_descriptor``.

    Outputs are concatenated in the store's order. Bad images have no group.

    Raises
    ------
    StoreError
        If features are missing.
    InputError
        If the features were made for another manifest.
    """
    reader.require_complete()
    require_same_rows(reader.store, manifest)
    exported, outputs = 0, pooled_among(reader.outputs)
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        for start, stop in reader.blocks():
            features, valid = reader.read(start, stop, outputs), reader.valid[start:stop]
            for row, key in enumerate(manifest.keys(start, stop)):
                if valid[row]:
                    file.create_group(key)["global_descriptor"] = features[row]
            exported += int(valid.sum())
            if progress is not None:
                progress(stop, reader.rows)
    return TransferResult(exported, reader.rows - exported, reader.length(outputs), path)


def export_npy(
    reader: FeatureReader, manifest: Manifest, path: Path, *, progress: Progress | None = None
) -> TransferResult:
    """Write one (rows, F) array in the manifest's order, and the keys next to it as ``<name>.csv``.

    Bad images are NaN. The CSV has path, utm_east, utm_north and zone, as the index stage reads it.

    Raises
    ------
    StoreError
        If features are missing.
    InputError
        If the features were made for another manifest.
    """
    reader.require_complete()
    require_same_rows(reader.store, manifest)
    outputs = pooled_among(reader.outputs)
    with replacing(path) as partial:
        shape = (reader.rows, reader.length(outputs))
        array = np.lib.format.open_memmap(partial, "w+", np.dtype(reader.store.spec.dtype), shape)
        for start, stop in reader.blocks():
            array[start:stop] = reader.read(start, stop, outputs)
            if progress is not None:
                progress(stop, reader.rows)
        array.flush()
    with replacing(path.with_suffix(".csv")) as partial:
        _write_list(partial, manifest)
    good = int(reader.valid.sum())
    return TransferResult(good, reader.rows - good, reader.length(outputs), path)


def import_npy(
    source: Path,
    manifest: Manifest,
    store: StoragePath,
    *,
    name: str,
    replace: bool,
    progress: Progress | None = None,
) -> TransferResult:
    """Fill a store with features of another program: row i of the array belongs to row i of the manifest.

    Rows that are not finite become bad rows. Every import writes all rows again.

    Parameters
    ----------
    source : Path
        An .npy file, (rows, F) float16 or wider; wider types are stored as float32.
    manifest : Manifest
        The images.
    store : StoragePath
        The store to fill; created if it does not exist.
    name : str
        The program or model that made the features. Database and queries need the same name, since
        only features of one kind can be compared.
    replace : bool
        Replace a store of other features.
    progress : callable, optional
        Called with (rows done, rows to do).

    Raises
    ------
    InputError
        If the file is not a (rows, F) array of floats with a row for each image.
    RecipeMismatch
        If the store has other features and `replace` is not set.
    """
    array = _open_array(source, manifest)
    dtype = "float16" if array.dtype == np.float16 else "float32"
    outputs = {OUTPUT: array.shape[1]}
    identity = hashlib.sha256(name.encode()).hexdigest()
    recipe = Recipe(IMPORTED, name, identity, 0, {"made by": name}, outputs, dtype, dtype)
    spec = StoreSpec.for_rows(manifest.rows, outputs, dtype)
    opened = create_or_open(store, spec, recipe, row_identities(manifest), replace=replace)
    writer, skipped = ChunkWriter(opened), 0
    for chunk in range(spec.chunks):
        rows = spec.chunk_slice(chunk)
        with np.errstate(over="ignore"):
            features = np.asarray(array[rows]).astype(dtype)
        not_finite = np.flatnonzero(~np.isfinite(features).all(axis=1))
        keys = manifest.keys(rows.start, rows.stop)
        bad = {int(row) + rows.start: "not finite in the imported file" for row in not_finite}
        names = {row: keys[row - rows.start] for row in bad}
        writer.write(chunk, {OUTPUT: features}, bad, keys=names)
        skipped += len(bad)
        if progress is not None:
            progress(rows.stop, spec.rows)
    drop_reusable(store)
    return TransferResult(spec.rows - skipped, skipped, array.shape[1], store)


def _open_array(source: Path, manifest: Manifest) -> npt.NDArray[np.floating]:
    try:
        array: npt.NDArray[np.floating] = np.load(source, mmap_mode="r")
    except FileNotFoundError:
        raise InputError(f"{source} does not exist: expected an .npy file of features") from None
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(f"{source} is not a readable .npy file ({error})") from error
    fits = isinstance(array, np.ndarray) and array.ndim == 2 and array.dtype.kind == "f"
    if not fits or array.shape[0] != manifest.rows or not array.shape[1]:
        content = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise InputError(
            f"{source} holds {content}: expected floats ({manifest.rows}, F), "
            f"a row for each image of {manifest.path}"
        )
    return array


def _write_list(path: Path, manifest: Manifest) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "utm_east", "utm_north", "zone"))
        for batch in manifest.batches(["key", "utm_east", "utm_north"]):
            for key, east, north in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                writer.writerow((key, repr(east), repr(north), manifest.zone))
