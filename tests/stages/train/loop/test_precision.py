"""A batch whose logits would take too much memory is computed in parts of its samples."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from stages.models.heads.class_balance import ALIKE, Classwise
from stages.models.heads.heads import HeadSettings
from stages.models.heads.margin_loss import Buffers, loss_and_gradients
from stages.models.heads.margin_loss_compiled import fused_loss_and_gradients
from stages.train.loop.precision import in_parts, loss_of
from tests.support.training_city import CONFIG

CLASSES = 7
CLASSWISE = Classwise(*torch.linspace(0.1, 0.9, 3 * CLASSES, dtype=torch.float64).view(3, -1))


def sample(rows):
    torch.manual_seed(0)
    embeddings = functional.normalize(torch.randn(rows, 5, dtype=torch.float64), dim=1)
    return embeddings, torch.randn(CLASSES, 5, dtype=torch.float64), torch.arange(rows) % CLASSES


@pytest.mark.parametrize("classwise", [ALIKE, CLASSWISE], ids=["alike", "classwise"])
@pytest.mark.parametrize("kind", ["aamc", "lmcc", "linear"])
@pytest.mark.parametrize("most_rows", [0, 1, 4, 11])
@pytest.mark.parametrize(
    "whole",
    [partial(loss_and_gradients, buffers=Buffers()), partial(fused_loss_and_gradients, compiled=False)],
    ids=["plain", "fused"],
)
def test_loss_in_parts_equals_the_whole(whole, most_rows, kind, classwise):
    arguments, rows = (*sample(11), HeadSettings(kind, 20.0, 0.3, False)), []

    def loss(embeddings, *others, **options):
        rows.append(len(embeddings))
        return whole(embeddings, *others, **options)

    expected = [value.clone() for value in whole(*arguments, classwise=classwise)]
    results = in_parts(loss, most_rows * CLASSES + CLASSES - 1)(*arguments, classwise=classwise)
    assert max(rows) == max(1, most_rows)
    assert sum(rows) == 11
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_only_a_gpu_limits_the_logits_to_its_memory(monkeypatch):
    gpu = SimpleNamespace(total_memory=16 * 4 * 1000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    limits = []
    monkeypatch.setattr(
        "stages.train.loop.precision.in_parts", lambda loss, most_logits: limits.append(most_logits)
    )
    for device in ("cpu", "cuda"):
        loss_of(CONFIG, torch.device(device), Buffers())
    assert limits == [1000]
