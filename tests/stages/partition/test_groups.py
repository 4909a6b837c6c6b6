"""`groups_per_side: auto`: one group while a softmax is cheap, then as many as keep groups small."""

import numpy as np
import pytest

from stages.partition import groups
from stages.partition.groups import cut_into_groups, groups_per_side_for
from stages.partition.stage import PartitionInputs, run
from tests.stages.partition.schemes.test_schemes import SCHEME_NAMES, photos
from tests.stages.partition.test_stage import config, manifest_of


@pytest.mark.parametrize(
    ("classes", "side"),
    [
        (1, 1),
        (10_000, 1),
        (10_001, 2),
        (40_000, 2),
        (40_001, 3),
        (90_001, 4),
        (160_001, 5),
        (300_000, 5),
    ],
)
def test_auto_keeps_groups_at_10_000_classes_up_to_25_groups(classes, side):
    assert groups_per_side_for(classes) == side


@pytest.mark.parametrize("scheme", SCHEME_NAMES)
@pytest.mark.parametrize(("limit", "side"), [(10_000, 1), (6, 2)])
def test_auto_cuts_as_the_number_it_chooses(scheme, limit, side, monkeypatch):
    monkeypatch.setattr(groups, "CLASSES_PER_GROUP", limit)
    monkeypatch.setattr(groups, "MOST_PER_SIDE", 2)
    cuts, resolved = cut_into_groups(photos(), config(scheme=scheme, groups_per_side="auto"))
    assert resolved.groups_per_side == side
    again, _ = cut_into_groups(photos(), config(scheme=scheme, groups_per_side=side))
    for one, other in zip(cuts, again, strict=True):
        np.testing.assert_array_equal(one.group, other.group)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_auto_counts_the_classes_of_the_largest_partition(monkeypatch):
    monkeypatch.setattr(groups, "CLASSES_PER_GROUP", 10)
    settings = config(scheme="hierarchy", groups_per_side="auto")
    cuts, resolved = cut_into_groups(photos(), settings)
    most = max(len(part.images) for part in cuts)
    assert most > min(len(part.images) for part in cuts)
    assert resolved.groups_per_side == groups_per_side_for(most) > 1


def test_the_stage_writes_the_same_files_for_auto_and_its_number(tmp_path):
    manifest = manifest_of(tmp_path / "database.parquet", photos().where)
    results = {
        side: run(PartitionInputs(config(groups_per_side=side), manifest, tmp_path / str(side), 0))
        for side in ("auto", 1)
    }
    assert results["auto"].groups_per_side == 1
    assert len(results["auto"].classes_per_group) == 1
    for name in ("classes.parquet", "labels.npy", "views.parquet"):
        assert (tmp_path / "auto" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
