"""Export features (HDF5 in hloc's layout, .npy with a list of keys, a folder of .npy) and import them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.reader import FeatureReader
from cache.recipe import Recipe
from cache.spec import StoreSpec
from cache.storage.paths import AnyPath, StoragePath
from cache.storage.shard_claims import claimed
from cache.store import create_or_open, drop_reusable
from cache.writer import ChunkWriter
from stages.extract.feature_files import DESCRIPTOR, FeatureFile
from stages.extract.imported_features import OUTPUT, read_checked
from stages.extract.row_identity import require_same_rows, row_identities
from stages.files import Progress, new_folder, replacing, save_array, writing_hdf5
from stages.index.manifest import Manifest
from stages.models.backbones.spec import pooled_among


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
    exported, outputs = 0, _checked_outputs(reader, manifest)
    with replacing(path) as partial, writing_hdf5(partial) as file:
        for start, stop in reader.blocks():
            features, valid = reader.read(start, stop, outputs), reader.valid[start:stop]
            for row, key in enumerate(manifest.keys(start, stop)):
                if valid[row]:
                    file.create_group(key)[DESCRIPTOR] = features[row]
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
    outputs = _checked_outputs(reader, manifest)
    dtype, shape = np.dtype(reader.store.spec.dtype), (reader.rows, reader.length(outputs))
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    # Not a mapped file: on a full disk, writing to one kills the process.
    with replacing(path) as partial, partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start, stop in reader.blocks():
            file.write(np.ascontiguousarray(reader.read(start, stop, outputs), dtype).data)
            if progress is not None:
                progress(stop, reader.rows)
    with replacing(path.with_suffix(".csv")) as partial:
        _write_list(partial, manifest)
    good = int(reader.valid.sum())
    return TransferResult(good, reader.rows - good, reader.length(outputs), path)


def export_folder(
    reader: FeatureReader, manifest: Manifest, path: Path, *, progress: Progress | None = None
) -> TransferResult:
    """Write a folder with one (F,) array per image, ``<key>.npy``; bad images have none.

    Raises
    ------
    StoreError
        If features are missing.
    InputError
        If the features were made for another manifest, or the folder exists.
    """
    exported, outputs = 0, _checked_outputs(reader, manifest)
    with new_folder(path) as partial:
        for start, stop in reader.blocks():
            features, valid = reader.read(start, stop, outputs), reader.valid[start:stop]
            keys = manifest.keys(start, stop)
            for row in np.flatnonzero(valid):
                file = partial / f"{keys[row]}.npy"
                file.parent.mkdir(parents=True, exist_ok=True)
                save_array(file, features[row])
            exported += int(valid.sum())
            if progress is not None:
                progress(stop, reader.rows)
    return TransferResult(exported, reader.rows - exported, reader.length(outputs), path)


def _checked_outputs(reader: FeatureReader, manifest: Manifest) -> tuple[str, ...]:
    """Return the outputs to export, after checking that they are complete and of this manifest's images."""
    reader.require_complete()
    require_same_rows(reader.store, manifest)
    return pooled_among(reader.outputs)


def import_features(
    file: FeatureFile,
    manifest: Manifest,
    store: StoragePath,
    *,
    recipe: Recipe,
    replace: bool,
    progress: Progress | None = None,
) -> TransferResult:
    """Fill a store with the features of another program, which `imported_features.check` has accepted.

    Every row is written again. All chunks lose their ledger entries first, so that a store never counts as
    complete while it holds features of two imports.
    """
    spec = StoreSpec.for_rows(manifest.rows, recipe.outputs, recipe.dtype)
    opened = create_or_open(store, spec, recipe, row_identities(manifest), replace=replace)
    skipped = 0
    with claimed(store, {0: range(spec.chunks)}):
        for chunk in opened.ledger.listed():
            opened.ledger.reopen(chunk)
        writer = ChunkWriter(opened)
        for chunk in range(spec.chunks):
            rows = spec.chunk_slice(chunk)
            keys = manifest.keys(rows.start, rows.stop)
            features, reasons = read_checked(file, rows.start, keys)
            bad = {rows.start + row: reason for row, reason in reasons.items()}
            writer.write(chunk, {OUTPUT: features}, bad, keys={row: keys[row - rows.start] for row in bad})
            skipped += len(bad)
            if progress is not None:
                progress(rows.stop, spec.rows)
    drop_reusable(store)
    return TransferResult(spec.rows - skipped, skipped, file.length, store)


def _write_list(path: Path, manifest: Manifest) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "utm_east", "utm_north", "zone"))
        for batch in manifest.batches(["key", "utm_east", "utm_north"]):
            for key, east, north in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                writer.writerow((key, repr(east), repr(north), manifest.zone))
