"""The map: a grid of streets, the blocks between them, the lots around each block.

Local metres, x east and y north of `ORIGIN`. A block has four faces, numbered counter-clockwise: south, east,
north, west. Lots run counter-clockwise too, so the last lot of one face and the first of the next are the two
sides of one corner building.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

ORIGIN = (551_000.0, 4_180_000.0)
PAVEMENT_M = 3.2
KERB_LANE_M = 2.2
_AVENUES = (
    "Alder", "Birch", "Cedar", "Dogwood", "Elder", "Fir", "Ginkgo", "Hazel", "Ironwood", "Juniper", "Katsura",
    "Larch", "Maple", "Nutmeg", "Oak", "Poplar", "Quince", "Rowan", "Spruce", "Tamarack", "Ulmo", "Walnut",
    "Yew",
)  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """A stretch of street between two crossings.

    `axis` 0 runs east-west (x varies), 1 north-south; `across` is the middle line on the other axis.
    """

    axis: int
    street: int
    start_m: float
    stop_m: float
    across_m: float
    width_m: float

    def point(self, along_m: float, offset_m: float) -> tuple[float, float]:
        """Local (x, y) at `along_m`, `offset_m` north or east of the middle line."""
        side = self.across_m + offset_m
        return (along_m, side) if self.axis == 0 else (side, along_m)

    @property
    def name(self) -> str:
        """What the street is called."""
        if self.axis == 1:
            number = self.street + 1
            ending = {1: "st", 2: "nd", 3: "rd"}.get(number if number < 20 else number % 10, "th")
            return f"{number}{ending} Street"
        turn, tree = divmod(self.street, len(_AVENUES))
        return f"{_AVENUES[tree]} Avenue" + (f" {turn + 1}" if turn else "")


@dataclass(frozen=True)
class City:
    """Streets and blocks.

    Attributes
    ----------
    x_streets : float64 (nx, 2)
        West and east edge of each north-south street, building to building.
    y_streets : float64 (ny, 2)
        South and north edge of each east-west street.
    seed : int
        What everything in the city is drawn from.
    """

    x_streets: npt.NDArray[np.float64]
    y_streets: npt.NDArray[np.float64]
    seed: int

    @cached_property
    def blocks(self) -> npt.NDArray[np.float64]:
        """Blocks as (west, south, east, north), the outermost ring included, shape (K, 4)."""
        x_walls = _gaps(self.x_streets)
        y_walls = _gaps(self.y_streets)
        return np.array([(x0, y0, x1, y1) for x0, x1 in x_walls for y0, y1 in y_walls])

    @cached_property
    def segments(self) -> list[Segment]:
        """Every stretch of street between two crossings."""
        found = []
        for axis, (own, other) in enumerate(
            ((self.y_streets, self.x_streets), (self.x_streets, self.y_streets))
        ):
            for street, (low, high) in enumerate(own.tolist()):
                for start, stop in zip(other[:-1, 1].tolist(), other[1:, 0].tolist(), strict=True):
                    found.append(Segment(axis, street, start, stop, (low + high) / 2, high - low))
        return found

    def lots(self, block: int, face: int) -> npt.NDArray[np.float64]:
        """Lot borders along a face, metres from its first corner, shape (lots + 1,)."""
        x0, y0, x1, y1 = self.blocks[block].tolist()
        length = x1 - x0 if face % 2 == 0 else y1 - y0
        rng = np.random.default_rng((self.seed, 11, block, face))
        count = max(2, round(length / 11.5))
        widths = rng.uniform(0.7, 1.3, count)
        return np.concatenate([[0.0], np.cumsum(widths) / widths.sum() * length])

    def building(self, block: int, face: int, lot: int, lots: int) -> tuple[int, int]:
        """(seed, part) of the building behind a lot: corner buildings show one look on two faces."""
        if lot == lots - 1:
            return ((face + 1) % 4) * 100, 1
        return face * 100 + lot, 0


def lay_out(images: int, seed: int) -> City:
    """A city large enough for `images` database images and some streets that nobody visits."""
    needed = visited_segments(images) * 1.3 + 6
    count = 3
    while 2 * count * (count - 1) < needed:
        count += 1
    rng = np.random.default_rng((seed, 10))
    return City(_bands(rng, count, (58.0, 76.0)), _bands(rng, count, (56.0, 66.0)), seed)


def visited_segments(images: int) -> int:
    """How many stretches of street the database car sees."""
    return max(3, round(images / 75))


def _bands(rng: np.random.Generator, count: int, block_m: tuple[float, float]) -> npt.NDArray[np.float64]:
    widths = rng.uniform(16.0, 21.0, count)
    starts = np.concatenate([[0.0], np.cumsum(widths[:-1] + rng.uniform(*block_m, count - 1))])
    return np.round(np.stack([starts, starts + widths], axis=1), 2)


def _gaps(bands: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    """Spans between the bands, and one more beyond either end."""
    edges = [bands[0, 0] - 60.0, *bands.ravel().tolist(), bands[-1, 1] + 60.0]
    return [(float(a), float(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
