"""Long-tail switches of training against the papers' equations, written out sample by sample in float64."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stages.errors import ConfigError
from stages.models.heads.class_balance import ALIKE, balanced_weights, falling_margins, log_priors
from stages.models.heads.heads import HeadSettings
from stages.models.heads.margin_loss import margin_cosine
from stages.train.data.samplers import ClassImages, GroupSampler
from stages.train.loop.batch_variation import classwise_of, vary
from tests.support.training_city import CONFIG, VALIDATION, build_city


@pytest.fixture(autouse=True)
def _one_thread():
    """More only get into each other's way at this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


KINDS = [
    HeadSettings("aamc", 20.0, 0.3, False),
    HeadSettings("aamc", 20.0, 0.3, True),
    HeadSettings("lmcc", 20.0, 0.3, False),
    HeadSettings("linear", 20.0, 0.3, False),
]
COUNTS = [4, 7, 900, 31, 5]


def test_equal_margins_are_the_heads_own():
    cosine = torch.linspace(-1, 1, 101, dtype=torch.float64)
    for settings in KINDS[:3]:
        own = margin_cosine(cosine, settings, torch.full_like(cosine, settings.margin))
        for ours, theirs in zip(own, margin_cosine(cosine, settings), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("beta", [0.9, 0.999, 1 - 1e-9])
def test_balanced_weights_are_those_of_effective_numbers(beta):
    effective = [sum(beta**i for i in range(count)) for count in COUNTS]  # (1 - beta^n) / (1 - beta)
    mean = sum(1 / number for number in effective) / len(COUNTS)
    found = balanced_weights(torch.tensor(COUNTS).double(), beta)
    assert found.tolist() == pytest.approx([1 / number / mean for number in effective], rel=1e-6)


def test_priors_and_margins_follow_the_counts():
    counts = torch.tensor(COUNTS).double()
    expected = [1.5 * math.log(count / sum(COUNTS)) for count in COUNTS]
    assert log_priors(counts, 1.5).tolist() == pytest.approx(expected)
    margins = falling_margins(counts, 0.2, 0.25, 1.57).tolist()
    assert sum(margins) / 5 == pytest.approx(0.2)
    for a, b, m, n in zip(COUNTS, COUNTS[1:], margins, margins[1:], strict=False):
        assert m / n == pytest.approx((b / a) ** 0.25)


def test_margins_out_of_range_and_conflicts_are_named():
    with pytest.raises(ConfigError, match=r"train\.margin_power is 2"):
        falling_margins(torch.tensor([1.0, 100.0, 100.0]), 0.6, 2.0, 1.57)
    for changes, name in (
        ({"head": "linear", "margin_power": 0.25}, "margin_power"),
        ({"augment_views": False, "mix_views": True}, "mix_views"),
        ({"standardise": False, "feature_noise": 0.1}, "feature_noise"),
        ({"class_weight_beta": 1.0}, "class_weight_beta"),
        ({"logit_adjustment": -1.0}, "logit_adjustment"),
    ):
        with pytest.raises(ConfigError, match=rf"train\.{name} is "):
            dataclasses.replace(CONFIG, **changes)


def test_switches_that_are_off_change_nothing():
    images, head = np.array(COUNTS), KINDS[0]
    assert classwise_of(CONFIG, images, head, torch.device("cpu")) == ALIKE
    assert classwise_of(CONFIG, images[:0], head, torch.device("cpu")) == ALIKE
    config = dataclasses.replace(CONFIG, class_weight_beta=0.9, logit_adjustment=1.0, margin_power=0.25)
    found = classwise_of(config, images, head, torch.device("cpu"))
    rows = torch.tensor([4, 1])
    assert all(torch.equal(few, every[[4, 1]]) for few, every in zip(found.of(rows), found, strict=True))


def drawn(mix_views):
    classes, views = np.repeat(np.arange(3), 5), np.arange(10).repeat(2)
    roster = ClassImages(classes, 3, np.ones(3), views)
    sampler = GroupSampler(
        roster, slice(0, 3), sampling="class", augment=True, mix_views=mix_views, seed=(0, 1)
    )
    return sampler.draw(3, 400), views


def test_mixing_and_noise_depend_on_the_seed_alone():
    plain, views = drawn(False)
    mixed, _ = drawn(True)
    again, _ = drawn(True)
    assert np.array_equal(plain.images, mixed.images)
    assert np.array_equal(plain.views, mixed.views)
    assert plain.mixture is None
    assert np.array_equal(mixed.mixture, again.mixture)
    assert np.array_equal(mixed.images[mixed.originals], views[mixed.views])
    assert mixed.mixture.mean() == pytest.approx(0.5, abs=0.1)
    assert 0 <= mixed.mixture.min() <= mixed.mixture.max() < 1


def test_features_are_mixed_and_noisy_as_said():
    batch, _ = drawn(True)
    images, views = torch.randn(15, 200), torch.randn(20, 200)
    features = torch.cat([images[batch.images], views[batch.views]])
    gain = torch.linspace(0.5, 4, 200)
    expected = features.clone()
    for place, (original, share) in enumerate(zip(batch.originals, batch.mixture, strict=True), start=400):
        expected[place] = share * features[original] + (1 - share) * features[place]
    vary(features, batch, 0.0, gain)
    torch.testing.assert_close(features, expected)
    quiet = dataclasses.replace(batch, mixture=None)
    noisy, repeated = features.clone(), features.clone()
    vary(noisy, quiet, 0.3, gain)
    vary(repeated, quiet, 0.3, gain)
    assert torch.equal(noisy, repeated)
    deviation = ((noisy - features) * gain).std(dim=0)
    assert deviation.min() > 0.2
    assert deviation.mean() == pytest.approx(0.3, rel=0.02)


class _Stop(Exception):
    pass


def test_all_switches_together_resume_to_the_bit(tmp_path):
    city = build_city(tmp_path / "city")
    for class_sampling in (1.0, 0.5):
        config = dataclasses.replace(
            CONFIG,
            initial_weights="data",
            margin_power=0.25,
            class_weight_beta=0.99,
            logit_adjustment=1.0,
            mix_views=True,
            feature_noise=0.2,
            class_sampling=class_sampling,
            max_steps=60,
            checkpoint_s=0.0,
            validation=dataclasses.replace(VALIDATION, share=0.1),
        )
        city.train(config)
        undisturbed = load_file(city.folder / "localiser" / "localiser.safetensors")

        def stop(done, total):
            if done > total / 2:
                raise _Stop

        again = {"output": tmp_path / "again", "checkpoints": tmp_path / "checkpoints"}
        with pytest.raises(_Stop):
            city.train(config, **again, progress=stop)
        assert city.train(config, **again).resumed_step > 0
        resumed = load_file(tmp_path / "again" / "localiser.safetensors")
        assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)


@pytest.mark.parametrize(
    "changes",
    [
        {"margin_power": 0.25},
        {"class_weight_beta": 0.99},
        {"logit_adjustment": 1.0},
        {"mix_views": True},
        {"feature_noise": 0.1},
    ],
    ids=str,
)
def test_every_switch_changes_what_is_learnt(tmp_path, changes):
    city = build_city(tmp_path / "city")
    short = dataclasses.replace(CONFIG, max_steps=8)
    for name, config in (("off", short), ("on", dataclasses.replace(short, **changes))):
        city.train(config, output=tmp_path / name)
    off, on = (load_file(tmp_path / name / "localiser.safetensors") for name in ("off", "on"))
    assert any(not torch.equal(off[name], on[name]) for name in off)
