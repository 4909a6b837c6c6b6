"""What a scheme knows of the images; a manifest is one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Images(Protocol):
    """Positions, and whatever else was noted, of all images in order."""

    def positions(self) -> npt.NDArray[np.float64]:
        """Return (rows, 2) UTM east and north in metres."""

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return one column by name, (rows,)."""
