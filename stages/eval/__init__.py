"""A localiser and queries -> predictions, metrics and the LR@N curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.eval.config import EvalConfig

if TYPE_CHECKING:
    from stages.eval.stage import EvalResult, run

__all__ = ["EvalConfig", "EvalResult", "run"]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: reading params.yaml stays fast."""
    if name in ("EvalResult", "run"):
        from stages.eval import stage

        return getattr(stage, name)
    raise AttributeError(name)
