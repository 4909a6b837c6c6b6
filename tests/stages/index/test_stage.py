"""The index stage: rejected sources, skipped entries, duplicates and progress."""

import os
from pathlib import Path

import pytest

from stages.errors import InputError
from stages.index.manifest import Manifest
from stages.index.manifest_writer import DuplicateKeyError
from stages.index.stage import IndexInputs, run
from tests.support.index_sources import SKIP, STOP, index, listed, name

CAMPUS = Path(os.environ.get("PLACECACHE_CAMPUS", Path(__file__).parents[4] / "shared/data/campus"))


def test_stop_names_the_first_bad_entry_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match=r"1 no position \(bad.jpg\); .*index.on_error"):
        index(listed(tmp_path, [name(), "bad.jpg"]), tmp_path, STOP)
    assert list((tmp_path / "out").glob("*")) == []


def test_the_error_for_no_usable_entry_lists_reasons(tmp_path):
    with pytest.raises(InputError, match="no image with a usable position; skipped: 2 no position"):
        index(listed(tmp_path, ["a.jpg", "b.jpg"]), tmp_path)


def test_only_the_first_of_repeated_keys_is_indexed(tmp_path):
    lines = [
        name(heading="1"),
        "bad",
        name(heading="2"),
        name(heading="1"),
        name(heading="3"),
        name(heading="1"),
    ]
    result, manifest = index(listed(tmp_path, lines), tmp_path)
    assert manifest.column("heading").tolist() == [1, 2, 3]
    assert result.skipped == {"no position": 1, "key seen before": 2}
    assert result.rows == 3
    with pytest.raises(DuplicateKeyError, match="2 images"):
        index(listed(tmp_path, [line for line in lines if line != "bad"]), tmp_path, STOP)


def test_sources_without_images_are_rejected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image with a usable position"):
        index(tmp_path / "empty", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        index(tmp_path / "nowhere.csv", tmp_path)
    (tmp_path / "photos.json").write_text("{}")
    with pytest.raises(InputError, match="of no known kind"):
        index(tmp_path / "photos.json", tmp_path)


def test_progress_reaches_its_total(tmp_path):
    seen = []
    index(listed(tmp_path, [name()]), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0


def test_facts_list_skipped_entries(tmp_path):
    result, _ = index(listed(tmp_path, [name(), "bad.jpg"]), tmp_path)
    assert ("skipped: no position", "1 (first: bad.jpg)") in result.facts()


def test_the_manifest_counts_what_was_left_out(tmp_path):
    double = name()
    _, manifest = index(listed(tmp_path, [double, "bad.jpg", name(east=500_100), double]), tmp_path)
    assert (manifest.rows, manifest.skipped) == (2, 2)
    # A pack's manifest is indexed again; what its images lost the first time stays counted.
    again = tmp_path / "again.parquet"
    run(IndexInputs(SKIP, (manifest.path,), again, "queries"))
    assert Manifest.open(again).skipped == 2


@pytest.mark.skipif(not CAMPUS.is_dir(), reason="the campus photos are not here")
def test_the_campus_photos(tmp_path):
    counts = {}
    zone = None
    for split in ("database", "queries"):
        output = tmp_path / f"{split}.parquet"
        result = run(IndexInputs(SKIP, (CAMPUS / f"{split}.csv",), output, split, zone))
        zone = result.zone
        counts[split] = result.rows
        manifest = Manifest.open(tmp_path / f"{split}.parquet")
        assert manifest.image_path(manifest.keys(0, 1)[0]).is_file()
        assert manifest.column_names[-4:] == ["session", "device", "light", "file_bytes"]
    assert zone == "36R"
    assert counts == {"database": 1175, "queries": 205}
