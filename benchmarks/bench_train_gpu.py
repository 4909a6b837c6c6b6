"""A training of SF-XL's size on a GPU: 64 M draws over 41.2 M features in 4 x 75,000 classes.

The features are synthetic and lie on the device; all else is what `pipeline train-heads` runs: sampler,
projection, margin softmax, optimisers, the groups taking turns. One step of one head is compared with its
three matrix products alone, and so are two candidates that the program does not use (margin_candidates.py).
Memory: 41.2 M x 384 float16 are 32 GB.

    python benchmarks/bench_train_gpu.py
    python benchmarks/bench_train_gpu.py --only step       # most of the time is compilation
    python benchmarks/bench_train_gpu.py --device cpu --rows 200000 --classes 2000 --draws 100000 --no-compile
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial

import margin_candidates
import numpy as np
import torch
from measure import ROOT, nothing, require_answer, show, take_turns
from synthetic import square_of_classes
from torch.nn import functional

from cache.recipe import Recipe
from pipeline.project.params import load_params
from stages.models.heads.heads import HeadSettings
from stages.models.heads.margin_loss import Buffers
from stages.models.localiser.localiser import Localiser
from stages.train.data.feed import open_feed
from stages.train.data.source import TrainingSet
from stages.train.loop.distributed import Ranks
from stages.train.loop.precision import in_parts, loss_of, precision_of
from stages.train.loop.trainer import Trainer
from stages.train.loop.validation import Validation

PEAK_BF16 = 989e12  # dense, of an H100 SXM
GROUPS, LENGTH = 4, 384
UNCOMPILED, KERNEL = "uncompiled", "candidate: first product in a kernel"


def losses_of(config, device, classes):
    """The program's losses, and candidates that it does not use, by name."""
    losses = {UNCOMPILED: loss_of(replace(config, compile=False), device, Buffers())}
    narrow = {"precision": precision_of(config, device)}
    if config.compile:
        losses["compiled"] = compiled = loss_of(config, device, Buffers())
        quarter = classes * -(-config.batch_size // 4)
        losses["compiled, in 4 parts of the batch"] = in_parts(compiled, quarter)
        for width in (1024, 2048, 4096):
            name = f"candidate: blocks of {width:,} classes"
            losses[name] = partial(margin_candidates.in_class_blocks, width=width, **narrow)
    if margin_candidates.kernel_runs_on(device):
        losses[KERNEL] = partial(margin_candidates.in_one_kernel, compiled=config.compile, **narrow)
    else:
        print(f"no row of the Triton kernel on {device}; set TRITON_INTERPRET=1 to check its results there")
    return losses


def step_of_one_head(config, device, classes, times):
    """Measure a step's loss and gradients, and its three products alone."""
    torch.manual_seed(0)
    settings = HeadSettings(config.head, config.scale, config.margin, config.easy_margin)
    embeddings = functional.normalize(torch.randn(config.batch_size, config.embedding_dim, device=device))
    prototypes = torch.randn(classes, config.embedding_dim, device=device) * 0.04
    labels = torch.randint(0, classes, (config.batch_size,), device=device)
    narrow = precision_of(config, device)
    left, right = embeddings.to(narrow), prototypes.to(narrow)

    def products():
        slopes = left @ right.T
        slopes @ right, slopes.T @ left

    losses = {
        name: partial(loss, embeddings, prototypes, labels, settings)
        for name, loss in losses_of(config, device, classes).items()
    }
    print(f"\none head: batch {config.batch_size}, D {config.embedding_dim}, K {classes:,}, {narrow}")
    check_answers_and_memory(losses, device)
    wait = torch.cuda.synchronize if device.type == "cuda" else nothing
    works = {"three matrix products alone (floor)": products, **losses}
    show("the same, in time", take_turns(works, times, wait=wait))


def check_answers_and_memory(losses, device):
    """Compare loss and gradients with the uncompiled ones; also print the device memory of a first call."""
    expected = None
    for name, loss in losses.items():
        line = ""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
        results = loss()
        if device.type == "cuda":
            line = f", {(torch.cuda.max_memory_allocated(device) - before) / 1e9:.2f} GB"
        if expected is None:
            expected = [value.double() for value in results]
        apart = [float((a - b).norm() / b.norm()) for a, b in zip(results, expected, strict=True)]
        print(f"  {name:<48} differs by {', '.join(f'{value:.0e}' for value in apart)}{line}", flush=True)
        require_answer(max(apart) < 0.02, f"{name}: bfloat16 explains less than this difference")


def whole(config, device, rows, classes, draws, loss):
    table = square_of_classes(classes * GROUPS, 2)
    features = torch.empty(rows, LENGTH, dtype=torch.float16, device=device)
    for start in range(0, rows, 1 << 20):
        features[start : start + (1 << 20)].normal_()
    labels = np.random.default_rng(0).integers(0, len(table), rows)
    data = TrainingSet(features, labels, features[:0], labels[:0])
    recipe = Recipe("bench", "random", "0" * 64, 224, {}, {"cls": LENGTH}, "float16", "bfloat16")
    settings = HeadSettings(config.head, config.scale, config.margin, config.easy_margin)
    localiser = Localiser.new(table, recipe, ("cls",), config.embedding_dim, settings).to(device)
    nothing = Validation(features[:0], np.zeros((0, 2)), config.validation)
    groups, steps = tuple(range(GROUPS)), draws // config.batch_size
    with open_feed(config, None, data, table, groups, steps, 0) as feed:
        trainer = Trainer(localiser, feed, groups, config, train_projection=True, ranks=Ranks())
        if loss is not None:
            trainer._step._loss = loss
        begun = time.perf_counter()
        trainer.run(min(50, steps), nothing)
        warm = time.perf_counter() - begun
        begun, before = time.perf_counter(), trainer.state.step
        state = trainer.run(steps, nothing)
        seconds = time.perf_counter() - begun
    done = (state.step - before) * config.batch_size
    width = len(table) / GROUPS * config.class_sampling + LENGTH
    operations = 6.0 * done * config.embedding_dim * width
    share = f", {operations / seconds / PEAK_BF16:.1%} of the bf16 peak" if device.type == "cuda" else ""
    print(
        f"\nwhole training: {rows:,} rows, {len(table):,} classes, {steps:,} steps of {config.batch_size}, "
        f"class_sampling {config.class_sampling}\n"
        f"  first steps {warm:.1f} s, then {done / 1e6:.1f} M draws in {seconds:.1f} s: "
        f"{done / seconds:,.0f} samples/s{share}; loss {state.log[0].loss:.2f} to {state.log[-1].loss:.2f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=41_200_000)
    parser.add_argument("--classes", type=int, default=75_000, help="in a group")
    parser.add_argument("--draws", type=int, default=64_000_000)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--class-sampling", type=float, default=1.0)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--only", choices=["step"], help="one step of one head, without the whole training")
    parser.add_argument("--kernel", action="store_true", help="the whole training with the Triton kernel")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    if chosen.kernel and not margin_candidates.kernel_runs_on(device):
        parser.error(f"--kernel needs Triton and a GPU, not {device}")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: plumbing only"
    print(f"{name}, torch {torch.__version__}, numpy {np.__version__}; medians (least - most)")
    config = replace(
        load_params(ROOT / "params.yaml").train,
        batch_size=chosen.batch,
        compile=chosen.compile,
        class_sampling=chosen.class_sampling,
        augment_views=False,
    )
    step_of_one_head(config, device, chosen.classes, chosen.times)
    if chosen.only != "step":
        loss = losses_of(config, device, chosen.classes)[KERNEL] if chosen.kernel else None
        whole(config, device, chosen.rows, chosen.classes, chosen.draws, loss)


if __name__ == "__main__":
    main()
