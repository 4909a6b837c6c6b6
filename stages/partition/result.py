"""The result of the partition stage."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PartitionResult:
    """Counts of the partition.

    `partitions` counts the cuts of the same images, `classes` (K) is their total over all cuts, and
    `places` are the squares that the classes tell apart. Classes of the finest partition with at
    most `tail_count` images are tail.
    """

    scheme: str
    rows: int
    images_in_classes: int
    images_dropped: int
    partitions: int
    classes: int
    places: int
    groups_per_side: int
    classes_per_group: tuple[int, ...]
    head: int
    mid: int
    tail: int
    tail_count: int
    views: int
    views_per_image: float
    seconds: float

    def facts(self) -> list[tuple[str, object]]:
        """Return the lines to show a person."""
        return [
            ("scheme", self.scheme),
            ("images", self.rows),
            ("images in classes", self.images_in_classes),
            ("images dropped", self.images_dropped),
            ("partitions", self.partitions),
            ("classes", self.classes),
            ("places", self.places),
            ("groups per side (N)", self.groups_per_side),
            ("classes per group", ", ".join(f"{count:,}" for count in self.classes_per_group)),
            ("head / mid / tail", f"{self.head:,} / {self.mid:,} / {self.tail:,}"),
            ("tail classes hold up to", self.tail_count),
            ("planned views", self.views),
            ("views per image", self.views_per_image),
            ("seconds", self.seconds),
        ]
