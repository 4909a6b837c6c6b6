"""The result of packing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PackResult:
    """Counts of one packing run.

    `manifest` is the pack's own, for `data.database` or `data.queries`; `made` counts the shards
    written in this run; `size` is in bytes; `unreadable` has the key and reason of each image
    that has a row but no bytes.
    """

    manifest: Path
    images: int
    shards: int
    made: int
    size: int
    unreadable: tuple[tuple[str, str], ...]
    seconds: float

    def facts(self) -> list[tuple[str, object]]:
        """Return the lines to show a person."""
        listed = [(f"unreadable: {key}", reason) for key, reason in self.unreadable[:5]]
        return [
            ("images", self.images),
            ("unreadable", len(self.unreadable)),
            ("shards", self.shards),
            ("made before", self.shards - self.made),
            ("megabytes", round(self.size / 1e6, 1)),
            ("seconds", round(self.seconds, 1)),
            *listed,
        ]
