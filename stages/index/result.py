"""The result of the index stage."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IndexResult:
    """Counts of one indexed source.

    `skipped` and `examples` hold, by reason, the number of skipped entries and the first few keys.
    `zone` is the UTM zone of all positions, "" if the source names none. `low` and `high` are the
    south-west and north-east corner of the box around all positions, in metres.
    """

    split: str
    rows: int
    skipped: dict[str, int]
    examples: dict[str, tuple[str, ...]]
    zone: str
    low: tuple[float, float]
    high: tuple[float, float]
    seconds: float

    def facts(self) -> list[tuple[str, object]]:
        """Return the lines to show a person."""
        lines: list[tuple[str, object]] = [("images", self.rows)]
        for reason, count in self.skipped.items():
            lines.append((f"skipped: {reason}", f"{count:,} (first: {', '.join(self.examples[reason])})"))
        width, height = (high - low for low, high in zip(self.low, self.high, strict=True))
        return [
            *lines,
            ("UTM zone", self.zone or "unknown"),
            ("extent", f"{width:,.0f} x {height:,.0f} m"),
            ("seconds", self.seconds),
        ]
