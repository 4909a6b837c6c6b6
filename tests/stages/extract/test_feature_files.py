"""Feature files of other programs: which are read, and what is wrong with the others."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from stages.errors import InputError
from stages.extract.feature_files import feature_file
from stages.extract.imported_features import check
from tests.support.features_to_import import KEYS, ROWS, manifest_of

FEATURES = np.random.default_rng(1).normal(size=(ROWS, 5)).astype(np.float32)


@pytest.fixture
def manifest(tmp_path):
    return manifest_of(tmp_path / "index/database.parquet")


def read(path, manifest):
    """Read all rows of a file."""
    with feature_file(path, manifest) as file:
        parts = [file.read(0, KEYS[:60]), file.read(60, KEYS[60:])]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


@pytest.mark.parametrize("shape", [(5,), (1, 5), (5, 1)])
def test_hloc_files_are_read(shape, manifest, tmp_path):
    with h5py.File(tmp_path / "global.h5", "w") as file:
        for key, feature in zip(reversed(KEYS), FEATURES[::-1], strict=True):
            file.create_group(key)["global_descriptor"] = feature.reshape(shape)
        file.create_group("query/x.jpg")["global_descriptor"] = FEATURES[0]
    features, exists = read(tmp_path / "global.h5", manifest)
    np.testing.assert_array_equal(features, FEATURES)
    assert exists.all()


@pytest.mark.parametrize("suffix", [".jpg.npy", ".npy"])
def test_a_folder_of_one_file_per_image_is_read(suffix, manifest, tmp_path):
    for key, feature in zip(KEYS, FEATURES, strict=True):
        file = tmp_path / "out" / (key.removesuffix(".jpg") + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, feature)
    np.testing.assert_array_equal(read(tmp_path / "out", manifest)[0], FEATURES)


@pytest.mark.parametrize("names", ["names.txt", "names.npy", "all.txt", "all.csv"])
def test_one_array_with_names_is_read_in_any_order(names, manifest, tmp_path):
    order = np.random.default_rng(2).permutation(ROWS)
    shuffled = [KEYS[row] for row in order]
    folder = tmp_path / "out"
    folder.mkdir()
    np.save(folder / "all.npy", FEATURES[order])
    if names.endswith(".npy"):
        np.save(folder / names, np.array(shuffled))
    else:
        header = ["label,path"] if names.endswith(".csv") else []
        lines = [f"{number},{key}" if header else key for number, key in enumerate(shuffled)]
        (folder / names).write_text("\n".join([*header, *lines]) + "\n")
    features, exists = read(folder, manifest)
    np.testing.assert_array_equal(features, FEATURES)
    assert exists.all()


def test_few_missing_images_become_bad_rows(manifest, tmp_path):
    with h5py.File(tmp_path / "global.h5", "w") as file:
        for key in KEYS[2:]:
            file.create_group(key)["global_descriptor"] = FEATURES[0]
    with feature_file(tmp_path / "global.h5", manifest) as file:
        report = check(file, manifest, absent_share=0.05)
        assert report.facts() == [("no feature in the imported file", f"2 (first: row 0, {KEYS[0]})")]
        with pytest.raises(InputError, match=r"lacks 2 of the 100 .*row 0, .*max_bad_fraction, 0\.01"):
            check(file, manifest, absent_share=0.01)


def test_unknown_names_are_rejected_with_both_spellings(manifest, tmp_path):
    with h5py.File(tmp_path / "global.h5", "w") as file:
        file.create_group("000.jpg")["global_descriptor"] = FEATURES[0]
    folder = tmp_path / "named"
    folder.mkdir()
    np.save(folder / "a.npy", FEATURES[:1])
    (folder / "names.txt").write_text("000.jpg\n")
    for path in (tmp_path / "global.h5", folder):
        with pytest.raises(InputError, match=r"street/000\.jpg, .* 000\.jpg.*use the same names"):
            read(path, manifest)


@pytest.mark.parametrize(
    "array", [np.ones((ROWS - 1, 3)), np.ones(ROWS), np.ones((ROWS, 3), np.int64), np.ones((ROWS, 0))]
)
def test_arrays_of_another_shape_or_type_are_rejected(array, manifest, tmp_path):
    np.save(tmp_path / "mine.npy", array)
    with pytest.raises(InputError, match=r"mine\.npy holds .*expected floats \(100, F\)"):
        read(tmp_path / "mine.npy", manifest)


def test_unreadable_files_are_rejected(manifest, tmp_path):
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.h5").write_text("no array")
    (tmp_path / "mine.mat").write_text("")
    np.savez(tmp_path / "several", FEATURES)
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name, message in (
        ("text.npy", r"not a readable \.npy"),
        ("objects.npy", r"not a readable \.npy"),
        ("several.npy", "holds several arrays"),
        ("text.h5", "not a readable HDF5"),
        ("mine.mat", r"not a known kind of file: expected \.npy"),
        ("absent.npy", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path / name, manifest)


def test_vectors_of_several_lengths_are_rejected(manifest, tmp_path):
    with h5py.File(tmp_path / "global.h5", "w") as file:
        for row, key in enumerate(KEYS):
            file.create_group(key)["global_descriptor"] = np.ones(4 if row == 7 else 5, np.float32)
    with pytest.raises(InputError, match=rf"float32 \(4,\) for {KEYS[7]}, but float32 \(5,\)"):
        read(tmp_path / "global.h5", manifest)


@pytest.mark.parametrize("value", [np.ones((2, 2)), np.ones(3, np.int32), np.float32(1), np.bytes_(b"x")])
def test_values_that_are_no_vector_are_rejected(value, manifest, tmp_path):
    with h5py.File(tmp_path / "global.h5", "w") as file:
        file.create_group(KEYS[0])["global_descriptor"] = value
    with pytest.raises(InputError, match=rf"{KEYS[0]}: holds .*expected floats \(F,\)"):
        read(tmp_path / "global.h5", manifest)


def open_and_close(folder, keys, tmp_path):
    with feature_file(folder, manifest_of(tmp_path / "i.parquet", keys)) as file:
        file.read(0, keys)


def test_ambiguous_names_stop_the_import(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    np.save(folder / "a.npy", FEATURES[0])
    with pytest.raises(InputError, match=r"could belong to a\.jpg and to a\.png"):
        open_and_close(folder, ["a.jpg", "a.png"], tmp_path)
    (folder / "names.txt").write_text("a.jpg\nb.jpg\na.jpg\n")
    np.save(folder / "a.npy", FEATURES[:3])
    with pytest.raises(InputError, match=r"names a\.jpg twice"):
        open_and_close(folder, ["a.jpg"], tmp_path)
    np.save(folder / "b.npy", FEATURES[:3])
    with pytest.raises(InputError, match=r"names\.txt and the arrays a\.npy, b\.npy: expected one"):
        open_and_close(folder, ["a.jpg"], tmp_path)
