"""Load checkpoints of several layouts; every tensor must fit."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from stages.errors import WeightsError

_SCALE_OFFSET = 0.1  # see `resample_position_embedding`
_UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    KeyError,
    ValueError,
    pickle.UnpicklingError,
    SafetensorError,
)


def load_weights(model: nn.Module, path: Path, *, name: str) -> None:
    """Fill a model from a checkpoint file.

    Reads timm checkpoints (.safetensors or pickled), the original DINOv2 layout, and the package of
    EfficientNet-Lite0, whose tensors have other names but the order of timm's. Pickles are read with
    ``weights_only=True`` and cannot run code.

    Raises
    ------
    WeightsError
        If the file cannot be read or does not fit.
    """
    state = read_checkpoint(path)
    expected = model.state_dict()
    if "pos_embed" in expected:
        vit: Any = model
        if "pos_embed" in state:
            grid = math.isqrt(vit.patch_embed.num_patches)
            registers = "reg_token" in expected
            state["pos_embed"] = resample_position_embedding(state["pos_embed"], grid, registers=registers)
            _require_positions(state, expected, path, name)
        state = checkpoint_filter_fn(state, vit)
        state = {key: value for key, value in state.items() if not key.startswith("head.")}
    elif not set(expected) <= set(state):
        state = _in_order(state, expected, path)
    missing, unexpected = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    unexpected = [key for key in unexpected if not key.startswith(("classifier.", "fc."))]
    wrong = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if missing or unexpected or wrong:
        fault = "; ".join(
            f"{what} {len(keys)} tensors such as {keys[0]}"
            for what, keys in (
                ("lacks", missing),
                ("has unknown", unexpected),
                ("has another shape in", wrong),
            )
            if keys
        )
        raise WeightsError(
            f"{path} does not fit {name}: it {fault}. Set extract.weights to this backbone's own file"
        )
    model.load_state_dict({key: state[key] for key in expected}, assign=True)


def resample_position_embedding(embedding: Tensor, grid: int, *, registers: bool) -> Tensor:
    """Return a position embedding for another number of patches, resampled as DINOv2's authors do.

    Without registers: scaled by (grid + 0.1) / n, bicubic without antialiasing. The authors added 0.1
    against rounding errors, but it changes the features, so it must be kept. With registers: resized
    to the grid, bicubic with antialiasing.

    Parameters
    ----------
    embedding : Tensor, (1, prefix + n * n, F)
        Trained embedding; prefix is 0 or 1 (the class token's position).
    grid : int
        Patches along a side of the image.
    registers : bool
        Whether the model has register tokens.

    Returns
    -------
    Tensor, (1, prefix + grid * grid, F)
    """
    side = math.isqrt(embedding.shape[1])
    prefix = embedding.shape[1] - side * side
    if side == grid:
        return embedding
    kept, patches = embedding[:, :prefix], embedding[:, prefix:]
    plane = patches.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if registers:
        plane = F.interpolate(plane, size=(grid, grid), mode="bicubic", antialias=True)
    else:
        scale = (grid + _SCALE_OFFSET) / side
        plane = F.interpolate(plane, scale_factor=(scale, scale), mode="bicubic")
    patches = plane.permute(0, 2, 3, 1).reshape(1, grid * grid, -1).to(embedding.dtype)
    return torch.cat([kept, patches], dim=1)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name; pickles cannot run code."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} cannot be read as a checkpoint: {reason}") from error
    for wrapper in ("model", "state_dict", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} is not a state dict: expected tensors by name")
    return dict(state)


def _require_positions(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path, name: str) -> None:
    """Reject a checkpoint with registers for a backbone without them, and the reverse."""
    # The authors' layout with registers has a position of the class token, which timm adds to the token.
    positions = state["pos_embed"].shape[1] - ("register_tokens" in state)
    wanted = expected["pos_embed"].shape[1]
    if positions != wanted:
        raise WeightsError(
            f"{path} does not fit {name}: it has {positions} positions, expected {wanted}, so only one "
            "of the two has registers. Set extract.weights to this backbone's own weights file"
        )


def _in_order(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename tensors by their order, checking each shape; the classifier at the end is dropped."""
    values = [value for key, value in state.items() if not key.startswith("_fc.")]
    fault = f"it has {len(values)} tensors, expected {len(expected)}" if len(values) != len(expected) else ""
    for (key, wanted), value in zip(expected.items(), values, strict=False):
        if value.shape != wanted.shape and not fault:
            fault = f"instead of {key} {tuple(wanted.shape)} it has a tensor {tuple(value.shape)}"
    if fault:
        raise WeightsError(
            f"{path} does not fit the backbone: {fault}. Set extract.weights to this backbone's own file"
        )
    return dict(zip(expected, values, strict=True))
