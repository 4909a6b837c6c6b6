"""Training heads against its floors: the step, sampled classes, feeding from memory and from the store.

D&C's formulation of the step (METHOD 4.12 - 4.17 written with whole matrices, one-hot labels and autograd)
is the peer; loss and gradients must be equal.

    python benchmarks/bench_train.py                      # two to four minutes
    python benchmarks/bench_train.py --only step --threads 1
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import machine, nothing, require_answer, show, take_turns
from synthetic import filled_store
from torch import nn
from torch.nn import functional

from stages.models.heads.heads import HeadSettings
from stages.models.heads.margin_loss import Buffers, loss_and_gradients
from stages.train.data.samplers import ClassImages, GroupSampler
from stages.train.data.source import FeatureSource, TrainingSet
from stages.train.data.streaming import PartOrder
from stages.train.loop.optimiser import DenseAdam, SampledAdam

SETTINGS = HeadSettings("aamc", 100.0, 0.2, easy_margin=True)
CPU = torch.device("cpu")
CLASSES_TO_FEED = 2000


def peer_loss(embeddings, labels, weight):
    """D&C's loss: every operation on the whole matrix of cosines."""
    cos_m, sin_m = np.cos(SETTINGS.margin), np.sin(SETTINGS.margin)
    cosine = functional.linear(functional.normalize(embeddings), functional.normalize(weight))
    sine = torch.sqrt((1.0 - torch.pow(cosine, 2)).clamp(1e-9, 1))
    phi = torch.where(cosine > 0, cosine * cos_m - sine * sin_m, cosine)
    one_hot = torch.zeros(cosine.size()).scatter_(1, labels.view(-1, 1), 1)
    logits = (one_hot * phi + (1.0 - one_hot) * cosine) * SETTINGS.scale
    return functional.cross_entropy(logits, labels)


def require_same_gradients(embeddings, labels, weight):
    peer_embeddings, peer_weight = embeddings.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = peer_loss(peer_embeddings, labels, peer_weight)
    loss.backward()
    ours = loss_and_gradients(embeddings, weight, labels, SETTINGS)
    # The peer's gradient also passes its own normalisation of the embeddings, which are unit vectors already.
    along = (ours.by_embeddings * embeddings).sum(dim=1, keepdim=True)
    pairs = {
        "loss": (ours.loss, loss.detach()),
        "gradient of the prototypes": (ours.by_prototypes, peer_weight.grad),
        "gradient of the embeddings": (ours.by_embeddings - along * embeddings, peer_embeddings.grad),
    }
    for name, (found, expected) in pairs.items():
        difference = float((found - expected).norm() / expected.norm())
        require_answer(difference < 1e-4, f"{name} of a step differs by {difference:.1e} from the peer's")
        print(f"{name}: relative difference to D&C's formulation {difference:.0e}")


def step_of_one_head(batch, dim, classes, repeat):
    torch.manual_seed(0)
    embeddings = functional.normalize(torch.randn(batch, dim), dim=1)
    labels = torch.randint(0, classes, (batch,))
    weights = [nn.Parameter(torch.randn(classes, dim) * dim**-0.5) for _ in range(3)]
    require_same_gradients(embeddings, labels, weights[0].detach())
    wide, tall, flat = torch.empty(batch, classes), torch.empty(classes, dim), torch.empty(batch, dim)
    fixed = weights[0].detach().clone()
    dense, sampled = DenseAdam(weights[0], 1e-3, 0.0), SampledAdam(weights[1], 1e-3, 0.0)
    peer_embeddings, peer_adam = embeddings.clone().requires_grad_(), torch.optim.Adam([weights[2]], 1e-2)
    buffers, few, number = Buffers(), Buffers(), itertools.count()
    roster = ClassImages(labels.numpy(), classes, np.zeros(classes), np.zeros(0, np.int64))
    options = {"sampling": "image", "augment": False, "class_sampling": 0.1, "seed": (0,)}
    sampler = GroupSampler(roster, slice(0, classes), **options)

    def products():
        torch.mm(embeddings, fixed.T, out=wide)
        torch.mm(wide, fixed, out=flat)
        torch.mm(wide.T, embeddings, out=tall)

    def ours():
        weight = weights[0].detach()
        dense.step(loss_and_gradients(embeddings, weight, labels, SETTINGS, buffers=buffers).by_prototypes)

    def tenth():
        drawn = sampler.draw(next(number), batch)
        rows = torch.from_numpy(drawn.sampled_classes)
        target = torch.from_numpy(np.searchsorted(drawn.sampled_classes, drawn.image_classes))
        values = weights[1].detach().index_select(0, rows)
        found = loss_and_gradients(embeddings, values, target, SETTINGS, buffers=few)
        sampled.step(rows, values, found.by_prototypes)

    def theirs():
        peer_embeddings.grad = None
        peer_adam.zero_grad()
        peer_loss(peer_embeddings, labels, weights[2]).backward()
        peer_adam.step()

    works = {
        "three matrix products alone (floor)": products,
        "this project, with the optimiser": ours,
        "this project, class_sampling 0.1": tenth,
        "D&C's formulation, with the optimiser (peer)": theirs,
    }
    times = take_turns(works, repeat)
    goals = {"this project, with the optimiser": 1.35}
    show(f"step of one head: batch {batch}, D {dim}, K {classes:,}, float32", times, goals=goals)
    _, full, sampled_s, peer = (statistics.median(found.elapsed) for found in times.values())
    print(f"  D&C / this project {peer / full:.2f}; this project / sampled {full / sampled_s:.2f}")


