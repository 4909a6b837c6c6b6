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
from dataclasses import replace

import numpy as np
import torch
from measure import ROOT, machine, nothing, show, take_turns
from synthetic import square_of_classes
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
from stages.train.data.feed import open_feed
from stages.train.data.source import TrainingSet
from stages.train.loop.distributed import Ranks
from stages.train.loop.precision import precision_of
from stages.train.loop.trainer import Trainer


def untrained(chosen, config):
    """A localiser with a tail of random weights, and where its backbone was cut."""
    cut = split_point(chosen.backbone, chosen.size, chosen.cut)
    pooled = ("cls", "avg") if cut.prefix else ("avg",)
    card = describe_backbone(chosen.backbone, weights="random", image_size=chosen.size, outputs=pooled)
    outputs = {**card.outputs, cut.name: cut.length}
    recipe = Recipe(
        chosen.backbone, "random", card.weights_id, chosen.size, {}, outputs, "float16", "float32"
    )
    settings = TrainableBlocksSettings.of(recipe, pooled, config.aggregator)
    head = HeadSettings(config.head, config.scale, config.margin, config.easy_margin)
    table = square_of_classes(chosen.classes, 1)
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
    labels = np.random.default_rng(0).integers(0, len(localiser.classes), chosen.rows)
    data = TrainingSet(features.normal_(), labels, features[:0], labels[:0])
    tensors = features[: chosen.batch, localiser.pooled_length :]

    def floor():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            found = localiser.tail(tensors)
        functional.normalize(found, dim=1).sum().backward()
        localiser.tail.zero_grad()

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    print(f"{machine('torch')}, {torch.get_num_threads()} threads of PyTorch, {name}")
    blocks = f"{chosen.cut} of {BACKBONES[chosen.backbone].blocks} blocks before the split"
    print(
        f"{chosen.backbone} at {chosen.size} px, {blocks}, aggregator {chosen.aggregator}, "
        f"batch {chosen.batch}, {dtype}; {cut.length * 2 / 1e3:,.1f} kB per image"
    )
    with open_feed(config, None, data, localiser.classes, (0,), 1000, 0) as feed:
        trainer = Trainer(localiser, feed, (0,), config, train_projection=True, ranks=Ranks())
        front, steps = trunk_pass(chosen, dtype), itertools.count(1)
        works = {
            "last blocks, forward and backward alone (floor)": floor,
            "step from cached tensors": lambda: trainer.step(next(steps)),
            "step from pixels": lambda: (front(), trainer.step(next(steps))),
        }
        wait = torch.cuda.synchronize if device.type == "cuda" else nothing
        show(f"batch of {chosen.batch}", take_turns(works, chosen.repeat, warm_up=3, wait=wait))


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
    parser.add_argument("--repeat", type=int, default=10)
    chosen = parser.parse_args()
    config = load_params(ROOT / "params.yaml").train
    aggregator = replace(config.aggregator, kind=chosen.aggregator)
    compare(
        chosen,
        replace(config, tail=True, aggregator=aggregator, batch_size=chosen.batch, augment_views=False),
    )


if __name__ == "__main__":
    main()
