"""The files of a trained localiser: meta.json, localiser.safetensors, classes.parquet, exemplars.parquet."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from errno import EIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cache.storage.paths import LocalPath, naming_errors
from stages.errors import InputError
from stages.files import read_json
from stages.models.localiser.exemplar_photos import ExemplarPhotos
from stages.partition.classes import ClassTable

FORMAT = 3
PHOTOS_DIGEST = "exemplar_photos"
"""Name in meta.json of the SHA-256 of the exemplars' photos, whose file may be deleted."""
_WITHOUT_DIGEST = 2
_META, _TENSORS, _CLASSES = FILES = "meta.json", "localiser.safetensors", "classes.parquet"
_MADE_BY = "pipeline train-heads"
_LOWER_RATES = "lower train.learning_rate_heads and train.learning_rate_projection"


def write_folder(
    folder: Path,
    meta: dict[str, Any],
    tensors: dict[str, Tensor],
    classes: ClassTable,
    photos: ExemplarPhotos | None = None,
) -> None:
    """Write the files and a digest of them; an old folder is replaced once they are complete."""
    _require_finite(tensors, f"the training for {folder} diverged", _LOWER_RATES)
    partial, old = folder.with_name(f"{folder.name}.partial"), _old(folder)
    if not folder.exists() and old.exists():
        old.rename(folder)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    classes.save(partial / _CLASSES)
    save_tensors(tensors, partial / _TENSORS)
    meta = {name: value for name, value in meta.items() if name != PHOTOS_DIGEST} | {"format": FORMAT}
    if photos is not None:
        meta[PHOTOS_DIGEST] = photos.save(partial, folder)
    text = json.dumps({**meta, "digest": _digest(partial, meta)}, indent=2) + "\n"
    LocalPath(partial / _META).write_atomic(text.encode())
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    LocalPath(folder.parent).sync()
    shutil.rmtree(old, ignore_errors=True)


def read_folder(
    folder: Path,
) -> tuple[dict[str, Any], dict[str, Tensor], ClassTable, ExemplarPhotos | None]:
    """Return meta, tensors, classes and the exemplars' photos that `write_folder` wrote.

    Raises
    ------
    InputError
        If a file is missing or damaged or has another format.
    """
    stored = folder if folder.exists() or not _old(folder).exists() else _old(folder)
    for name in (_META, _TENSORS, _CLASSES):
        if not (stored / name).exists():
            raise InputError(f"no localiser: {folder / name} does not exist; run `{_MADE_BY}`")
    meta = read_json(stored / _META, made_by=_MADE_BY)
    digest = meta.pop("digest", None)
    if meta.get("format") not in (FORMAT, _WITHOUT_DIGEST):
        raise InputError(
            f"{folder} has format {meta.get('format')}, expected {FORMAT}: run `{_MADE_BY}` again"
        )
    if (digest is not None or meta["format"] == FORMAT) and digest != _digest(stored, meta):
        raise InputError(
            f"{folder} is damaged or was edited (its files differ from those that were written): "
            f"put it back from a copy, or run `{_MADE_BY}` again"
        )
    try:
        tensors = load_file(stored / _TENSORS)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{folder} is damaged ({error}): run `{_MADE_BY}` again") from error
    _require_finite(tensors, f"{folder} is damaged", f"run `{_MADE_BY}` again")
    photos = ExemplarPhotos.load(stored, meta.get(PHOTOS_DIGEST))
    return meta, tensors, ClassTable.load(stored / _CLASSES), photos


def digest_of_folder(folder: Path) -> str:
    """Return the digest that `write_folder` noted, which identifies the localiser; "" in older ones."""
    return str(read_json(folder / _META, made_by=_MADE_BY).get("digest", ""))


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file and force it to the disk."""
    path.touch()
    mode = path.stat().st_mode
    with naming_errors(path, path):
        try:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, path)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else EIO, str(error)) from error
        path.chmod(mode)  # the library gives a file to its owner alone
        LocalPath(path).sync()


def copy_tensors(stored: dict[str, Tensor], own: dict[str, Tensor], folder: Path) -> None:
    """Copy the stored tensors into the localiser's own.

    Raises
    ------
    InputError
        If their names or shapes differ.
    """
    shapes = {name: value.shape for name, value in own.items()}
    if shapes != {name: value.shape for name, value in stored.items()}:
        raise InputError(
            f"the tensors in {folder} do not fit its meta.json and classes: run `{_MADE_BY}` again"
        )
    for name, value in own.items():
        value.copy_(stored[name])


def _old(folder: Path) -> Path:
    """Where a folder is while a new one takes its place."""
    return folder.with_name(f"{folder.name}.old")


def _digest(folder: Path, meta: dict[str, Any]) -> str:
    """SHA-256 of meta, as canonical JSON, and of the two other files."""
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in (_TENSORS, _CLASSES):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _require_finite(tensors: dict[str, Tensor], fault: str, fix: str) -> None:
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{fault} ({name} is not finite): {fix}")
