"""Whether a device can be used."""

from __future__ import annotations

import torch


def why_unusable(device: str) -> str | None:
    """Return in one line why tensors cannot be put on a device, None if they can."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        return (str(error).splitlines() or ["it is not available"])[0]
    return None
