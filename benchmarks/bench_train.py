"""Stage two against its floors: the step, sampled classes, feeding from memory and from the store.

    python benchmarks/bench_train.py                      # ratios on this CPU, two to four minutes
    python benchmarks/bench_train.py --device cuda        # 64 M draws over 41.2 M x 384 float16 features

Every ratio is between medians of one run whose candidates take turns, so that
a busy machine slows all of them. The second form has only been run on small
sizes on a CPU (`--device cpu --rows 200000 --classes 2000 --draws 100000`).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cache.recipe import Recipe
from cache.row_identity import RowIdentities
from cache.spec import StoreSpec
from cache.store import create_or_open
from cache.writer import ChunkWriter
from stages.models.heads.heads import HeadSettings, Projection
from stages.models.heads.margin_loss import Buffers, loss_and_gradients
from stages.train.data.samplers import ClassImages, GroupSampler
from stages.train.data.source import FeatureSource, TrainingSet
from stages.train.data.streaming import PartOrder
from stages.train.loop.optimiser import DenseAdam, SampledAdam

SETTINGS = HeadSettings("aamc", 100.0, 0.2, False)
H100_BF16 = 989e12
CPU = torch.device("cpu")


def take_turns(candidates, times, clock=time.perf_counter, prepare=None):
    """Seconds of each candidate, in turns after one warm-up; `prepare` runs before each, unmeasured."""
    seconds = {name: [] for name in candidates}
    for turn in range(times + 1):
        for name, work in candidates.items():
            if prepare is not None:
                prepare()
            begun = clock()
            work()
            if turn:
                seconds[name].append(clock() - begun)
    return seconds


def show(title, seconds, floor, per=None):
    print(f"\n{title}")
    base = statistics.median(seconds[floor])
    for name, found in seconds.items():
        middle = statistics.median(found)
        speed = f"  {per / middle:>12,.0f} rows/s" if per else ""
        spread = f"{min(found):.4f} - {max(found):.4f}"
        print(f"  {name:<44} {middle:8.4f} s  ({spread}, n {len(found)})  x {middle / base:5.2f}{speed}")


def divide_and_classify(embeddings, labels, weight):
    """D&C's head: everything of the whole matrix, one-hot, a separate Adam."""
    optimiser, criterion = torch.optim.Adam([weight], 1e-2), nn.CrossEntropyLoss()
    cos_m, sin_m = np.cos(SETTINGS.margin), np.sin(SETTINGS.margin)

    def step():
        cosine = functional.linear(functional.normalize(embeddings), functional.normalize(weight))
        sine = torch.sqrt((1.0 - torch.pow(cosine, 2)).clamp(1e-9, 1))
        phi = torch.where(cosine > 0, cosine * cos_m - sine * sin_m, cosine)
        one_hot = torch.zeros(cosine.size()).scatter_(1, labels.view(-1, 1), 1)
        logits = (one_hot * phi + (1.0 - one_hot) * cosine) * SETTINGS.scale
        optimiser.zero_grad()
        criterion(logits, labels).backward()
        optimiser.step()

    return step


def step_of_one_head(batch, dim, classes, times, clock):
    torch.manual_seed(0)
    embeddings = functional.normalize(torch.randn(batch, dim), dim=1)
    labels = torch.randint(0, classes, (batch,))
    weights = [nn.Parameter(torch.randn(classes, dim) * dim**-0.5) for _ in range(3)]
    wide, tall, flat = torch.empty(batch, classes), torch.empty(classes, dim), torch.empty(batch, dim)
    fixed = weights[0].detach().clone()
    dense, sampled = DenseAdam(weights[0], 1e-3, 0.0), SampledAdam(weights[1], 1e-3, 0.0)
    buffers, few = Buffers(), Buffers()
    roster = ClassImages(labels.numpy(), classes, np.zeros(classes), np.zeros(0, np.int64))
    options = {"sampling": "image", "augment": False, "class_sampling": 0.1, "seed": (0,)}
    sampler = GroupSampler(roster, slice(0, classes), **options)
    number = iter(range(10**9))

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

    candidates = {
        "three matrix products alone (floor)": products,
        "this project, with the optimiser": ours,
        "this project, class_sampling 0.1": tenth,
        "D&C's formulation, with the optimiser": divide_and_classify(embeddings, labels, weights[2]),
    }
    seconds = take_turns(candidates, times, clock)
    show(f"step of one head: batch {batch}, D {dim}, K {classes}, float32", seconds, next(iter(candidates)))
    floor, full, tenth_s, theirs = (statistics.median(found) for found in seconds.values())
    ratios = f"over the floor {full / floor:.2f}; D&C / ours {theirs / full:.2f}"
    print(f"  {ratios}; ours / sampled {full / tenth_s:.2f}")


