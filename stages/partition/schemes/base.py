"""The image data that a scheme needs; a manifest provides it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Images(Protocol):
    """Positions and other columns of all images, in row order."""

    def positions(self) -> npt.NDArray[np.float64]:
        """Return (rows, 2) UTM east and north in metres."""

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return one column by name, (rows,)."""
