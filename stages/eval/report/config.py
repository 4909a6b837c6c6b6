"""The settings of the report; importing this module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from stages.errors import require


@dataclass(frozen=True)
class ReportConfig:
    """The section `report` of params.yaml.

    Attributes
    ----------
    queries : int
        Queries to show with photos: three quarters of them failures, the worst first.
    cells : int
        Predicted cells beside each query.
    photos_per_cell : int
        Database photos of each cell.
    thumbnail_px : int
        Longer side of a photo in the page.
    photos_mb : float
        Limit of all photos together, 10^6 bytes of the page.
    map_queries : int
        Queries on the map; of more, a regular sample is shown.

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