def feeding(rows, length, batch, times):
    """Rows a second drawn at random from memory, and streamed from a store in shuffled parts."""
    random = np.random.default_rng(0)
    classes = np.sort(random.integers(0, 2000, rows))
    features = torch.randn(rows, length).half()
    data = TrainingSet(features, classes, features[:0], np.zeros(0, np.int64))
    roster = ClassImages(classes, 2000, np.zeros(2000), np.zeros(0, np.int64))
    sampler = GroupSampler(roster, slice(0, 2000), sampling="class", augment=False, seed=(0,))
    count, number = 64, iter(range(10**9))
    order = torch.randperm(rows)
    kept, wide, buffers = torch.empty(batch, length).half(), torch.empty(batch, length), Buffers()

    def gather():
        for start in range(count):
            torch.index_select(features, 0, order[start * batch : (start + 1) * batch], out=kept)
            wide.copy_(kept)

    def draw():
        for _ in range(count):
            data.of(sampler.draw(next(number), batch), CPU, buffers)

    found = take_turns({"gather and widen alone (floor)": gather, "sampler and gather": draw}, times)
    show(
        f"host memory: batches of {batch} out of {rows} x {length} float16",
        found,
        next(iter(found)),
        count * batch,
    )
    with tempfile.TemporaryDirectory() as folder:
        source = written(Path(folder) / "bench.zarr", features.numpy(), classes)
        blocks = list(source.reader.blocks())
        parts = PartOrder(len(blocks), 8, 1000, 0)
        epoch, again = iter(range(10**9)), Buffers()

        def sequential():
            for start, stop in blocks:
                source.reader.read(start, stop)

        def stream():
            first = next(epoch) * parts.parts_per_epoch
            for part in range(first, first + parts.parts_per_epoch):
                read = source.read([blocks[block] for block in parts.blocks_of(part)], CPU, again)
                ClassImages(read.classes, 2000, np.zeros(2000), read.view_images)

        files = [source.reader.store.chunk_file("avg", chunk) for chunk in range(len(blocks))]
        os.sync()  # what is not on the disk yet cannot be dropped
        for kept_by, prepare in (("the page cache", None), ("the disk", lambda: drop_pages(files))):
            candidates = {"sequential read of the store (floor)": sequential, "shuffled parts": stream}
            found = take_turns(candidates, times, prepare=prepare)
            title = f"streaming from {kept_by}: {rows} x {length} float16 in chunks of 8,192 rows"
            show(title, found, next(iter(found)), rows)
            middle = [statistics.median(each) for each in found.values()]
            print(f"  share of the sequential rate {middle[0] / middle[1]:.2f}")


def drop_pages(files):
    """Have the page cache forget the files, as it must where the store is larger than memory."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def written(path, features, classes):
    outputs = {"avg": features.shape[1]}
    recipe = Recipe("bench", "random", "0" * 64, 224, {"resize": 224}, outputs, "float16", "float32")
    spec = StoreSpec(len(features), outputs, "float16", 8192)
    writer = ChunkWriter(
        create_or_open(path, spec, recipe, RowIdentities.of(np.arange(len(features), dtype=np.uint64)))
    )
    for chunk in range(spec.chunks):
        writer.write(chunk, {"avg": features[spec.chunk_slice(chunk)]}, {})
    from cache.reader import FeatureReader

    everything = np.ones(len(features), np.bool_)
    return FeatureSource(FeatureReader.open(path), ("avg",), classes.astype(np.int32), everything, None, None)


@dataclass
class Whole:
    """A training of SF-XL's size."""

    rows: int
    classes: int
    groups: int
    draws: int
    batch: int
    dim: int
    length: int


