"""The order of a model's blocks: what comes before them, the blocks, what comes after them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LISTS = ("blocks", "stages", "layers", "features")
_NUMBERED = re.compile(r"(layer|s|stage|stages_|block)\d+")
_HEAD = re.compile(r"(global_?pool|flatten|pre_logits|attn_pool|(.*_)?(head|fc|classifier|drop)(_.*)?)\d*")
_IN_ORDER = 1e-4  # largest relative difference that rounding explains


@dataclass(frozen=True)
class BlockOrder:
    """A model as three lists of modules, applied one after the other."""

    stem: tuple[nn.Module, ...]
    blocks: tuple[nn.Module, ...]
    last: tuple[nn.Module, ...]


def block_order(model: nn.Module, kind: str) -> BlockOrder | None:
    """Return the order of a timm model's blocks; None if it has no recognised one.

    Of a transformer, `stem` is the patch embedding; `enter` adds the other tokens and positions.
    """
    children = dict(model.named_children())
    if kind == "vit":
        if not {"patch_embed", "blocks", "norm"} <= set(children) or not hasattr(model, "_pos_embed"):
            return None
        return BlockOrder(
            (children["patch_embed"],), tuple(children["blocks"].children()), (children["norm"],)
        )
    names = list(children)
    end = next((place for place, name in enumerate(names) if _is_head(name)), len(names))
    names = names[:end]
    lists = [name for name in names if name in _LISTS]
    numbered = [name for name in names if _NUMBERED.fullmatch(name)]
    first, count = (lists[0], 1) if lists else (numbered[0], len(numbered)) if numbered else ("", 0)
    if not first:
        return None
    start = names.index(first)
    blocks = tuple(children[first].children()) if lists else tuple(children[name] for name in numbered)
    after = names[start + count :]
    return BlockOrder(
        tuple(children[name] for name in names[:start]), blocks, tuple(children[name] for name in after)
    )


def _is_head(name: str) -> bool:
    """Whether a module of that name belongs to the classifier; EfficientNet's conv_head does not."""
    return name != "conv_head" and _HEAD.fullmatch(name) is not None


def enter(model: nn.Module, kind: str, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Return what enters the first block, and further arguments of every block (rotary positions)."""
    order = block_order(model, kind)
    if order is None:
        raise ValueError("the model's blocks have no recognised order")
    values = chain(order.stem, images)
    if kind != "vit":
        return values, {}
    tokens = model._pos_embed(values)  # type: ignore[operator]
    tokens, rope = tokens if isinstance(tokens, tuple) else (tokens, None)
    if isinstance(getattr(model, "norm_pre", None), nn.Module):
        tokens = model.get_submodule("norm_pre")(tokens)
    return tokens, {} if rope is None else {"rope": rope}


def chain(modules: Iterable[nn.Module], values: Tensor, **arguments: Any) -> Tensor:
    """Apply modules one after the other."""
    for module in modules:
        values = module(values, **arguments)
    return values


def in_order(model: nn.Module, kind: str, images: Tensor) -> bool:
    """Whether the blocks, applied in their order, give the model's features of images (B, 3, S, S)."""
    order = block_order(model, kind)
    if order is None or not order.blocks:
        return False
    try:
        expected = model.forward_features(images)  # type: ignore[operator]
        values, arguments = enter(model, kind, images)
        values = chain(order.last, chain(order.blocks, values, **arguments))
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
        return False
    return close(values, expected)


def close(values: Tensor, expected: Tensor) -> bool:
    """Whether features are equal up to rounding; on the meta device, whether their shapes are."""
    if values.shape != expected.shape:
        return False
    if values.is_meta:
        return True
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return bool((values - expected).abs().max() <= _IN_ORDER * scale)
