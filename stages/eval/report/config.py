"""The settings of the report; importing this module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from stages.errors import require


@dataclass(frozen=True)
class ReportConfig:
    """The section `report` of params.yaml.

    `queries` are shown with photos, three quarters of them failures. `photos_mb` limits all photos
    together, in 10^6 bytes of the page. Of more than `map_queries` the map shows a regular sample.

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
