"""The result of one check of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """The state of one subject (device, weights, disk, ...), and the command or edit that fixes it if any."""

    subject: str
    mark: Literal["ok", "note", "blocks"]
    text: str
    remedy: str = ""

    @classmethod
    def of(cls, subject: str, fault: Exception) -> Finding:
        """Return an error as a finding that blocks: the remedy stands after its last colon."""
        text, colon, remedy = str(fault).rpartition(": ")
        return cls(subject, "blocks", text, remedy) if colon else cls(subject, "blocks", remedy)

    @property
    def blocks(self) -> bool:
        """Whether it stops the pipeline."""
        return self.mark == "blocks"
