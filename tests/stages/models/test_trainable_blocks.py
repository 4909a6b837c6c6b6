"""Trainable blocks: training from cached tokens compared with training the whole network end to end."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from cache.reader import FeatureReader
from cache.recipe import Recipe
from stages.errors import ConfigError, WeightsError
from stages.eval.stage import EvalInputs
from stages.eval.stage import run as evaluate
from stages.index.manifest import Manifest
from stages.models.aggregators.config import AggregatorSettings
from stages.models.backbones.backbone import load_backbone
from stages.models.backbones.create import random_model
from stages.models.localiser.localiser import Localiser
from stages.models.trainable_blocks import TrainableBlocks, TrainableBlocksSettings
from stages.partition.places import Places
from stages.train import prepare
from stages.train.data.feed import open_feed, schedule_of
from stages.train.init import initialise as beginning
from stages.train.loop import training_step as loop
from tests.stages.train.loop.test_checkpoint import train_in_two_processes
from tests.support.training_city import CONFIG, CONFIG_EVAL, FUSION, VALIDATION, build_city, write_store

TAIL = replace(CONFIG, tail=True, exemplars=2, epochs=8.0, batch_size=16, learning_rate_tail=1e-4)
NETWORKS = {
    # name: side of the image, blocks before the cut
    "dinov2_vits14": (28, 10),
    "dinov2_vits14_reg": (56, 12),
    "efficientnet_lite0": (64, 4),
}


@cache
def backbone_of(name, outputs):
    size, _ = NETWORKS[name]
    return load_backbone(name, weights="random", image_size=size, outputs=outputs)


def tail_city(folder, name="dinov2_vits14_reg", *, dtype="float32", **more):
    """A synthetic city: noisy copies of one picture per cell, put through a real network."""
    size, blocks = NETWORKS[name]
    city = build_city(folder, side=4, images=40, **more)
    outputs = ("avg@-2", "avg") if name == "efficientnet_lite0" else ("avg@-2", "cls", "avg")
    outputs = (*outputs, f"cut{blocks}")
    backbone = backbone_of(name, outputs)
    card = backbone.card
    plain = Recipe(
        name,
        "random",
        card.weights_id,
        size,
        card.preprocess.as_dict(),
        dict(card.outputs),
        dtype,
        "float32",
    )
    random = np.random.default_rng(5)
    coarse = random.integers(0, 256, (len(city.classes), 4, 4, 3))
    pictures = coarse.repeat(-(-size // 4), axis=1).repeat(-(-size // 4), axis=2)[:, :size, :size]

    def photos(cells):
        noise = random.normal(scale=30, size=(len(cells), size, size, 3))
        return np.clip(pictures[cells] + noise, 0, 255).astype(np.uint8)

    def store(split, pixels, recipe=plain, names=None):
        shutil.rmtree(city.folder / f"{split}.zarr")
        found = backbone(torch.from_numpy(pixels))
        write_store(
            city.folder / f"{split}.zarr", torch.cat([*found.values()], 1).numpy(), recipe, names=names
        )

    database = photos(city.labels)
    store("database", database)
    plan = city.plan
    names = [f"{row}.jpg#{view}" for row, view in zip(plan.row, plan.view, strict=True)]
    store("views", photos(city.labels[plan.row]), replace(plain, augment={"seed": 0}), names)
    where = Manifest.open(city.folder / "queries.parquet").positions()
    store("queries", photos(np.maximum(Places.of(city.classes).at(where), 0)))
    return city, database


def batches(config, city, steps, seed=0):
    """Group, database rows and classes in the group of every step, as the sampler draws them."""
    inputs = city.train_inputs(config, views=None)
    files = prepare.open_files(inputs)
    groups = prepare.choose_groups("all", files.classes)
    rows, _ = prepare.split_rows(config, files, groups, seed)
    source = prepare.open_source(files, rows)
    resident = source.read([(0, source.reader.rows)], torch.device("cpu"))
    per_epoch = max(1, schedule_of(config, source, files.classes, groups).steps(1.0))
    with open_feed(config, source, resident, files.classes, groups, per_epoch, seed) as feed:
        for step in range(1, steps + 1):
            part = feed.at(step)
            (group,) = part.schedule.at(step)
            batch = part.samplers[group].draw(step, config.batch_size)
            first = files.classes.group_slice(group).start
            yield group, np.flatnonzero(rows)[batch.images], batch.image_classes - first


@pytest.mark.parametrize("name", ["dinov2_vits14", "efficientnet_lite0"])
def test_cached_tokens_train_like_a_partly_frozen_network(tmp_path, name):
    steps = 6
    city, pixels = tail_city(tmp_path / "city", name)
    config = replace(TAIL, augment_views=False, standardise=False, exemplars=0, max_steps=steps, epochs=99.0)
    inputs = city.inputs()
    before = {key: value.clone() for key, value in first_weights(config, city).items()}
    city.train(config)
    trained = load_file(city.folder / "localiser" / "localiser.safetensors")

    # The whole network, as timm runs it, from pixels in every step.
    size, blocks = NETWORKS[name]
    model = random_model(name, size).eval()
    model.requires_grad_(False)
    left = [*model.blocks[blocks:], *((model.norm,) if "vit" in name else (model.conv_head, model.bn2))]
    learned = [weight for module in left for weight in module.parameters()]
    for weight in learned:
        weight.requires_grad_()
    projection = before["projection.weight"].clone().requires_grad_()
    heads = {
        group: before[f"group.{group}.prototypes"].clone().requires_grad_()
        for group in range(city.classes.groups)
    }
    optimiser = torch.optim.AdamW(
        [
            {"params": learned, "lr": config.learning_rate_tail},
            {"params": [projection], "lr": config.learning_rate_projection},
            {"params": [*heads.values()], "lr": config.learning_rate_heads},
        ],
        weight_decay=0.0,
    )
    spec = load_backbone(name, weights="random", image_size=size).preprocess
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    for group, rows, labels in batches(config, city, steps):
        images = (torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2) / 255 - mean) / std
        tokens = model.forward_features(images)
        if "vit" in name:
            pooled = torch.cat([tokens[:, 0], tokens[:, model.num_prefix_tokens :].mean(1)], 1)
        else:
            pooled = tokens.mean(dim=(2, 3))
        z = functional.normalize(pooled @ projection.T, dim=1)
        cosines = (z @ functional.normalize(heads[group], dim=1).T).clamp(-1 + 1e-6, 1 - 1e-6)
        true = functional.one_hot(torch.from_numpy(labels), len(heads[group])).bool()
        logits = config.scale * torch.where(true, torch.cos(torch.acos(cosines) + config.margin), cosines)
        functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
        optimiser.step()
        optimiser.zero_grad()

    wanted = {"projection.weight": projection}
    wanted |= {f"group.{group}.prototypes": head for group, head in heads.items()}
    names = [key for key, _ in Localiser.load(city.folder / "localiser").tail.named_parameters()]
    wanted |= {f"tail.{key}": weight for key, weight in zip(names, learned, strict=True)}
    for key, weight in wanted.items():
        found, start = trained[key], before[key]
        if key.endswith("qkv.bias"):  # the keys' bias cancels in the softmax: its gradient is rounding error
            weight, found, start = (values.view(3, -1)[[0, 2]] for values in (weight, found, start))
        moved = (weight - start).abs().mean()
        assert moved > 0, key
        assert (weight - found).abs().mean() < 1e-3 * moved, key
    images = (torch.from_numpy(pixels[:8]).permute(0, 3, 1, 2) / 255 - mean) / std
    tokens = model.forward_features(images)
    prefix = model.num_prefix_tokens if "vit" in name else 0
    localiser = Localiser.load(inputs["output"])
    cached = FeatureReader.open(inputs["features"]).read(0, 8, localiser.inputs)
    found = localiser.through_tail(cached)
    whole = torch.cat([tokens[:, 0], tokens[:, prefix:].mean(1)], 1) if prefix else tokens.mean((2, 3))
    assert torch.allclose(found, whole, atol=1e-3)


def first_weights(config, city):
    inputs = city.train_inputs(config, weights="random")
    return prepare.new_localiser(inputs, prepare.open_files(inputs)).tensors()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return tail_city(tmp_path_factory.mktemp("built") / "city", dtype="float16")[0]


@pytest.fixture
def city(built, tmp_path):
    shutil.copytree(built.folder, tmp_path / "city")
    return replace(built, folder=tmp_path / "city")


def aggregated(kind):
    return AggregatorSettings(kind=kind, clusters=4, channels=8, global_length=4)


@pytest.mark.parametrize("kind", ["pooled", "gem", "netvlad", "salad"])
def test_every_aggregator_learns_and_survives_loading(city, kind):
    config, lines = replace(TAIL, aggregator=aggregated(kind), learning_rate_projection=3e-3), []
    city.train(config, weights="random", fusion=FUSION, report=lines.append)
    losses = [line.loss for line in lines]
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    every = replace(CONFIG_EVAL, localisers=("classify", "retrieve", "hybrid"), score="fused")
    inputs = city.inputs()
    known = {"database": inputs["features"], "database_manifest": inputs["manifest"]}
    evaluated = evaluate(EvalInputs(every, **city.outputs(), **known))
    for block in evaluated.blocks.values():
        assert block.lr.recall[1] > 60  # of 16 cells
    queries = FeatureReader.open(city.folder / "queries.zarr")
    localiser = Localiser.load(city.folder / "localiser")
    features = queries.read(0, 20, localiser.inputs)
    one_by_one = torch.cat([localiser.embed(features[row : row + 1]) for row in range(20)])
    assert torch.allclose(localiser.embed(features), one_by_one, atol=1e-4)
    assert localiser.exemplars.vectors.shape[2] == localiser.pooled_length
    assert localiser.pooled_length == 3 * 384  # of the frozen network; trained blocks give no layer -2
    assert localiser.tail.settings.outputs == ("cls", "avg")


def test_a_resumed_run_equals_an_uninterrupted_one(city):
    config = replace(
        TAIL,
        aggregator=aggregated("salad"),
        residency="stream",
        checkpoint_s=0.0,
        validation=replace(VALIDATION, share=0.15, refit=True, times=4, patience=4),
        epochs=4.0,
    )
    folder = city.folder / "checkpoints"
    city.train(config, output=city.folder / "whole")

    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        city.train(config, checkpoints=folder, progress=stop)
    resumed = city.train(config, checkpoints=folder)
    assert resumed.resumed_step > 0
    whole, again = (
        load_file(city.folder / name / "localiser.safetensors") for name in ("whole", "localiser")
    )
    assert whole.keys() == again.keys()
    for key, value in whole.items():
        assert torch.equal(value, again[key]), key


def test_training_one_group_leaves_the_blocks_alone(city):
    city.train(TAIL)
    before = load_file(city.folder / "localiser" / "localiser.safetensors")
    city.train(TAIL, seed=1, groups=(2,))
    after = load_file(city.folder / "localiser" / "localiser.safetensors")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"group.2.prototypes"}
    with pytest.raises(ConfigError, match=r"differs in .*tail"):
        city.train(replace(TAIL, aggregator=aggregated("gem")), seed=1, groups=(2,))


def test_without_tail_the_cached_tokens_are_ignored(city):
    plain = replace(TAIL, tail=False)
    city.train(plain)
    with_cut = load_file(city.folder / "localiser" / "localiser.safetensors")
    for split in ("database", "views"):
        reader = FeatureReader.open(city.folder / f"{split}.zarr")
        kept = {name: length for name, length in reader.outputs.items() if name != "cut12"}
        features, recipe = reader.read(0, reader.rows, list(kept)), replace(reader.recipe, outputs=kept)
        shutil.rmtree(city.folder / f"{split}.zarr")
        plan = zip(city.plan.row, city.plan.view, strict=True)
        names = [f"{row}.jpg#{view}" for row, view in plan] if split == "views" else None
        write_store(city.folder / f"{split}.zarr", features, recipe, names=names)
    city.train(plain)
    without = load_file(city.folder / "localiser" / "localiser.safetensors")
    assert with_cut.keys() == without.keys()
    assert all(torch.equal(value, without[key]) for key, value in with_cut.items())
    with pytest.raises(ConfigError, match=r"set extract\.cut"):
        city.train(TAIL)


def test_the_weights_must_be_those_of_the_features(city, tmp_path):
    other = random_model("dinov2_vits14_reg", 56)
    torch.nn.init.normal_(other.norm.weight)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"extract\.weights is .*other\.pth"):
        city.train(TAIL, weights=str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"tail": False, "aggregator": aggregated("salad")}, r"aggregator\.kind is salad"),
        ({"feature_noise": 0.1}, r"feature_noise is 0\.1"),
        ({"learning_rate_tail": -1.0}, r"learning_rate_tail is -1"),
    ],
)
def test_conflicting_settings_are_named_in_the_error(changes, fault):
    with pytest.raises(ConfigError, match=fault):
        replace(TAIL, **changes)


@pytest.mark.parametrize("kind", ["pooled", "gem", "netvlad", "salad"])
def test_padding_rows_change_nothing(city, monkeypatch, kind):
    outcomes = []
    for multiple in (1, 7):
        monkeypatch.setattr(loop, "row_multiple", lambda device, to=multiple: to)
        city.train(replace(TAIL, aggregator=aggregated(kind), max_steps=4))
        outcomes.append(load_file(city.folder / "localiser" / "localiser.safetensors"))
    for key, value in outcomes[0].items():
        assert torch.allclose(value, outcomes[1][key], atol=2e-4), key


@pytest.mark.parametrize("kind", ["pooled", "netvlad"])
def test_initial_weights_do_not_depend_on_residency(city, monkeypatch, kind):
    monkeypatch.setattr(beginning, "TAIL_SAMPLE_ROWS", 30)
    found = []
    for residency in ("device", "stream"):
        config = replace(
            TAIL, aggregator=aggregated(kind), residency=residency, initial_weights="data", max_steps=1
        )
        still = replace(config, learning_rate_tail=0.0, learning_rate_projection=0.0, learning_rate_heads=0.0)
        city.train(still)
        found.append(load_file(city.folder / "localiser" / "localiser.safetensors"))
    for key, value in found[0].items():
        assert torch.allclose(value, found[1][key], rtol=1e-4, atol=1e-5), key


def test_the_gain_of_nearly_constant_components_is_bounded(tmp_path):
    city, _ = tail_city(tmp_path / "city", "efficientnet_lite0")
    city.train(replace(TAIL, max_steps=1, initial_weights="data"))
    gain = load_file(city.folder / "localiser" / "localiser.safetensors")["projection.gain"]
    usual = (gain**-2).mean().rsqrt()
    assert gain.max() <= 60 * usual  # untrained networks have channels that are silent on every image


@pytest.mark.parametrize("name", NETWORKS)
def test_an_empty_batch_gives_no_features(name):
    size, blocks = NETWORKS[name]
    settings = TrainableBlocksSettings(name, size, blocks, ("avg",), aggregated("netvlad"))
    tail = TrainableBlocks(settings, random_model(name, size))
    assert tail.in_parts(torch.empty(0, tail.split.length)).shape == (0, tail.length)


def test_two_processes_train_like_one(city):
    config = replace(TAIL, schedule="joint", max_steps=6)
    city.train(config)
    train_in_two_processes(city, city.folder / "two", config)
    alone, together = (
        load_file(city.folder / name / "localiser.safetensors") for name in ("localiser", "two")
    )
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, rtol=1e-3, atol=1e-4)


def test_initialisation_keeps_only_a_sample_of_the_rows(city, monkeypatch):
    monkeypatch.setattr(beginning, "TAIL_SAMPLE_ROWS", 30)
    held = []

    def measure(projection, sample, *, whiten):
        held.append(sum(features.untyped_storage().nbytes() for features, _ in sample))

    monkeypatch.setattr(beginning, "principal_components", measure)
    city.train(replace(TAIL, initial_weights="data", max_steps=1))
    images = FeatureReader.open(city.inputs()["features"]).rows
    assert images > 60
    assert held == [pytest.approx(30 * 2 * 384 * 4, abs=2 * 2 * 384 * 4)]
