"""The files of a trained localiser: meta.json, localiser.safetensors, classes.parquet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.errors import InputError
from stages.partition.classes import ClassTable


def write_folder(folder: Path, meta: dict[str, Any], tensors: dict[str, Tensor], classes: ClassTable) -> None:
    """Write the three files; an old folder is replaced once they are complete."""
    partial, old = folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    classes.save(partial / "classes.parquet")
    save_file(
        {name: value.cpu().contiguous() for name, value in tensors.items()}, partial / "localiser.safetensors"
    )
    (partial / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def read_folder(folder: Path, format_number: int) -> tuple[dict[str, Any], dict[str, Tensor], ClassTable]:
    """Return meta, tensors and classes that `write_folder` wrote.

    Raises
    ------
    InputError
        If a file is missing or damaged or has another format.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "localiser.safetensors")
    except FileNotFoundError as error:
        raise InputError(
            f"no localiser: {error.filename} does not exist; run `pipeline train-heads`"
        ) from None
    except (json.JSONDecodeError, SafetensorError) as error:
        raise InputError(f"{folder} is damaged ({error}): run `pipeline train-heads` again") from error
    if meta.get("format") != format_number:
        raise InputError(
            f"{folder} has format {meta.get('format')}, expected {format_number}: "
            "run `pipeline train-heads` again"
        )
    return meta, tensors, ClassTable.load(folder / "classes.parquet")


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
            f"the tensors in {folder} do not fit its meta.json and classes: run `pipeline train-heads` again"
        )
    for name, value in own.items():
        value.copy_(stored[name])