def feed_from_memory(features, classes, batch, repeat):
    """Draw rows at random from host memory; return the sampler's classes."""
    data = TrainingSet(features, classes, features[:0], np.zeros(0, np.int64))
    roster = ClassImages(classes, CLASSES_TO_FEED, np.zeros(CLASSES_TO_FEED), np.zeros(0, np.int64))
    everything = slice(0, CLASSES_TO_FEED)
    sampler = GroupSampler(roster, everything, sampling="class", augment=False, seed=(0,))
    count, number, buffers = 64, itertools.count(), Buffers()
    rows, length = features.shape
    order = torch.randint(rows, (count, batch))
    narrow, wide = torch.empty(batch, length).half(), torch.empty(batch, length)

    def gather():
        for numbers in order:
            torch.index_select(features, 0, numbers, out=narrow)
            wide.copy_(narrow)

    def draw():
        for _ in range(count):
            data.of(sampler.draw(next(number), batch), CPU, buffers)

    works = {"gather and widen alone (floor)": gather, "sampler and gather": draw}
    title = f"feed from memory: batches of {batch} out of {rows:,} x {length} float16"
    show(title, take_turns(works, repeat), items=count * batch, rate="rows/s")


def feed_from_store(folder, features, classes, repeat):
    """Stream shuffled parts of the store, from the page cache and from the disk."""
    rows, length = features.shape
    reader = filled_store(
        folder / "bench.zarr", rows, {"avg": length}, lambda part: features[part].numpy(), chunk_rows=8192
    )
    everything = np.ones(rows, np.bool_)
    source = FeatureSource(reader, ("avg",), classes.astype(np.int32), everything, None, None)
    blocks = list(reader.blocks())
    parts = PartOrder(len(blocks), 8, 1000, 0)
    epoch, buffers = itertools.count(), Buffers()

    def sequential():
        for start, stop in blocks:
            reader.read(start, stop)

    def stream():
        first = next(epoch) * parts.parts_per_epoch
        for part in range(first, first + parts.parts_per_epoch):
            read = source.read([blocks[block] for block in parts.blocks_of(part)], CPU, buffers)
            ClassImages(read.classes, CLASSES_TO_FEED, np.zeros(CLASSES_TO_FEED), read.view_images)

    files = [reader.store.chunk_file("avg", chunk) for chunk in range(len(blocks))]
    os.sync()  # pages that are not on the disk yet cannot be dropped
    works = {"sequential read of the store (floor)": sequential, "shuffled parts": stream}
    for place, prepare in (("the page cache", nothing), ("the disk", lambda: drop_pages(files))):
        title = f"stream from {place}: {rows:,} x {length} float16 in chunks of 8,192 rows"
        times = take_turns(works, repeat, prepare=prepare)
        show(title, times, items=rows, rate="rows/s", goals={"shuffled parts": 1.43})


def drop_pages(files):
    """Drop the files from the page cache, as if the store were larger than memory."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--only", choices=["step", "feed"])
    parser.add_argument("--classes", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=500_000, help="to feed")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine('torch')}, {torch.get_num_threads()} threads of PyTorch")
    if options.only != "feed":
        step_of_one_head(1024, 512, options.classes, options.repeat)
    if options.only != "step":
        classes = np.sort(np.random.default_rng(0).integers(0, CLASSES_TO_FEED, options.rows))
        features = torch.randn(options.rows, 384).half()
        feed_from_memory(features, classes, 1024, options.repeat)
        with tempfile.TemporaryDirectory() as folder:
            feed_from_store(Path(folder), features, classes, options.repeat)


if __name__ == "__main__":
    main()
