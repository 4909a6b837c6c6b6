"""What the index stage did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IndexResult:
    """What was indexed.

    Attributes
    ----------
    split
        "database" or "queries".
    rows
        Images in the manifest.
    skipped
        Entries left out, by reason.
    examples
        The first few of them, by reason.
    zone
        UTM zone of all positions, "" if the source names none.
    low, high
        South-west and north-east corner of the box around all positions, metres.
    seconds
        Wall-clock time.
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
