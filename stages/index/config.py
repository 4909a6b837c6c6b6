"""The settings of the index stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class IndexConfig:
    """Settings of the index stage; the section `index` of params.yaml.

    Attributes
    ----------
    on_error
        What to do with an entry without a usable position or with a repeated key:
        "skip" it and count it, or "stop".
    """

    on_error: Literal["skip", "stop"]
