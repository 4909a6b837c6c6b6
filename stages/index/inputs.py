"""What the index stage works on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stages.index.config import IndexConfig


@dataclass(frozen=True)
class IndexInputs:
    """What the index stage works on.

    Attributes
    ----------
    config
        The `index` section of params.yaml.
    sources
        One or several of: a folder of images with SF-XL names or EXIF positions; a .csv with path and
        lat, lon or utm_east, utm_north[, zone]; a .txt list of SF-XL paths; a .parquet manifest.
    output
        The manifest to write.
    split
        "database" or "queries".
    zone
        UTM zone of the split that is indexed already, for instance "10S", to which all positions are
        converted; "" if it states none; None: the zone of most images.
    """

    config: IndexConfig
    sources: tuple[Path, ...]
    output: Path
    split: str
    zone: str | None = None
