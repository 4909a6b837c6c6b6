"""Other programs' feature files, read row by row in a manifest's order: .npy, HDF5, a folder of .npy."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.index.manifest import Manifest

DESCRIPTOR = "global_descriptor"  # hloc's name of the dataset in an image's group
_NAME_COLUMNS = ("path", "file", "filename", "name", "image", "key")
Features = npt.NDArray[np.floating[Any]]


class FeatureFile(ABC):
    """Features of another program; `length` is F, `dtype` the floating type in the file."""

    path: Path
    length: int
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, start: int, keys: Sequence[str]) -> tuple[Features, npt.NDArray[np.bool_]]:
        """Return the features (n, F) of the images `keys`, rows `start` and following, and which exist."""


@contextmanager
def feature_file(path: Path, manifest: Manifest) -> Iterator[FeatureFile]:
    """Open the features of a manifest's images.

    Parameters
    ----------
    path : Path
        ``.npy``: an array (rows, F), row i is row i of the manifest. ``.h5`` or ``.hdf5``: hloc's layout,
        ``<key>/global_descriptor``. A folder: one .npy per image, or one array and a list of its names.
    manifest : Manifest
        The images.

    Raises
    ------
    InputError
        If the file is of another kind or shape, or holds none of the images.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        yield _open_folder(path, manifest)
    elif not path.exists():
        raise InputError(f"{path} does not exist: expected an .npy or .h5 file, or a folder of .npy files")
    elif suffix in (".h5", ".hdf5"):
        with _open_hdf5(path) as file:
            yield PerImage.of(path, manifest, _Hdf5(path, file))
    elif suffix == ".npy":
        yield RowArray(path, _load_matrix(path, manifest.rows, manifest.path))
    else:
        raise InputError(f"{path} is not a known kind of file: expected .npy, .h5 or a folder of .npy files")


class RowArray(FeatureFile):
    """An array whose row i belongs to row i of the manifest."""

    def __init__(self, path: Path, array: Features) -> None:
        self.path, self.length, self.dtype = path, array.shape[1], array.dtype
        self._array = array

    def read(self, start: int, keys: Sequence[str]) -> tuple[Features, npt.NDArray[np.bool_]]:
        """Return the next rows of the array."""
        return np.asarray(self._array[start : start + len(keys)]), np.ones(len(keys), np.bool_)


class NamedArray(FeatureFile):
    """An array with the name of each row, in any order."""

    def __init__(self, path: Path, array: Features, names: Sequence[str]) -> None:
        self.path, self.length, self.dtype = path, array.shape[1], array.dtype
        self._array = array
        self._row = {name: row for row, name in enumerate(names)}
        if len(self._row) < len(names):
            twice = next(name for row, name in enumerate(names) if self._row[name] != row)
            raise InputError(f"{path} names {twice} twice: expected one row for each image")

    def read(self, start: int, keys: Sequence[str]) -> tuple[Features, npt.NDArray[np.bool_]]:
        """Return the rows that these names have."""
        rows = np.array([self._row.get(key, -1) for key in keys], np.int64)
        return np.asarray(self._array[np.maximum(rows, 0)]), rows >= 0


class PerImage(FeatureFile):
    """One vector per image, in an HDF5 file or in a folder."""

    def __init__(self, path: Path, vectors: _Hdf5 | _Folder, first: Features) -> None:
        self.path, self.length, self.dtype = path, len(first), first.dtype
        self._vectors = vectors

    @classmethod
    def of(cls, path: Path, manifest: Manifest, vectors: _Hdf5 | _Folder) -> PerImage:
        """Return the vectors; InputError if no image of the manifest has one."""
        for batch in manifest.batches(["key"]):
            for key in batch["key"].to_pylist():
                if (first := vectors.load(key)) is not None:
                    return cls(path, vectors, first)
        raise InputError(
            f"{path} has no feature of any image of {manifest.path.stem}: the first image there is "
            f"{manifest.keys(0, 1)[0]}, the file has {vectors.example()}; use the same names in both"
        )

    def read(self, start: int, keys: Sequence[str]) -> tuple[Features, npt.NDArray[np.bool_]]:
        """Return the vectors of these images."""
        features, exists = np.zeros((len(keys), self.length), self.dtype), np.zeros(len(keys), np.bool_)
        for row, key in enumerate(keys):
            vector = self._vectors.load(key)
            if vector is None:
                continue
            if len(vector) != self.length or vector.dtype != self.dtype:
                raise InputError(
                    f"{self.path} holds {vector.dtype} ({len(vector)},) for {key}, but {self.dtype} "
                    f"({self.length},) for the first image: expected features of one model"
                )
            features[row], exists[row] = vector, True
        return features, exists


