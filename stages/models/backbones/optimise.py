"""Faster frozen models: fold normalisations and scales into the layers before them, fuse activations."""

from __future__ import annotations

import copy
import ctypes
import platform

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stages.models.backbones.block_order import close

# glibc's numbers of two allocator settings, and their maximum.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER_BYTES = (1 << 31) - 1
_MULTIPLE = 8


def keep_freed_memory() -> bool:
    """Make this process keep the memory that a forward pass frees; return whether it does.

    By default glibc returns large blocks to the system, which clears every page when the next layer
    requests them again: a third of a convolutional network's time on a CPU. The process stays as
    large as its largest batch. Without glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    settings = ctypes.CDLL(None)
    kept = [settings.mallopt(name, _NEVER_BYTES) for name in (_TRIM_THRESHOLD, _MMAP_THRESHOLD)]
    return kept == [1, 1]


def optimise(model: nn.Module, *, kind: str) -> nn.Module:
    """Return a frozen model that computes the same, up to rounding, in less time.

    Of a CNN, the batch normalisations, a third of its time on a CPU, are folded into the convolutions
    before them, and the weights get the channels-last layout of the input. Of a transformer, the
    layer scales are folded into the linear layers before them, and the patch embedding, a convolution
    for which GPUs have no fast kernel, becomes a matrix product.

    The timm model must be in evaluation mode; it is changed in place.
    """
    if kind == "cnn":
        fold_normalisation(model)
        return model.to(memory_format=torch.channels_last)
    fold_layer_scale(model)
    embedding = model.get_submodule("patch_embed")
    embedding.proj = PatchProjection(embedding.get_submodule("proj"))
    return model


def optimise_if_equal(model: nn.Module, *, kind: str, images: Tensor) -> nn.Module:
    """Return `optimise` of a model of any kind if that computes the same of some images, else the model."""
    if kind not in ("cnn", "vit"):
        return model
    try:
        faster = optimise(copy.deepcopy(model), kind=kind)
        with torch.inference_mode():
            same = close(faster.forward_features(images), model.forward_features(images))  # type: ignore[operator]
    except (RuntimeError, TypeError, ValueError, AttributeError):  # other modules than those it knows
        same = False
    return faster if same else model


class PatchProjection(nn.Module):
    """A convolution whose stride is its kernel's size, as one matrix product."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        weight = convolution.get_parameter("weight").detach()
        self.side = weight.shape[-1]
        length = weight[0].numel()
        # GPUs multiply fastest in multiples of eight; the padding meets weights of 0.
        self.padding = -length % _MULTIPLE
        self.weight = nn.Parameter(functional.pad(weight.flatten(1), (0, self.padding)))
        self.bias = nn.Parameter(convolution.get_parameter("bias").detach())

    def forward(self, images: Tensor) -> Tensor:
        """Return the convolution (B, C, H / side, W / side) of images (B, 3, H, W)."""
        batch, channels, height, width = images.shape
        rows, columns = height // self.side, width // self.side
        tiles = images.reshape(batch, channels, rows, self.side, columns, self.side)
        patches = tiles.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows, columns, -1)
        projected = functional.linear(functional.pad(patches, (0, self.padding)), self.weight, self.bias)
        return projected.permute(0, 3, 1, 2)


def fold_layer_scale(model: nn.Module) -> int:
    """Fold each layer scale g into the linear layer before it, diag(g) (W x + b); return how many."""
    folded = 0
    for block in model.get_submodule("blocks").children():
        for name, last in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            scale, linear = block.get_submodule(name), block.get_submodule(last)
            if not hasattr(scale, "gamma"):  # a model without layer scales
                continue
            with torch.no_grad():
                linear.get_parameter("weight").mul_(scale.get_parameter("gamma").unsqueeze(1))
                linear.get_parameter("bias").mul_(scale.get_parameter("gamma"))
            setattr(block, name, nn.Identity())
            folded += 1
    return folded


def fuse_activations(model: nn.Module) -> int:
    """Fuse the GELU of each transformer block with the linear layer before it; return how many.

    For GPUs and 16-bit numbers only: the fused kernel uses GELU's tanh form, whose error of up to 5e-4
    is less than their rounding. It saves reading and writing the widest activations.
    """
    fused = 0
    for block in getattr(model, "blocks", nn.Sequential()).children():
        layers = getattr(block, "mlp", None)
        if not isinstance(layers, Mlp):  # others have a gate between their linear layers
            continue
        if isinstance(layers.act, nn.GELU) and isinstance(layers.norm, nn.Identity):
            block.mlp = FusedLayers(layers.get_submodule("fc1"), layers.get_submodule("fc2"))
            fused += 1
    return fused


class FusedLayers(nn.Module):
    """Two linear layers with a GELU between them, fused with the first layer's product.

    The fused product has no derivative: where gradients are enabled, the layers run separately.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the layers' output (..., C) of tokens (..., C)."""
        if torch.is_grad_enabled():
            return self.second(functional.gelu(self.first(tokens)))  # type: ignore[no-any-return]
        weight, bias = self.first.get_parameter("weight"), self.first.get_parameter("bias")
        wide = torch._addmm_activation(bias, tokens.flatten(0, -2), weight.t(), use_gelu=True)
        return self.second(wide).reshape(tokens.shape)  # type: ignore[no-any-return]


def fold_normalisation(model: nn.Module) -> int:
    """Fold each batch normalisation into the convolution before it; return how many.

    timm's normalisations include the activation that follows, which takes their place.
    """
    folded = 0
    for parent in list(model.modules()):
        convolution: tuple[str, nn.Conv2d] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                convolution = name, child
            elif isinstance(child, nn.BatchNorm2d) and convolution is not None:
                setattr(parent, convolution[0], fuse_conv_bn_eval(convolution[1], child))
                setattr(parent, name, getattr(child, "act", nn.Identity()))
                convolution = None
                folded += 1
    return folded
