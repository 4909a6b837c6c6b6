"""What packing did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PackResult:
    """What a run of packing did.

    Attributes
    ----------
    manifest : Path
        The pack's manifest: what `data.database` or `data.queries` is set to.
    images, shards : int
        Rows of the manifest, and files they are in.
    made : int
        Of these files, those made in this run.
    size : int
        Bytes of all encoded images.
    unreadable : tuple of (str, str)
        Key and reason of each image that has a row but no bytes.
    seconds : float
        Duration of the run.
    """

    manifest: Path
    images: int
    shards: int
    made: int
    size: int
    unreadable: tuple[tuple[str, str], ...]
    seconds: float

    def facts(self) -> list[tuple[str, object]]:
        """Return what a person wants to know of the run, in reading order."""
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