class _Hdf5:
    """hloc's layout: a group per image, with its vector in ``global_descriptor``."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path, self._file = path, file

    def load(self, key: str) -> Features | None:
        """Return the vector of an image, None if there is none."""
        try:
            dataset = self._file.get(f"{key}/{DESCRIPTOR}")
            values = dataset[()] if isinstance(dataset, h5py.Dataset) else None
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise InputError(f"{self._path} is damaged at {key} ({error}): write it again") from error
        if dataset is not None and values is None:
            raise InputError(f"{self._path} has a group {key}/{DESCRIPTOR}: expected an array of shape (F,)")
        return None if values is None else _vector(values, f"{self._path}, {key}")

    def example(self) -> str:
        """Return what the file holds, for an error message."""
        name = self._file.visititems(lambda name, item: name if isinstance(item, h5py.Dataset) else None)
        return str(name or "nothing")


class _Folder:
    """One .npy per image: ``<key>.npy``, or the key with .npy in place of its suffix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key_of: dict[Path, str] = {}

    def load(self, key: str) -> Features | None:
        """Return the vector of an image, None if there is none."""
        file = self._folder / f"{key}.npy"
        if not file.is_file():
            file = (self._folder / key).with_suffix(".npy")
            if not file.is_file():
                return None
            other = self._key_of.setdefault(file, key)
            if other != key:
                raise InputError(f"{file} could belong to {other} and to {key}: name it {key}.npy")
        return _vector(_load(file), str(file))

    def example(self) -> str:
        """Return what the folder holds, for an error message."""
        return str(next((file.relative_to(self._folder) for file in self._folder.rglob("*.npy")), "no .npy"))


def _open_folder(folder: Path, manifest: Manifest) -> FeatureFile:
    arrays = [array for array in sorted(folder.glob("*.npy")) if array.name != "names.npy"]
    lists = [folder / "names.txt", folder / "names.npy"]
    if len(arrays) == 1:
        lists += [arrays[0].with_suffix(suffix) for suffix in (".txt", ".csv")]
    names_file = next((path for path in lists if path.is_file()), None)
    if names_file is None:
        return PerImage.of(folder, manifest, _Folder(folder))
    if len(arrays) != 1:
        listed = ", ".join(array.name for array in arrays) or "none"
        raise InputError(f"{folder} has a list {names_file.name} and the arrays {listed}: expected one array")
    names = _names_in(names_file)
    array = NamedArray(arrays[0], _load_matrix(arrays[0], len(names), names_file), names)
    if not any(array.read(0, batch["key"].to_pylist())[1].any() for batch in manifest.batches(["key"])):
        raise InputError(
            f"{names_file} names no image of {manifest.path.stem}: the first image there is "
            f"{manifest.keys(0, 1)[0]}, the list begins with {names[0]}; use the same names in both"
        )
    return array


def _names_in(path: Path) -> list[str]:
    """Return the names in a list: lines of a .txt, strings of an .npy, a column of a .csv."""
    if path.suffix == ".npy":
        array = _load(path)
        if array.ndim != 1 or array.dtype.kind != "U":
            raise InputError(f"{path} holds {array.dtype} {array.shape}: expected a list of names")
        return [str(name) for name in array]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from error
    if path.suffix == ".txt":
        return [line for line in lines if line.strip()]
    table = csv.DictReader(lines)
    column = next((name for name in _NAME_COLUMNS if name in (table.fieldnames or ())), None)
    if column is None:
        raise InputError(f"{path} has no column with names: expected one of {', '.join(_NAME_COLUMNS)}")
    return [row[column] or "" for row in table]


def _load(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r" if path.stat().st_size > 1 << 16 else None)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(f"{path} is not a readable .npy file ({error}): save it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds several arrays: expected one, saved with numpy.save")
    return array


def _load_matrix(path: Path, rows: int, listed_in: Path) -> Features:
    array = _load(path)
    if array.ndim != 2 or array.dtype.kind != "f" or len(array) != rows or not array.shape[1]:
        raise InputError(
            f"{path} holds {array.dtype} {array.shape}: expected floats ({rows}, F), "
            f"a row for each of the {rows} images of {listed_in}"
        )
    return array


def _vector(array: Any, where: str) -> Features:
    """Return one image's vector; (1, F) and (F, 1) count as (F,)."""
    vector = np.asarray(array)
    if vector.dtype.kind != "f" or not vector.size or vector.size != max(vector.shape, default=0):
        raise InputError(f"{where}: holds {vector.dtype} {vector.shape}: expected floats (F,)")
    return vector.reshape(-1)


def _open_hdf5(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is not a readable HDF5 file ({error})") from error
