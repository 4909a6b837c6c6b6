"""Whole training steps against the same steps written out in float64, with autograd and AdamW by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from stages.models.heads.heads import HeadSettings
from stages.models.localiser.localiser import Localiser
from stages.train.data.feed import Part, ResidentFeed
from stages.train.data.samplers import ClassImages, GroupSampler
from stages.train.data.schedule import Schedule
from stages.train.data.source import TrainingSet
from stages.train.loop.distributed import Ranks
from stages.train.loop.trainer import Trainer
from stages.train.loop.validation import Validation
from tests.support.training_city import CONFIG, RECIPE, VALIDATION, partition

HEAD = HeadSettings("lmcc", 8.0, 0.25, False)
STEPS = 6


class Adam:
    """AdamW as its authors write it; each row of a weight counts its own updates."""

    def __init__(self, weight, rate, decay):
        self.weight, self.rate, self.decay = weight, rate, decay
        self.mean, self.square = torch.zeros_like(weight), torch.zeros_like(weight)
        self.count = torch.zeros(len(weight))

    def step(self, gradient, rows):
        for row in rows:
            self.count[row] += 1
            self.mean[row] = 0.9 * self.mean[row] + 0.1 * gradient[row]
            self.square[row] = 0.999 * self.square[row] + 0.001 * gradient[row] ** 2
            mean = self.mean[row] / (1 - 0.9 ** self.count[row])
            square = self.square[row] / (1 - 0.999 ** self.count[row])
            self.weight[row] -= self.rate * self.decay * self.weight[row]
            self.weight[row] -= self.rate * mean / (square.sqrt() + 1e-8)


def plain_steps(localiser, config, part):
    """Return projection, prototypes, losses and drawn samples after the steps."""
    projection = localiser.projection.weight.detach().double().clone()
    heads = [head.prototypes.detach().double().clone() for head in localiser.heads]
    shift, gain = localiser.projection.shift.double(), localiser.projection.gain.double()
    shared = Adam(projection, config.learning_rate_projection, config.weight_decay)
    own = [Adam(head, config.learning_rate_heads, config.weight_decay) for head in heads]
    drawn, losses = np.zeros(len(localiser.classes), int), []
    for number in range(1, STEPS + 1):
        gradient, of_groups = torch.zeros_like(projection), []
        for group in part.schedule.at(number):
            batch = part.samplers[group].draw(number, config.batch_size)
            first = localiser.classes.group_slice(group).start
            taken = list(range(len(heads[group])))
            if batch.sampled_classes is not None:
                taken = [class_id - first for class_id in batch.sampled_classes.tolist()]
            w, c = projection.clone().requires_grad_(), heads[group].clone().requires_grad_()
            total = 0
            classes = [*batch.image_classes.tolist(), *batch.view_classes.tolist()]
            rows = [*part.data.features[batch.images], *part.data.views[batch.views]]
            for feature, class_id in zip(rows, classes, strict=True):
                z = functional.normalize(w @ ((feature.double() - shift) * gain), dim=0)
                logits = [HEAD.scale * (z @ functional.normalize(c[k], dim=0)) for k in taken]
                true = taken.index(class_id - first)
                logits[true] = logits[true] - HEAD.scale * HEAD.margin
                total = total + torch.stack(logits).logsumexp(0) - logits[true]
                drawn[class_id] += 1
            loss = total / len(classes)
            by_projection, by_prototypes = torch.autograd.grad(loss, [w, c])
            gradient += by_projection
            own[group].step(by_prototypes, taken)
            of_groups.append(loss.item())
        shared.step(gradient, range(len(projection)))
        losses.append(sum(of_groups) / len(of_groups))
    return projection, heads, losses, drawn


def start(schedule, class_sampling):
    """Return a localiser of four groups, the settings, and images and views of its classes."""
    random = np.random.default_rng(0)
    table, labels = partition(random.uniform(0, 100, (120, 2)))
    torch.manual_seed(0)
    localiser = Localiser.new(table, RECIPE, ("cls", "avg"), 6, HEAD)
    localiser.projection.shift.copy_(torch.linspace(-1, 1, 24))
    localiser.projection.gain.copy_(torch.linspace(0.5, 2, 24))
    config = dataclasses.replace(
        CONFIG,
        head="lmcc",
        schedule=schedule,
        class_sampling=class_sampling,
        batch_size=12,
        learning_rate_projection=0.02,
        learning_rate_heads=0.07,
        weight_decay=0.1,
    )
    features = torch.from_numpy(random.normal(size=(120, 24)).astype(np.float16))
    view_images = np.arange(120).repeat(2)
    views = torch.from_numpy(random.normal(size=(240, 24)).astype(np.float16))
    data = TrainingSet(features, labels.astype(np.int64), views, view_images)
    roster = ClassImages(data.classes, len(table), np.full(len(table), 0.5), view_images)
    samplers = {
        group: GroupSampler(
            roster,
            table.group_slice(group),
            sampling="class",
            augment=True,
            class_sampling=class_sampling,
            seed=(0, group),
        )
        for group in range(4)
    }
    images = [sampler.images for sampler in samplers.values()]
    order = Schedule(schedule, "step", range(4), images, config.batch_size)
    return localiser, config, Part(data, samplers, order)


@pytest.mark.parametrize("schedule", ["rotate", "joint"])
@pytest.mark.parametrize("class_sampling", [1.0, 0.4])
def test_steps_equal_those_written_out(schedule, class_sampling):
    localiser, config, part = start(schedule, class_sampling)
    projection, heads, losses, drawn = plain_steps(localiser, config, part)
    options = {"train_projection": True, "ranks": Ranks()}
    trainer = Trainer(localiser, ResidentFeed(part), tuple(range(4)), config, **options)
    ours = [trainer.step(number).item() for number in range(1, STEPS + 1)]
    assert ours == pytest.approx(losses, rel=1e-4)
    near = {"rtol": 2e-3, "atol": 2e-4}  # Adam divides small float32 gradients by their own size
    torch.testing.assert_close(localiser.projection.weight.detach().double(), projection, **near)
    for head, expected in zip(localiser.heads, heads, strict=True):
        torch.testing.assert_close(head.prototypes.detach().double(), expected, **near)
    assert trainer.state.drawn.tolist() == drawn.tolist()


def test_a_log_line_has_the_mean_loss_since_the_line_before():
    losses, lines = [], []
    for times in (6, 3):
        localiser, config, part = start("rotate", 1.0)
        options = {"train_projection": True, "ranks": Ranks()}
        trainer = Trainer(localiser, ResidentFeed(part), tuple(range(4)), config, **options)
        held_out = Validation(
            torch.zeros(1, 24), np.full((1, 2), 1e6), dataclasses.replace(VALIDATION, times=times)
        )
        state = trainer.run(STEPS, held_out)
        (losses if times == 6 else lines).extend((line.step, line.loss) for line in state.log[1:])
    assert [step for step, _ in lines] == [2, 4, 6]
    for line, (step, loss) in enumerate(lines):
        both = [losses[2 * line][1], losses[2 * line + 1][1]]
        assert losses[2 * line + 1][0] == step
        assert loss == pytest.approx(sum(both) / 2, rel=1e-5)


def test_weights_that_place_no_photo_right_are_kept_too():
    far = Validation(torch.zeros(4, 2), np.zeros((4, 2)), VALIDATION)
    assert [far.keeps(0.0, step) for step in (0, 1, 2)] == [True, True, True]
    assert (far.kept_step, far.kept_percent, far.exhausted) == (2, 0.0, False)
