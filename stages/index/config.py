"""The settings of the index stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class IndexConfig:
    """How images are indexed.

    Attributes
    ----------
    on_error
        What to do with an entry that has no usable position, or a key seen
        before: "skip" and count it, or "stop".
    """

    on_error: Literal["skip", "stop"]
