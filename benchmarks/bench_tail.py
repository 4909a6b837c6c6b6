"""Training the last blocks from cached tensors against training them end to end, from pixels.

Tensors, pixels and weights are random and lie on the device; everything else is what `pipeline train-heads`
runs: rows fetched by the sampler's numbers, tail, projection, margin softmax, backward, optimisers. The floor
is the tail's forward and backward pass alone; end to end puts the frozen trunk before it, without gradients.

    python benchmarks/bench_tail.py --device cuda --backbone dinov2_vitb14 --cut 10 --batch 256
    python benchmarks/bench_tail.py --backbone efficientnet_lite0 --cut 4
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from cache.recipe import Recipe
from pipeline.project.params import load_params
from stages.models.backbones.card import describe_backbone
from stages.models.backbones.create import random_model
from stages.models.backbones.optimise import optimise
from stages.models.backbones.registry import BACKBONES
from stages.models.backbones.split import split_point, tokens_at_split
from stages.models.heads.heads import HeadSettings
from stages.models.localiser.localiser import Localiser
from stages.models.trainable_blocks import TrainableBlocks, TrainableBlocksSettings
from stages.partition.classes import ClassTable
from stages.train.data.feed import open_feed
from stages.train.data.source import TrainingSet
from stages.train.loop.distributed import Ranks
from stages.train.loop.precision import precision_of
from stages.train.loop.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent


def one_group(classes):
    """A row of cells, one group, every cell a class."""
    return ClassTable(
        group=np.zeros(classes, np.int32),
        index=np.arange(classes, dtype=np.int32),
        p=np.arange(classes),
        q=np.zeros(classes, np.int64),
        centres=np.stack([np.arange(classes) * 10.0 + 5, np.full(classes, 5.0)], axis=1),
        images=np.full(classes, 10),
        bucket=np.full(classes, "mid"),
        p_aug=np.zeros(classes, np.float32),
        cell_m=10.0,
        groups_per_side=1,
        zone="10S",
    )


def timed(work, device, seconds):
    """Median, least and most seconds of a call."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(3):
        work()
    found, end = [], time.perf_counter() + seconds
    while len(found) < 5 or time.perf_counter() < end:
        wait()
        begun = time.perf_counter()
        work()
        wait()
        found.append(time.perf_counter() - begun)
    return statistics.median(found), min(found), max(found), len(found)


def untrained(chosen, config):
    """A localiser with a tail of random weights, and where its backbone was cut."""
    cut = split_point(chosen.backbone, chosen.size, chosen.cut)
    card = describe_backbone(chosen.backbone, weights="random", image_size=chosen.size)
    outputs = {**card.outputs, cut.name: cut.length}
    recipe = Recipe(
        chosen.backbone, "random", card.weights_id, chosen.size, {}, outputs, "float16", "float32"
    )
    settings = TrainableBlocksSettings.of(recipe, tuple(card.outputs), config.aggregator)
    head = HeadSettings(config.head, config.scale, config.margin, config.easy_margin)
    table = one_group(chosen.classes)
    localiser = Localiser.new(table, recipe, tuple(outputs), config.embedding_dim, head, settings)
    localiser.tail = TrainableBlocks(settings, random_model(chosen.backbone, chosen.size))
    return localiser.to(chosen.device), cut


def trunk_pass(chosen, dtype):
    """Return what passes a batch of pixels through the frozen blocks before the split."""
    kind, side = BACKBONES[chosen.backbone].kind, chosen.size
    model = optimise(random_model(chosen.backbone, side).eval(), kind=kind).to(chosen.device, dtype)
    pixels = torch.randint(0, 256, (chosen.batch, 3, side, side), dtype=torch.uint8, device=chosen.device)

    @torch.no_grad()
    def run():
        tokens_at_split(model, kind, (pixels.to(dtype) - 127) / 64, chosen.cut)

    return run


def compare(chosen, config):
    """Measure and print the floor, a step from cached tensors and one from pixels."""
    device = torch.device(chosen.device)
    dtype = precision_of(config, device)
    localiser, cut = untrained(chosen, config)
    features = torch.empty(chosen.rows, localiser.meta["features"], dtype=torch.float16, device=device)
    labels = np.random.default_rng(0).integers(0, chosen.classes, chosen.rows)
    data = TrainingSet(features.normal_(), labels, features[:0], labels[:0])
    tensors = features[: chosen.batch, localiser.pooled_length :]

    def floor():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            found = localiser.tail(tensors)
        functional.normalize(found, dim=1).sum().backward()
        localiser.tail.zero_grad()

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads; {chosen.backbone} at "
        f"{chosen.size} px, {chosen.cut} of {BACKBONES[chosen.backbone].blocks} blocks before the split, "
        f"aggregator {chosen.aggregator}, batch {chosen.batch}, {dtype}; "
        f"{cut.length * 2 / 1e3:,.1f} kB an image; medians (least - most)"
    )
    with open_feed(config, None, data, localiser.classes, (0,), 1000, 0) as feed:
        trainer = Trainer(localiser, feed, (0,), config, train_projection=True, ranks=Ranks())
        front, steps = trunk_pass(chosen, dtype), itertools.count(1)
        measured = {
            "the tail's forward and backward alone (floor)": floor,
            "training step from cached tensors": lambda: trainer.step(next(steps)),
            "the same with the trunk before it, from pixels": lambda: (front(), trainer.step(next(steps))),
        }
        least_of_all = None
        for what, work in measured.items():
            middle, least, most, count = timed(work, device, chosen.seconds)
            least_of_all = least_of_all or middle
            print(
                f"  {what:<48} {middle * 1e3:8.2f} ms ({least * 1e3:.2f} - {most * 1e3:.2f}, n {count})  "
                f"x {middle / least_of_all:.2f}  {chosen.batch / middle:,.0f} images/s"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="dinov2_vits14", choices=BACKBONES)
    parser.add_argument("--cut", type=int, default=10)
    parser.add_argument("--aggregator", default="pooled", choices=("pooled", "gem", "netvlad", "salad"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    chosen = parser.parse_args()
    config = load_params(ROOT / "params.yaml").train
    aggregator = replace(config.aggregator, kind=chosen.aggregator)
    compare(
        chosen,
        replace(config, tail=True, aggregator=aggregator, batch_size=chosen.batch, augment_views=False),
    )


if __name__ == "__main__":
    main()
