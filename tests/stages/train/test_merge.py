"""Heads trained each on its own must equal those trained together against the same projection."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.project.init import template
from pipeline.project.params import load_params
from pipeline.project.paths import Paths
from pipeline.runners import train as training
from stages.errors import ConfigError, InputError
from stages.partition.classes import ClassTable
from stages.train.merge import merge_heads
from tests.support.training_city import CONFIG, build_city


def test_heads_trained_apart_and_merged(tmp_path):
    city = build_city(tmp_path / "city")
    output = city.folder / "localiser"
    city.train(CONFIG)
    before = load_file(output / "localiser.safetensors")
    folders = {group: tmp_path / f"head-{group}" for group in (1, 3)}
    results = [
        city.train(CONFIG, output=folder, base=output, groups=(group,), seed=1)
        for group, folder in folders.items()
    ]
    alone = {group: load_file(folder / "localiser.safetensors") for group, folder in folders.items()}
    merged = merge_heads(output, folders, results)
    after = load_file(output / "localiser.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"group.1.prototypes", "group.3.prototypes"}
    for group in folders:
        name = f"group.{group}.prototypes"
        assert torch.equal(after[name], alone[group][name])
    assert (merged.groups, merged.projection) == ((1, 3), "frozen")
    assert merged.samples == sum(result.samples for result in results)
    assert merged.drawn == {
        bucket: results[0].drawn[bucket] + results[1].drawn[bucket] for bucket in ("head", "mid", "tail")
    }
    assert merged.loss == pytest.approx((results[0].loss + results[1].loss) / 2)
    assert merged.classes == sum(np.isin(city.classes.group, (1, 3)))
    assert not any(folder.exists() for folder in folders.values())


EMPTY, ALIKE, BROKEN = 2, 4, 6
"""Groups of nine that cannot learn: without a class, with one class, without a sound image."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Settings and files of a project, trained, where some groups have nothing to learn."""
    folder = tmp_path_factory.mktemp("lame")
    whole = build_city(folder / "whole", groups_per_side=3)
    bad = np.flatnonzero(whole.classes.group[whole.labels] == BROKEN).tolist()
    city = build_city(folder / "city", groups_per_side=3, bad=bad)
    group, index = whole.classes.group, whole.classes.index
    kept = (group != EMPTY) & ((group != ALIKE) | (index == 0))
    columns = {name: value for name, value in vars(whole.classes).items() if isinstance(value, np.ndarray)}
    table = replace(whole.classes, **{name: value[kept] for name, value in columns.items()})
    labels = np.where(kept, np.cumsum(kept) - 1, -1)[whole.labels].astype(np.int32)
    paths = Paths(folder / "project", "toy")
    for split in ("database", "views"):
        paths.index(split).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(city.folder / f"{split}.zarr", paths.features(split))
    shutil.copyfile(city.folder / "database.parquet", paths.index("database"))
    shutil.copytree(city.folder / "partition", paths.partition)
    table.save(paths.partition / "classes.parquet")
    np.save(paths.partition / "labels.npy", labels)
    params = replace(load_params(template("params.yaml")), train=replace(CONFIG, epochs=2.0))
    training.train(params, paths, groups=None, frozen=False, device="cpu", scheduler=None)
    return params, paths


@pytest.fixture
def lame(built, tmp_path):
    params, paths = built
    return params, Paths(shutil.copytree(paths.project, tmp_path / "project"), "toy")


@pytest.fixture
def here(monkeypatch):
    """A cluster that is this process."""
    monkeypatch.setattr(training, "connect", lambda scheduler: nullcontext())
    monkeypatch.setattr(
        training, "map_shards", lambda function, shards, client: ((each, function(each)) for each in shards)
    )


@pytest.mark.parametrize("scheduler", [None, "local:2"])
def test_heads_with_nothing_to_learn_stay_as_they_are(lame, here, scheduler):
    params, paths = lame
    params = replace(params, seeds=replace(params.seeds, train=1))
    before = load_file(paths.localiser / "localiser.safetensors")
    result = training.train(params, paths, groups=None, frozen=True, device="cpu", scheduler=scheduler)
    after = load_file(paths.localiser / "localiser.safetensors")
    learning = sorted({*range(9)} - {EMPTY, ALIKE, BROKEN})
    assert result.groups == tuple(learning)
    assert not list(paths.localiser.parent.glob("localiser.group-*"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"group.{group}.prototypes" for group in learning}
    some = training.train(
        params, paths, groups=(ALIKE, 8, 8), frozen=False, device="cpu", scheduler=scheduler
    )
    assert some.groups == (8,)


@pytest.mark.parametrize("scheduler", [None, "local:2"])
def test_groups_with_nothing_to_learn_are_rejected_at_once(lame, scheduler):
    params, paths = lame
    for group in (EMPTY, ALIKE, BROKEN):
        with pytest.raises(InputError, match=f"nothing to learn in --groups {group}: expected images of two"):
            training.train(params, paths, groups=(group,), frozen=False, device="cpu", scheduler=scheduler)
    with pytest.raises(ConfigError, match=r"groups \[9\]: expected some of 0 to 8"):
        training.train(params, paths, groups=(0, 9), frozen=True, device="cpu", scheduler=scheduler)


@pytest.mark.parametrize("scheduler", [None, "local:2"])
def test_heads_alone_need_a_localiser(lame, scheduler):
    params, paths = lame
    shutil.rmtree(paths.localiser)
    with pytest.raises(ConfigError, match="train all groups first"):
        training.train(params, paths, groups=(0,), frozen=False, device="cpu", scheduler=scheduler)


def test_a_city_where_no_group_can_learn_is_named(lame):
    params, paths = lame
    classes = ClassTable.load(paths.partition / "classes.parquet")
    labels = np.load(paths.partition / "labels.npy")
    np.save(paths.partition / "labels.npy", np.where(classes.index[labels] == 0, labels, -1))
    with pytest.raises(InputError, match="nothing to learn in any group"):
        training.train(params, paths, groups=None, frozen=True, device="cpu", scheduler="local:2")
