"""Ways to compute the margin loss on a GPU that the program does not use: `bench_train_gpu.py` times them.

Both keep float32 logits out of the GPU's memory. Arguments and results are those of
`stages.models.heads.margin_loss.loss_and_gradients`. On a CPU, TRITON_INTERPRET=1 runs the kernel in float32.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from stages.models.heads.class_balance import ALIKE
from stages.models.heads.margin_loss import Gradients, margin_cosine, wide_product
from stages.models.heads.margin_loss_compiled import _pieces

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


def kernel_runs_on(device):
    return triton is not None and (device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")


class Operands(NamedTuple):
    """Inputs of the products, and what is known of the true classes before any product."""

    scaled: Tensor  # (B, D) in the products' precision
    unit: Tensor  # (K', D) likewise; K' is K padded with zeros to whole blocks
    inverse: Tensor  # (K, 1) one over the prototypes' lengths
    labels: Tensor  # (B, 1)
    target: Tensor  # (B, 1) logit of the true class, with margin and offset
    bend: Tensor  # (B, 1) its derivative by the logit without margin
    offsets: Tensor | None  # (K',)
    share: Tensor | float  # (B, 1) factor of the losses
    weighted: Tensor  # (B, D) embeddings times the factor of the gradients, in the products' precision
    weight: Tensor | float  # (B, 1) that factor


def operands(embeddings, prototypes, labels, settings, classwise, narrow, block, unit):
    linear, column = settings.kind == "linear", labels.unsqueeze(1)
    scale = 1.0 if linear else settings.scale
    factor, inverse = unit(prototypes, narrow, linear)
    factor = functional.pad(factor, (0, 0, 0, -len(factor) % block))
    scaled, wide = (embeddings * scale).to(narrow), torch.promote_types(narrow, torch.float32)
    cosine = (scaled.to(wide) * factor[labels].to(wide)).sum(dim=1, keepdim=True) / scale
    own = None if classwise.margins is None else classwise.margins[column]
    target, bend = margin_cosine(cosine, settings, own)
    target, offsets = target * scale, classwise.offsets
    if offsets is not None:
        target = target + offsets[column]
        offsets = functional.pad(offsets, (0, len(factor) - len(offsets)))
    share = 1.0 if classwise.weights is None else classwise.weights[column]
    weight = share * (scale / len(labels))
    weighted = (embeddings * weight).to(narrow)
    return Operands(scaled, factor, inverse, column, target, bend, offsets, share, weighted, weight)


def gradients(ready, losses, by_embedding, by_prototype, prototypes, settings, tangent):
    by_prototype = by_prototype[: len(prototypes)]
    if settings.kind != "linear":
        by_prototype = tangent(by_prototype, prototypes, ready.inverse)
    return Gradients((losses * ready.share).mean(), by_embedding * ready.weight, by_prototype)


@torch.no_grad()
def in_class_blocks(
    embeddings, prototypes, labels, settings, *, classwise=ALIKE, precision=None, width=2048, compiled=True
):
    """Logits of `width` classes at a time, which stay in the cache; computed twice, so four products.

    The first pass needs only each row's greatest logit and sum; the second makes both gradients.
    """
    narrow, (unit, _, tangent) = precision or prototypes.dtype, _pieces(compiled)
    add_block, slopes = _compiled_pieces() if compiled else (_add_block, _slopes)
    ready = operands(embeddings, prototypes, labels, settings, classwise, narrow, width, unit)
    blocks = [slice(start, start + width) for start in range(0, len(ready.unit), width)]
    peak, total = torch.full_like(ready.target, -torch.inf), torch.zeros_like(ready.target)

    def logits(block):
        return wide_product(ready.scaled, ready.unit[block].T)

    def known(block):  # how many of the block's columns are classes, and what else its logits depend on
        offsets = None if ready.offsets is None else ready.offsets[block]
        return len(prototypes) - block.start, ready.labels - block.start, ready.target, offsets

    for block in blocks:
        peak, total = add_block(logits(block), peak, total, *known(block))
    losses = total.log() + peak - ready.target
    by_embedding = torch.zeros_like(embeddings)
    by_prototype = ready.target.new_empty(ready.unit.shape)
    for block in blocks:
        by_logit = slopes(logits(block), peak, total, ready.bend, narrow, *known(block))
        by_embedding += wide_product(by_logit, ready.unit[block])
        by_prototype[block] = wide_product(by_logit.T, ready.weighted)
    return gradients(ready, losses, by_embedding, by_prototype, prototypes, settings, tangent)


@lru_cache(maxsize=1)
def _compiled_pieces():
    return tuple(torch.compile(piece, dynamic=True) for piece in (_add_block, _slopes))


def _with_target(logits, classes, labels, target, offsets):
    if offsets is not None:
        logits = logits + offsets
    columns = torch.arange(logits.shape[1], device=logits.device)
    true = columns == labels
    return torch.where(true, target, logits).masked_fill(columns >= classes, -torch.inf), true


def _add_block(logits, peak, total, *known):
    logits, _ = _with_target(logits, *known)
    higher = torch.maximum(peak, logits.amax(dim=1, keepdim=True))
    return higher, total * (peak - higher).exp() + (logits - higher).exp().sum(dim=1, keepdim=True)


def _slopes(logits, peak, total, bend, narrow, *known):
    logits, true = _with_target(logits, *known)
    share = (logits - peak).exp() / total
    return torch.where(true, (share - 1) * bend, share).to(narrow)


TILE = 128
"""Samples, and classes, of one block of threads."""


@torch.no_grad()
def in_one_kernel(
    embeddings, prototypes, labels, settings, *, classwise=ALIKE, precision=None, compiled=True
):
    """The first product in a Triton kernel that stores exponentials, then two products: three in all.

    A tile's exponentials are relative to its own greatest logits. Once all tiles are known, one pass over the
    stored, narrow numbers relates them to the row's greatest.
    """
    narrow, (unit, _, tangent) = precision or prototypes.dtype, _pieces(compiled)
    ready = operands(embeddings, prototypes, labels, settings, classwise, narrow, TILE, unit)
    (rows, length), classes = ready.scaled.shape, len(ready.unit)
    tiles = classes // TILE
    exponentials = ready.scaled.new_empty(rows, classes)
    peaks, totals = ready.target.new_empty(2, tiles, rows)
    _tile[triton.cdiv(rows, TILE), tiles](
        ready.scaled,
        ready.unit,
        ready.labels,
        ready.target,
        ready.target if ready.offsets is None else ready.offsets,
        exponentials,
        peaks,
        totals,
        rows,
        len(prototypes),
        classes,
        LENGTH=length,
        PART=min(64, triton.next_power_of_2(length)),
        TILE=TILE,
        OFFSETS=ready.offsets is not None,
        num_warps=8,
        num_stages=3,
    )
    peak = peaks.amax(dim=0)
    relative = (peaks - peak).exp()
    total = (totals * relative).sum(dim=0)
    exponentials.view(rows, tiles, TILE).mul_((relative / total).T.unsqueeze(2))
    peak, total = peak.unsqueeze(1), total.unsqueeze(1)
    true = ((ready.target - peak).exp() / total - 1) * ready.bend
    exponentials.scatter_(1, ready.labels, true.to(narrow))
    losses = total.log() + peak - ready.target
    by_embedding = wide_product(exponentials, ready.unit)
    by_prototype = wide_product(exponentials.T, ready.weighted)
    return gradients(ready, losses, by_embedding, by_prototype, prototypes, settings, tangent)


if triton is not None:

    @triton.jit
    def _tile(
        scaled,
        unit,
        labels,
        target,
        offsets,
        exponentials,
        peaks,
        totals,
        rows,
        known_classes,
        classes,
        LENGTH: tl.constexpr,
        PART: tl.constexpr,
        TILE: tl.constexpr,
        OFFSETS: tl.constexpr,
    ):
        """Exponentials of one tile of logits, relative to each row's greatest in it; that and the sum."""
        row = tl.program_id(0) * TILE + tl.arange(0, TILE)
        column = tl.program_id(1) * TILE + tl.arange(0, TILE)
        inside, part = row < rows, tl.arange(0, PART)
        logits = tl.zeros((TILE, TILE), dtype=tl.float32)
        for start in range(0, LENGTH, PART):
            within = start + part < LENGTH
            left = tl.load(
                scaled + row[:, None] * LENGTH + start + part[None, :],
                mask=inside[:, None] & within[None, :],
                other=0.0,
            )
            right = tl.load(
                unit + column[None, :] * LENGTH + start + part[:, None], mask=within[:, None], other=0.0
            )
            logits = tl.dot(left, right, logits, input_precision="ieee")
        if OFFSETS:
            logits += tl.load(offsets + column)[None, :]
        label = tl.load(labels + row, mask=inside, other=-1)
        true = tl.load(target + row, mask=inside, other=0.0)
        logits = tl.where(column[None, :] == label[:, None], true[:, None], logits)
        logits = tl.where(column[None, :] < known_classes, logits, float("-inf"))
        peak = tl.max(logits, axis=1)
        powers = tl.exp(logits - peak[:, None])
        at = row[:, None].to(tl.int64) * classes + column[None, :]
        tl.store(exponentials + at, powers.to(exponentials.dtype.element_ty), mask=inside[:, None])
        tl.store(peaks + tl.program_id(1) * rows + row, peak, mask=inside)
        tl.store(totals + tl.program_id(1) * rows + row, tl.sum(powers, axis=1), mask=inside)
