"""Files of different runs of the partition stage are not used together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stages.errors import InputError
from stages.extract.plan import RowSource
from stages.index.manifest import Manifest
from stages.partition.classes import ClassTable
from stages.partition.identity import origin_of, require_one_partition
from stages.partition.views import ViewPlan
from tests.support.training_city import CONFIG, build_city, write_rows


@pytest.fixture
def city(tmp_path):
    """A city whose partition carries digests, as the stage writes them."""
    city = build_city(tmp_path / "city", side=3, images=30)
    save(city, city.classes, city.labels, city.plan)
    return city


def save(city, classes, labels, plan, only=("classes", "labels", "views")):
    folder = city.folder / "partition"
    origin = origin_of(Manifest.open(city.folder / "database.parquet"), classes, labels, plan)
    if "classes" in only:
        replace(classes, origin=origin).save(folder / "classes.parquet")
    if "labels" in only:
        np.save(folder / "labels.npy", labels)
    if "views" in only:
        replace(plan, origin=origin).save(folder / "views.parquet")


def test_files_of_one_run_fit(city):
    folder = city.folder / "partition"
    classes, plan = ClassTable.load(folder / "classes.parquet"), ViewPlan.load(folder / "views.parquet")
    assert set(classes.origin) == {"manifest", "labels", "partition"}
    assert classes.origin == plan.origin
    require_one_partition(folder, Manifest.open(city.folder / "database.parquet"), classes, city.labels, plan)
    assert city.train(replace(CONFIG, epochs=1.0)).steps


@pytest.mark.parametrize("written", [("classes",), ("classes", "labels"), ("labels",), ("views",)])
def test_a_kill_between_two_files_is_noticed(city, written):
    labels = city.labels.copy()
    labels[0] = -1
    save(city, replace(city.classes, p_aug=city.classes.p_aug / 2), labels, city.plan, written)
    with pytest.raises(InputError, match="files of different runs: run `pipeline partition` again"):
        city.train(CONFIG)


def test_a_partition_of_another_manifest_is_rejected(city):
    path = city.folder / "database.parquet"
    manifest = Manifest.open(path)
    write_rows(path, manifest.positions() + 1.0, manifest.column("timestamp").tolist())
    with pytest.raises(InputError, match=r"made for another .*run `pipeline partition` again"):
        city.train(CONFIG)
    plan = ViewPlan.load(city.folder / "partition" / "views.parquet")
    with pytest.raises(InputError, match="the view plan was made for another"):
        RowSource(Manifest.open(path), plan, object())
