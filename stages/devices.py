"""Devices to compute on, by name.

PyTorch takes seconds to import, so it is imported when a device is looked at.
"""

from __future__ import annotations

import os

from stages.errors import ConfigError


def let_idle_threads_sleep() -> None:
    """Make PyTorch's CPU threads soon sleep while they wait for one another; call it before torch starts.

    By default they spin for a millisecond, and on a busy machine they then spend three times the processor
    time of the work on waiting for a thread that has no core. Sleeping at once would cost a third of a
    training's time on an idle machine. OMP_WAIT_POLICY and GOMP_SPINCOUNT of the environment win.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def resolve_device(names: str) -> str:
    """Return the devices that a name stands for; "auto" is the GPU if there is one, else the CPU.

    Parameters
    ----------
    names : str
        "auto", "cpu", "cuda", "cuda:1", or several: "cuda:0,cuda:1".

    Raises
    ------
    ConfigError
        If this machine cannot use one of them.
    """
    if names == "auto":
        import torch

        names = "cuda" if torch.cuda.is_available() else "cpu"
    require_devices(names)
    return names


def require_devices(names: str) -> None:
    """Raise ConfigError if this machine cannot use one of some devices; "auto" and "cpu" always work."""
    for device in names.split(","):
        if device not in ("auto", "cpu") and (reason := why_unusable(device)):
            raise ConfigError(
                f"device {device!r} cannot be used ({reason}): expected auto, cpu or a GPU of this machine "
                "such as cuda:0"
            )


def describe_device(names: str) -> str:
    """Return resolved devices as the results show them: with the GPU's name or the number of CPU threads."""
    import torch

    first = names.split(",")[0]
    if first.startswith("cuda"):
        return f"{names} ({torch.cuda.get_device_name(first)})"
    return f"{names} ({torch.get_num_threads()} threads)"


def why_unusable(device: str) -> str | None:
    """Return in one line why tensors cannot be put on a device, None if they can."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        return (str(error).splitlines() or ["it is not available"])[0]
    return None
