"""One thing that the doctor looked at: what was found, whether it is in the way, what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    subject : str
        What: device, weights, disk, ...
    mark : {"ok", "note", "blocks"}
        Whether it is well, worth knowing, or in the way.
    text : str
        What was found.
    remedy : str
        The command or edit that mends it; "" where nothing has to be mended.
    """

    subject: str
    mark: Literal["ok", "note", "blocks"]
    text: str
    remedy: str = ""

    @classmethod
    def of(cls, subject: str, fault: Exception) -> Finding:
        """Return an error of our own as a finding that blocks: its last colon parts fault and remedy."""
        text, colon, remedy = str(fault).rpartition(": ")
        return cls(subject, "blocks", text, remedy) if colon else cls(subject, "blocks", remedy)

    @property
    def blocks(self) -> bool:
        """Whether the pipeline cannot go on like this."""
        return self.mark == "blocks"
