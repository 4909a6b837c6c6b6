"""The settings of the report; importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from stages.errors import require


@dataclass(frozen=True)
class ReportConfig:
    """How much the report shows; the section `report` of params.yaml.

    Attributes
    ----------
    queries : int
        Queries shown with photos: three quarters of them failures, the worst first.
    cells : int
        Predicted cells shown beside each.
    photos_per_cell : int
        Database photos shown of each cell.
    thumbnail_px : int
        Longer side of a photo in the page, pixels.
    photos_mb : float
        All photos of the page together take no more than this, in 10^6 bytes of the page.
    map_queries : int
        Queries on the map and in its table; of more, a regular sample is shown.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    queries: int
    cells: int
    photos_per_cell: int
    thumbnail_px: int
    photos_mb: float
    map_queries: int

    def __post_init__(self) -> None:
        for name, least in (
            ("queries", 0),
            ("cells", 1),
            ("photos_per_cell", 1),
            ("thumbnail_px", 16),
            ("photos_mb", 0),
            ("map_queries", 1),
        ):
            value = getattr(self, name)
            require(f"report.{name}", value, value >= least, f"{least} or more")