def whole_training(size, device, sampling):
    """Draws over synthetic features resident on the device, groups taking turns."""
    cuda = device.type == "cuda"
    features = torch.empty(size.rows, size.length, dtype=torch.float16, device=device)
    for start in range(0, size.rows, 1 << 20):
        features[start : start + (1 << 20)].normal_()
    labels = np.random.default_rng(0).integers(0, size.classes * size.groups, size.rows)
    roster = ClassImages(labels, size.classes * size.groups, np.zeros(size.classes * size.groups), labels[:0])
    data = TrainingSet(features, labels, features[:0], labels[:0])
    options = {"sampling": "class", "augment": False, "class_sampling": sampling}
    slices = [slice(g * size.classes, (g + 1) * size.classes) for g in range(size.groups)]
    samplers = [GroupSampler(roster, each, **options, seed=(0, g)) for g, each in enumerate(slices)]
    projection = Projection(size.length, size.dim).to(device)
    heads = [nn.Parameter(torch.randn(size.classes, size.dim, device=device) * 0.04) for _ in slices]
    adams = [(DenseAdam if sampling == 1 else SampledAdam)(head, 1e-3, 0.0) for head in heads]
    shared, buffers = DenseAdam(projection.weight, 1e-4, 0.0), Buffers()
    precision = torch.bfloat16 if cuda else torch.float32

    def step(number):
        group = number % size.groups
        batch, first = samplers[group].draw(number, size.batch), slices[group].start
        z = projection(data.of(batch, device, buffers))
        head, labels, rows = heads[group].detach(), batch.image_classes - first, None
        if batch.sampled_classes is not None:
            labels = np.searchsorted(batch.sampled_classes, batch.image_classes)
            rows = torch.from_numpy(batch.sampled_classes - first).to(device, non_blocking=True)
            head = head.index_select(0, rows)
        target = torch.from_numpy(labels).to(device, non_blocking=True)
        found = loss_and_gradients(z.detach(), head, target, SETTINGS, buffers=buffers, precision=precision)
        adams[group].step(*((found.by_prototypes,) if rows is None else (rows, head, found.by_prototypes)))
        z.backward(found.by_embeddings)
        shared.step(projection.weight.grad)

    for number in range(4):
        step(number)
    wait = torch.cuda.synchronize if cuda else lambda: None
    wait()
    begun, steps = time.perf_counter(), size.draws // size.batch
    for number in range(steps):
        step(number)
    wait()
    seconds = time.perf_counter() - begun
    operations = 6.0 * size.draws * size.dim * (size.classes * sampling + size.length)
    print(
        f"\nwhole training: {size}, class_sampling {sampling}\n"
        f"  {seconds:.1f} s, {steps * size.batch / seconds:,.0f} samples/s, "
        f"{operations / seconds / 1e12:.1f} TFLOP/s ({operations / seconds / H100_BF16:.1%} of H100 bf16)"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true", help="of the step: for a busy machine, one thread")
    parser.add_argument("--only", choices=["step", "feed"])
    parser.add_argument("--rows", type=int, default=41_200_000)
    parser.add_argument("--classes", type=int, default=75_000, help="in a group")
    parser.add_argument("--draws", type=int, default=64_000_000)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--class-sampling", type=float, default=1.0)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} CPU threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}; medians (least - most)"
    )
    if chosen.device:
        device = torch.device(chosen.device)
        print(torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: plumbing only")
        size = Whole(chosen.rows, chosen.classes, 4, chosen.draws, chosen.batch, 512, 384)
        whole_training(size, device, chosen.class_sampling)
        return
    if chosen.only != "feed":
        clock = time.process_time if chosen.cpu_time else time.perf_counter
        step_of_one_head(1024, 512, 20_000, chosen.times, clock)
    if chosen.only != "step":
        feeding(500_000, 384, 1024, chosen.times)


if __name__ == "__main__":
    main()
