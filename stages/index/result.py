"""The result of the index stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from stages.index.file_changes import FileChanges


@dataclass(frozen=True)
class IndexResult:
    """Counts of what was indexed.

    `skipped` and `examples` hold, by reason, the number of skipped entries and the first few keys.
    `zone` is the UTM zone of all positions, "" if the source names none. `low` and `high` are the
    south-west and north-east corner of the box around all positions, in metres. `endings` counts the files
    that are not images by their ending; `absent` are those of the first images that do not exist.
    `changes` tells how files differ from those indexed before, None if there were none. `sets` counts the
    images of each source where there are several.
    """

    split: str
    rows: int
    skipped: dict[str, int]
    examples: dict[str, tuple[str, ...]]
    zone: str
    low: tuple[float, float]
    high: tuple[float, float]
    seconds: float
    endings: dict[str, int] = field(default_factory=dict)
    unknown_headings: int = 0
    absent: tuple[str, ...] = ()
    changes: FileChanges | None = None
    sets: dict[str, int] = field(default_factory=dict)

    def facts(self) -> list[tuple[str, object]]:
        """Return the lines to show a person."""
        lines: list[tuple[str, object]] = [("images", self.rows)]
        lines += [(f"set {name}", rows) for name, rows in self.sets.items()]
        for reason, count in self.skipped.items():
            lines.append((f"skipped: {reason}", f"{count:,} (first: {', '.join(self.examples[reason])})"))
        if self.endings:
            ordered = sorted(self.endings.items(), key=lambda item: (-item[1], item[0]))
            lines.append(("endings", ", ".join(f"{count:,} {ending}" for ending, count in ordered)))
        if self.unknown_headings:
            lines.append(("headings unknown", self.unknown_headings))
        if self.absent:
            text = f"{len(self.absent)} of the first images, such as {self.absent[0]}: correct the paths"
            lines.append(("not found", f"{text} in the list, or mount the folder"))
        lines += self.changes.facts() if self.changes else []
        width, height = (high - low for low, high in zip(self.low, self.high, strict=True))
        return [
            *lines,
            ("UTM zone", self.zone or "unknown"),
            ("extent", f"{width:,.0f} x {height:,.0f} m"),
            ("seconds", self.seconds),
        ]
