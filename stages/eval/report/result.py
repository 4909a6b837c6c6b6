"""The outcome of writing a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportResult:
    """The page and what it shows; `left_out` photos exceeded the budget."""

    page: Path
    page_bytes: int
    queries: int
    on_map: int
    with_photos: int
    left_out: int
    plots: int

    def facts(self) -> list[tuple[str, object]]:
        """Return (name, value) pairs for a person to read."""
        return [
            ("page", str(self.page)),
            ("size, MB", round(self.page_bytes / 1e6, 2)),
            ("queries", self.queries),
            ("on the map", self.on_map),
            ("with photos", self.with_photos),
            ("photos left out", self.left_out),
            ("plots", self.plots),
        ]
