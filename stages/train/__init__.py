"""Features and classes -> a localiser: the second, fast stage of the method.

In the data's way: `holdout` sets images aside for validation, `source` puts
features into memory, `initial` gives the first weights, `samplers` decides
what a step reads, `loop` takes the steps, `validation` looks at the result
and `stage` is the whole run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.train.config import TrainConfig, ValidationConfig

if TYPE_CHECKING:
    from stages.train.stage import TrainResult, run

__all__ = ["TrainConfig", "TrainResult", "ValidationConfig", "run"]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: reading params.yaml stays fast."""
    if name in ("TrainResult", "run"):
        from stages.train import stage

        return getattr(stage, name)
    raise AttributeError(name)
