"""A run that is killed, and training by several processes, must end where an undisturbed one does."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.project.schema import build
from stages.errors import ConfigError, InputError
from stages.index.manifest import Manifest
from stages.partition.views import ViewPlan
from stages.train.config import TrainConfig
from stages.train.loop.checkpoint import Checkpoints
from stages.train.loop.distributed import Ranks
from tests.support.training_city import (
    CONFIG,
    FUSION,
    RECIPE,
    VALIDATION,
    build_city,
    write_rows,
    write_store,
)

SLOW = replace(
    CONFIG,
    initial_weights="data",
    epochs=1000.0,
    max_steps=300,
    checkpoint_s=0.0,
    validation=replace(VALIDATION, share=0.15, refit=True, times=30, patience=30),
)
TRAIN = """
import json, sys, torch
from pathlib import Path
from tests.support.training_city import City
from pipeline.project.schema import build
from stages.train.config import TrainConfig
from stages.train.loop.distributed import joined
torch.set_num_threads(1)
folder, output, fields = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
config, checkpoints = build(TrainConfig, fields), output.with_name(output.name + ".checkpoints")
with joined("cpu"):
    City(folder, None, None, None).train(config, output=output, checkpoints=checkpoints)
"""


def command(city, output, config):
    return [sys.executable, "-c", TRAIN, str(city.folder), str(output), json.dumps(asdict(config))]


def environment(**more):
    root = str(Path(__file__).parents[4])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **more}


def tensors(folder):
    return load_file(folder / "localiser.safetensors")


def checkpoint_steps(folder):
    return sorted(path.name for path in folder.glob("*-*") if path.suffix != ".partial")


@pytest.mark.parametrize("changes", [{}, {"class_sampling": 0.5, "residency": "stream"}], ids=str)
def test_killed_and_resumed_equals_undisturbed_to_the_bit(tmp_path, changes):
    city, config = build_city(tmp_path / "city"), replace(SLOW, **changes)
    city.train(config, output=tmp_path / "whole")
    output, folder = tmp_path / "killed", tmp_path / "killed.checkpoints"
    child = subprocess.Popen(command(city, output, config), env=environment())
    deadline = time.monotonic() + 120
    while not any(name >= "first-000000040" for name in checkpoint_steps(folder)):
        assert child.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not output.exists()
    left = checkpoint_steps(folder)[-1]
    result = city.train(config, output=output, checkpoints=folder)
    assert result.resumed_step == int(left.split("-")[1]) > 0
    ours, undisturbed = tensors(output), tensors(tmp_path / "whole")
    assert ours.keys() == undisturbed.keys()
    assert all(torch.equal(ours[name], undisturbed[name]) for name in ours)
    assert (output / "meta.json").read_bytes() == (tmp_path / "whole" / "meta.json").read_bytes()
    assert not folder.exists()


def interrupted(city, config, at, **more):
    """Train until the bar is called for the at-th time, and leave the checkpoints there."""
    calls = []

    def stop(done, total):
        calls.append(done)
        if len(calls) == at:
            raise KeyboardInterrupt

    folder = city.folder / "checkpoints"
    with pytest.raises(KeyboardInterrupt):
        city.train(config, checkpoints=folder, progress=stop, **more)
    return folder


def test_resumes_in_the_second_pass(tmp_path):
    city, config = build_city(tmp_path / "city"), replace(SLOW, max_steps=30)
    city.train(config, output=tmp_path / "whole")
    folder = interrupted(city, config, 31)
    assert checkpoint_steps(folder)[-1].startswith("refit-")
    result = city.train(config, checkpoints=folder)
    assert result.resumed_step > 0
    assert result.held_out > 0
    ours, undisturbed = tensors(city.folder / "localiser"), tensors(tmp_path / "whole")
    assert all(torch.equal(ours[name], undisturbed[name]) for name in ours)


def test_checkpoints_of_another_run_are_ignored(tmp_path):
    city, config = build_city(tmp_path / "city"), replace(SLOW, max_steps=30)
    folder = interrupted(city, config, 10)
    assert city.train(replace(config, margin=0.3), checkpoints=folder).resumed_step == 0
    folder = interrupted(city, config, 10)
    assert city.train(config, seed=1, checkpoints=folder).resumed_step == 0
    folder = interrupted(city, config, 10)
    again = city.train(replace(config, checkpoint_s=9.0), checkpoints=folder)
    assert again.resumed_step == 10


def test_a_damaged_checkpoint_is_named_and_nothing_is_unpickled(tmp_path, monkeypatch):
    city, config = build_city(tmp_path / "city"), replace(SLOW, max_steps=30)
    folder = interrupted(city, config, 10)

    def refuse(*arguments, **options):
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert city.train(config, checkpoints=folder).resumed_step == 10
    monkeypatch.undo()
    folder = interrupted(city, config, 10)
    file = next(folder.glob("*/state-0.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"damaged.*delete"):
        city.train(config, checkpoints=folder)


def test_the_last_checkpoint_outlives_a_torn_one(tmp_path):
    checkpoints = Checkpoints(tmp_path, "a", 0.0, Ranks())
    checkpoints.save({"x": torch.ones(2)}, {"pass": "first", "step": 1})
    (tmp_path / "first-000000002.partial").mkdir()
    found = checkpoints.latest()
    assert found is not None
    assert (found[1]["step"], found[0]["x"].tolist()) == (1, [1.0, 1.0])
    checkpoints.save({"x": torch.zeros(2)}, {"pass": "first", "step": 3})
    assert checkpoint_steps(tmp_path) == ["first-000000003"]
    assert Checkpoints(tmp_path, "b", 0.0, Ranks()).latest() is None


def train_in_two_processes(city, output, config):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [
        subprocess.Popen(
            command(city, output, config), env=environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank))
        )
        for rank in range(2)
    ]
    assert [child.wait(timeout=180) for child in children] == [0, 0]


def test_two_processes_equal_the_joint_schedule_of_one(tmp_path):
    city, output = build_city(tmp_path / "city"), tmp_path / "two"
    config = replace(SLOW, schedule="joint", max_steps=40)
    city.train(config, output=tmp_path / "one")
    train_in_two_processes(city, output, config)
    ours, single = tensors(output), tensors(tmp_path / "one")
    for name in single:
        torch.testing.assert_close(ours[name], single[name], rtol=1e-3, atol=1e-4)
    ours, single = (
        json.loads((path / "meta.json").read_text())["training"] for path in (output, tmp_path / "one")
    )
    assert ours["drawn"] == single["drawn"]
    assert ours["loss"] == pytest.approx(single["loss"], rel=1e-3)


def test_processes_need_the_joint_schedule_and_a_group_each(tmp_path, monkeypatch):
    city = build_city(tmp_path / "city")
    monkeypatch.setattr(Ranks, "current", classmethod(lambda cls: cls(0, 5)))
    with pytest.raises(ConfigError, match="joint"):
        city.train(CONFIG)
    with pytest.raises(ConfigError, match="at most 4"):
        city.train(replace(CONFIG, schedule="joint"))


def test_settings_survive_json():
    fields = json.loads(json.dumps(asdict(SLOW)))
    assert build(TrainConfig, fields) == SLOW


@pytest.mark.parametrize("change", ["p_aug", "view plan", "checksums", "fusion", "positions", "streaming"])
def test_checkpoints_of_other_data_are_ignored(tmp_path, change):
    city, config = build_city(tmp_path / "city"), replace(SLOW, max_steps=30)
    folder, more = interrupted(city, config, 10), {}
    if change == "p_aug":
        replace(city.classes, p_aug=city.classes.p_aug / 2).save(city.folder / "partition/classes.parquet")
    elif change == "view plan":
        views = replace(RECIPE, augment={"seed": 0})
        shutil.rmtree(city.folder / "views.zarr")
        write_store(city.folder / "views.zarr", np.ones((1, 24)), views, names=["3.jpg#0"])
        ViewPlan.of_counts(np.eye(1, len(city.labels), 3, dtype=int)[0]).save(
            city.folder / "partition/views.parquet"
        )
    elif change == "checksums":
        random = np.random.default_rng(1).normal(size=(len(city.labels), 24))
        shutil.rmtree(city.folder / "database.zarr")
        write_store(city.folder / "database.zarr", random)
    elif change == "fusion":
        more["fusion"] = FUSION
    elif change == "positions":
        manifest = Manifest.open(city.folder / "database.parquet")
        write_rows(manifest.path, manifest.positions() + 1.0, manifest.column("timestamp").tolist())
    else:
        config = replace(config, residency="stream")
    assert city.train(config, checkpoints=folder, **more).resumed_step == 0
