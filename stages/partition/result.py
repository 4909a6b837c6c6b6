"""What the partition stage did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PartitionResult:
    """What the partition holds.

    Attributes
    ----------
    scheme
        How the city is cut.
    rows, images_in_classes, images_dropped
        Images of the manifest: all, those of a class, those of no class.
    partitions
        How many times it is cut.
    classes
        Number of classes, K, of all partitions.
    places
        Places that they tell apart.
    classes_per_group
        The same by group.
    head, mid, tail
        The same by bucket.
    tail_count
        Classes of the finest partition with at most so many images are tail.
    views
        Planned views.
    views_per_image
        Planned views over the images of all classes.
    seconds
        Wall-clock time.
    """

    scheme: str
    rows: int
    images_in_classes: int
    images_dropped: int
    partitions: int
    classes: int
    places: int
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
            ("classes per group", ", ".join(f"{count:,}" for count in self.classes_per_group)),
            ("head / mid / tail", f"{self.head:,} / {self.mid:,} / {self.tail:,}"),
            ("tail classes hold up to", self.tail_count),
            ("planned views", self.views),
            ("views per image", self.views_per_image),
            ("seconds", self.seconds),
        ]
