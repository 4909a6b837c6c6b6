"""The plain margin loss against the equations by hand, and both fast ones against the plain one."""

import math

import pytest
import torch
from torch.nn import functional

from stages.models.heads.class_balance import ALIKE, Classwise
from stages.models.heads.heads import Head, HeadSettings
from stages.models.heads.margin_loss import loss_and_gradients, margin_cosine
from stages.models.heads.margin_loss_compiled import fused_loss_and_gradients
from stages.models.heads.margin_loss_reference import plain_margin_loss, with_margin

KINDS = [
    HeadSettings("aamc", 20.0, 0.3, False),
    HeadSettings("aamc", 20.0, 0.3, True),
    HeadSettings("lmcc", 20.0, 0.3, False),
    HeadSettings("linear", 20.0, 0.3, False),
]
WEIGHTS = torch.tensor([3.0, 0.2, 1.1, 0.7, 2.0]).double()
OFFSETS = torch.tensor([-3.0, -2.5, -0.1, -1.2, -2.8]).double()
MARGINS = torch.tensor([0.5, 0.4, 0.05, 0.2, 0.45]).double()
CLASSWISE = {
    "alike": ALIKE,
    "weights": Classwise(weights=WEIGHTS),
    "offsets": Classwise(offsets=OFFSETS),
    "margins": Classwise(margins=MARGINS),
    "all": Classwise(WEIGHTS, OFFSETS, MARGINS),
}


def by_hand(embeddings, prototypes, labels, settings, classwise):
    """Equations 4.12 to 4.17 and the papers' additions, number by number."""
    losses = []
    for z, y in zip(embeddings, labels.tolist(), strict=True):
        margin = settings.margin if classwise.margins is None else float(classwise.margins[y])
        products = [float(w @ z) for w in prototypes]
        logits = products
        if settings.kind != "linear":
            cosines = [p / float(w.norm()) for p, w in zip(products, prototypes, strict=True)]
            angle, target = math.acos(cosines[y]), cosines[y] - margin
            if settings.kind == "aamc":
                target = math.cos(angle + margin)
                if settings.easy_margin and cosines[y] <= 0:
                    target = cosines[y]
                elif not settings.easy_margin and angle + margin > math.pi:
                    target = cosines[y] - margin * math.sin(margin)
            logits = [settings.scale * cosine for cosine in cosines]
            logits[y] = settings.scale * target
        if classwise.offsets is not None:
            logits = [a + float(b) for a, b in zip(logits, classwise.offsets, strict=True)]
        probability = math.exp(logits[y]) / sum(math.exp(logit) for logit in logits)
        weight = 1.0 if classwise.weights is None else float(classwise.weights[y])
        losses.append(-weight * math.log(probability))
    return sum(losses) / len(losses)


def sample():
    torch.manual_seed(0)
    prototypes = torch.randn(5, 6, dtype=torch.float64)
    embeddings = functional.normalize(torch.randn(12, 6, dtype=torch.float64), dim=1)
    labels = torch.arange(12) % 5
    embeddings[0] = functional.normalize(0.1 * embeddings[0] - prototypes[0], dim=0)  # an angle beyond pi - m
    return embeddings, prototypes, labels


def plain_gradients(embeddings, prototypes, labels, settings, classwise=ALIKE):
    """Loss of the plain implementation and its gradients by embeddings and prototypes."""
    z, w = embeddings.clone().requires_grad_(), prototypes.clone().requires_grad_()
    loss = plain_margin_loss(z, w, labels, settings, classwise=classwise)
    return loss, *torch.autograd.grad(loss, [z, w])


def fused(*arguments, **options):
    return fused_loss_and_gradients(*arguments, **options, compiled=False)


def assert_same(results, expected):
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("classwise", CLASSWISE.values(), ids=CLASSWISE)
def test_plain_loss_is_that_of_the_equations(settings, classwise):
    loss = plain_margin_loss(*sample(), settings, classwise=classwise)
    assert loss.item() == pytest.approx(by_hand(*sample(), settings, classwise), rel=1e-12)


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("classwise", CLASSWISE.values(), ids=CLASSWISE)
@pytest.mark.parametrize("fast", [loss_and_gradients, fused])
def test_fast_losses_equal_the_plain_one(settings, classwise, fast):
    results = fast(*sample(), settings, classwise=classwise)
    assert_same(results, plain_gradients(*sample(), settings, classwise))


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("classwise", CLASSWISE.values(), ids=CLASSWISE)
@pytest.mark.parametrize("fast", [loss_and_gradients, fused])
def test_fast_losses_equal_the_plain_one_on_sampled_classes(settings, classwise, fast):
    embeddings, prototypes, labels = sample()
    rows, mine = torch.tensor([0, 2, 3]), (labels != 1) & (labels != 4)
    embeddings, labels = embeddings[mine], torch.searchsorted(rows, labels[mine])
    z, w = embeddings.clone().requires_grad_(), prototypes.clone().requires_grad_()
    loss = plain_margin_loss(z, w[rows], labels, settings, classwise=classwise.of(rows))
    by_embeddings, by_prototypes = torch.autograd.grad(loss, [z, w])
    assert not by_prototypes[[1, 4]].any()
    results = fast(embeddings, prototypes[rows], labels, settings, classwise=classwise.of(rows))
    assert_same(results, (loss, by_embeddings, by_prototypes[rows]))


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_loss_of_a_head_equals_the_plain_one(settings):
    embeddings, prototypes, labels = sample()
    head = Head(5, 6, settings).double()
    with torch.no_grad():
        head.prototypes.copy_(prototypes)
    z = embeddings.clone().requires_grad_()
    loss = head.loss(z, labels)
    results = (loss, *torch.autograd.grad(loss, [z, head.prototypes]))
    assert_same(results, plain_gradients(embeddings, prototypes, labels, settings))


@pytest.mark.parametrize("settings", KINDS[:3], ids=str)
@pytest.mark.parametrize("margins", [None, 0.1])
def test_margin_and_its_slope_equal_the_plain_ones(settings, margins):
    cosines = torch.linspace(-0.999, 0.999, 301, dtype=torch.float64, requires_grad=True)
    own = None if margins is None else torch.full_like(cosines, margins).detach()
    expected = with_margin(cosines, settings, own)
    (slope,) = torch.autograd.grad(expected.sum(), cosines)
    assert_same(margin_cosine(cosines.detach(), settings, own), (expected, slope))


@pytest.mark.parametrize("fast", [loss_and_gradients, fused])
def test_many_classes_in_parts_equal_the_plain_loss(fast, monkeypatch):
    monkeypatch.setattr("stages.models.heads.margin_loss._CACHED", 1 << 10)
    torch.manual_seed(0)
    embeddings = functional.normalize(torch.randn(100, 8, dtype=torch.float64), dim=1)
    prototypes, labels = torch.randn(333, 8, dtype=torch.float64), torch.randint(0, 333, (100,))
    results = fast(embeddings, prototypes, labels, KINDS[0])
    assert_same(results, plain_gradients(embeddings, prototypes, labels, KINDS[0]))
