"""All facades a worker has met, in one flat array, so that a frame reads them in one gather."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.toycity.facade import PX_PER_M, draw_facade
from stages.toycity.streets import City
from stages.toycity.style import building_style

LEVELS = 5
_LIMIT_PX = 40_000_000


@dataclass(frozen=True)
class Facade:
    """Where a facade's mip levels lie in the atlas: `start`, `columns`, `rows`, each int (LEVELS,)."""

    start: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    height_m: float


class Atlas:
    """Facades drawn on demand; `pixels` is uint32 RGBA, flat."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._facades: dict[tuple[int, int, int], Facade] = {}
        self._used = 0
        self.pixels: npt.NDArray[np.uint32] = np.zeros(4_000_000, np.uint32)

    def trim(self) -> None:
        """Forget everything once too much is held; call it between frames only."""
        if self._used > _LIMIT_PX:
            self._facades.clear()
            self._used = 0

    def facade(self, block: int, face: int, lot: int, borders: npt.NDArray[np.float64]) -> Facade:
        """The facade of a lot, drawn now if it is new."""
        key = (block, face, lot)
        if key not in self._facades:
            building, part = self._city.building(block, face, lot, len(borders) - 1)
            style = building_style(self._city.seed, block, building)
            picture = draw_facade(style, float(borders[lot + 1] - borders[lot]), part)
            self._facades[key] = self._add(picture)
        return self._facades[key]

    def _add(self, picture: Image.Image) -> Facade:
        start, columns, rows = [], [], []
        for level in range(LEVELS):
            small = picture.reduce(2**level) if level else picture
            texels = np.ascontiguousarray(np.asarray(small)).view(np.uint32).ravel()
            while self._used + texels.size > self.pixels.size:
                self.pixels = np.concatenate([self.pixels, np.zeros_like(self.pixels)])
            self.pixels[self._used : self._used + texels.size] = texels
            start.append(self._used)
            columns.append(small.width)
            rows.append(small.height)
            self._used += texels.size
        as_int = [np.array(values, np.int32) for values in (start, columns, rows)]
        return Facade(as_int[0], as_int[1], as_int[2], picture.height / PX_PER_M)
