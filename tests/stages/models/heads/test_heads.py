import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from stages.errors import ConfigError
from stages.models.heads.heads import Head, HeadSettings, Projection, log_odds, margin_cosine
from stages.models.heads.margin_loss import loss_and_gradients
from stages.models.heads.margin_loss_compiled import fused_loss_and_gradients

KINDS = [
    HeadSettings("aamc", 20.0, 0.3, False),
    HeadSettings("aamc", 20.0, 0.3, True),
    HeadSettings("lmcc", 20.0, 0.3, False),
    HeadSettings("linear", 20.0, 0.3, False),
]


def make(settings, classes=7, dim=5, batch=11, dtype=torch.float64):
    torch.manual_seed(0)
    head = Head(classes, dim, settings).to(dtype)
    embeddings = functional.normalize(torch.randn(batch, dim, dtype=dtype), dim=1)
    return head, embeddings, torch.randint(0, classes, (batch,))


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_fused_products_may_be_narrow(settings):
    head, embeddings, labels = make(settings, dtype=torch.float32)
    arguments = (embeddings, head.prototypes.detach(), labels, settings)
    expected = loss_and_gradients(*arguments, precision=torch.bfloat16)
    fused = fused_loss_and_gradients(*arguments, precision=torch.bfloat16, compiled=False)
    for found, value in zip(fused, expected, strict=True):
        assert found.dtype == torch.float32
        assert (found - value).norm() <= 0.02 * value.norm() + 1e-6


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_gradients_match_finite_differences(settings):
    head, embeddings, labels = make(settings, batch=4)

    def loss(z, prototypes):
        clone = Head(*prototypes.shape, settings).double()
        del clone.prototypes
        clone.prototypes = prototypes
        return clone.loss(z, labels)

    inputs = (embeddings.requires_grad_(), head.prototypes.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.2])
def test_target_falls_with_the_angle_all_the_way_to_pi(margin):
    angles = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    target, _ = margin_cosine(angles.cos(), HeadSettings("aamc", 1.0, margin, False))
    assert (target.diff() < 1e-12).all()
    inside = angles + margin < math.pi
    torch.testing.assert_close(target[inside], (angles + margin).cos()[inside], rtol=0, atol=1e-3)


@pytest.mark.parametrize("settings", KINDS[:3], ids=str)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_at_the_poles(settings, sign):
    head = Head(3, 4, settings)
    with torch.no_grad():
        head.prototypes.copy_(torch.eye(3, 4))
    z = (sign * torch.eye(3, 4)).requires_grad_()
    loss = head.loss(z, torch.arange(3))
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()
    assert head.prototypes.grad.isfinite().all()


def test_hopeless_samples_keep_a_finite_loss_at_scale_100():
    head, embeddings, labels = make(HeadSettings("aamc", 100.0, 0.2, False), dtype=torch.float32)
    with torch.no_grad():
        head.prototypes[labels[0]] = -embeddings[0]
    loss = head.loss(embeddings[:1], labels[:1])
    assert 100 < loss.item() < 250


def test_evaluation_logits_carry_no_margin():
    head, embeddings, _ = make(KINDS[0])
    unit = functional.normalize(head.prototypes, dim=1)
    torch.testing.assert_close(head(embeddings), 20 * embeddings @ unit.T)
    torch.testing.assert_close(head.cosines(embeddings), embeddings @ unit.T)


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_bfloat16_stays_near_float64(settings):
    head, embeddings, labels = make(settings)
    exact = head.loss(embeddings, labels)
    coarse = head.to(torch.bfloat16).loss(embeddings.bfloat16(), labels)
    assert coarse.float().item() == pytest.approx(exact.item(), rel=0.05)


def test_one_class_has_no_loss_and_no_gradient():
    head = Head(1, 4, KINDS[0])
    z = functional.normalize(torch.randn(3, 4), dim=1)
    loss = head.loss(z, torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert not head.prototypes.grad.any()


def test_projection_gives_unit_length_and_standardises():
    projection = Projection(6, 3)
    projection.shift.copy_(torch.arange(6.0))
    projection.gain.fill_(2.0)
    features = torch.randn(5, 6).half()
    expected = (features.double() - torch.arange(6.0).double()) * 2 @ projection.weight.double().T
    z = projection(features)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(z.double(), functional.normalize(expected, dim=1), rtol=1e-4, atol=1e-5)


def test_log_odds_are_those_of_the_softmax():
    logits = torch.randn(20, 6) * 3
    p = logits.double().softmax(1)
    torch.testing.assert_close(log_odds(logits), (p / (1 - p)).log())


def test_log_odds_tell_certainties_apart():
    logits = torch.tensor([[90.0, 0.0], [95.0, 0.0]])
    assert logits.softmax(1)[0, 0] == logits.softmax(1)[1, 0] == 1
    odds = log_odds(logits)
    assert odds[1, 0] - odds[0, 0] == pytest.approx(5)
    assert np.isneginf(log_odds(torch.ones(2, 1)).numpy()).all()


@pytest.mark.parametrize(
    ("kind", "scale", "margin"), [("arc", 1, 0.1), ("aamc", 0, 0.1), ("lmcc", 1, 1.0), ("aamc", 1, -1)]
)
def test_settings_out_of_range_are_rejected(kind, scale, margin):
    with pytest.raises(ConfigError, match=r"train\."):
        HeadSettings(kind, scale, margin, False)
