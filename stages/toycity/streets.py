"""The street network, and the photos that the database car and pedestrians take in it.

Local coordinates are metres, x to the east and y to the north of `ORIGIN`. A block has four faces, numbered
counter-clockwise: south, east, north, west. Lots are numbered in the same direction, so the last lot of a
face and the first lot of the next face are the two sides of one corner building.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from stages.toycity.config import OUTSIDE_M, CityConfig

Floats64 = npt.NDArray[np.float64]

ORIGIN = (551_000.0, 4_180_000.0)
"""UTM east and north of the local origin, zone 10 S (San Francisco)."""
PAVEMENT_M = 3.2
PARKING_LANE_M = 2.2
_LONG_TAIL_EXPONENT = 1.6
_CROPS_PER_STOP = 2.5
_STOP_SPACING_M = 5.0
_AVENUES = (
    "Alder", "Birch", "Cedar", "Dogwood", "Elder", "Fir", "Ginkgo", "Hazel", "Ironwood", "Juniper", "Katsura",
    "Larch", "Maple", "Nutmeg", "Oak", "Poplar", "Quince", "Rowan", "Spruce", "Tamarack", "Ulmo", "Walnut",
    "Yew",
)  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """A street between two crossings: `axis` 0 runs east-west, 1 north-south; `across_m` its middle line."""

    axis: int
    street: int
    start_m: float
    stop_m: float
    across_m: float
    width_m: float

    def point(self, along_m: float, offset_m: float) -> tuple[float, float]:
        """Local (x, y) at `along_m`, `offset_m` north or east of the middle line."""
        across = self.across_m + offset_m
        return (along_m, across) if self.axis == 0 else (across, along_m)

    @property
    def name(self) -> str:
        """Name of the street."""
        if self.axis == 1:
            number = self.street + 1
            ending = {1: "st", 2: "nd", 3: "rd"}.get(number if number < 20 else number % 10, "th")
            return f"{number}{ending} Street"
        turn, tree = divmod(self.street, len(_AVENUES))
        return f"{_AVENUES[tree]} Avenue" + (f" {turn + 1}" if turn else "")

    @property
    def stops(self) -> int:
        """Number of places where the database car takes a panorama."""
        return int((self.stop_m - self.start_m) // _STOP_SPACING_M) + 1


@dataclass(frozen=True)
class City:
    """Streets, blocks and lots; everything in the city is drawn from `seed`.

    Attributes
    ----------
    x_streets : float64 (nx, 2)
        West and east edge of each north-south street, from building to building.
    y_streets : float64 (ny, 2)
        South and north edge of each east-west street.
    """

    x_streets: Floats64
    y_streets: Floats64
    seed: int

    @cached_property
    def blocks(self) -> Floats64:
        """Blocks as (west, south, east, north), including a ring around the outermost streets, (K, 4)."""
        x_spans, y_spans = _block_spans(self.x_streets), _block_spans(self.y_streets)
        return np.array([(x0, y0, x1, y1) for x0, x1 in x_spans for y0, y1 in y_spans])

    @cached_property
    def segments(self) -> list[Segment]:
        """Every stretch of street between two crossings."""
        return [
            Segment(axis, street, start, stop, (low + high) / 2, high - low)
            for axis, own, other in ((0, self.y_streets, self.x_streets), (1, self.x_streets, self.y_streets))
            for street, (low, high) in enumerate(own.tolist())
            for start, stop in zip(other[:-1, 1].tolist(), other[1:, 0].tolist(), strict=True)
        ]

    def face_length(self, block: int, face: int) -> float:
        """Length of a face in metres."""
        x0, y0, x1, y1 = self.blocks[block].tolist()
        return float(x1 - x0 if face % 2 == 0 else y1 - y0)

    def lots(self, block: int, face: int) -> Floats64:
        """Borders of the lots along a face, metres from its first corner, (lots + 1,)."""
        length = self.face_length(block, face)
        rng = np.random.default_rng((self.seed, 11, block, face))
        widths = rng.uniform(0.7, 1.3, max(2, round(length / 11.5)))
        return np.concatenate([[0.0], np.cumsum(widths) / widths.sum() * length])

    @staticmethod
    def building(face: int, lot: int, lots: int) -> tuple[int, int]:
        """(building, side): a corner building shows its side 1 on the last lot of the face before its own."""
        return (((face + 1) % 4) * 100, 1) if lot == lots - 1 else (face * 100 + lot, 0)


def plan_city(images: int, seed: int) -> City:
    """Lay out streets for `images` database images, and some streets without any."""
    needed = _visited_segments(images) * 1.3 + 6
    count = 3
    while 2 * count * (count - 1) < needed:
        count += 1
    rng = np.random.default_rng((seed, 10))
    x_streets = _parallel_streets(rng, count, 58.0, 76.0)
    return City(x_streets, _parallel_streets(rng, count, 56.0, 66.0), seed)


def _visited_segments(images: int) -> int:
    return max(3, round(images / 75))


def _parallel_streets(rng: np.random.Generator, count: int, low_m: float, high_m: float) -> Floats64:
    widths = rng.uniform(16.0, 21.0, count)
    starts = np.concatenate([[0.0], np.cumsum(widths[:-1] + rng.uniform(low_m, high_m, count - 1))])
    return np.round(np.stack([starts, starts + widths], axis=1), 2)


def _block_spans(streets: Floats64) -> list[tuple[float, float]]:
    edges = [streets[0, 0] - 60.0, *streets.ravel().tolist(), streets[-1, 1] + 60.0]
    return [(float(start), float(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


@dataclass(frozen=True)
class Shot:
    """A photo to draw; `x_m` and `y_m` are local and rounded to the centimetre, as in the file name."""

    street: str
    x_m: float
    y_m: float
    heading_deg: float
    pano: str
    month: str
    day: int
    number: int
    query: bool = False
    fov_deg: float = 82.0
    eye_m: float = 2.3
    tilt_deg: float = 0.0

    @property
    def utm(self) -> tuple[float, float]:
        """UTM east and north in metres."""
        return round(self.x_m + ORIGIN[0], 2), round(self.y_m + ORIGIN[1], 2)


def plan_shots(city: City, config: CityConfig) -> list[Shot]:
    """All photos of the city, the database before the queries."""
    rng = np.random.default_rng((config.seed, 20))
    segments = [city.segments[i] for i in rng.permutation(len(city.segments))]
    count = _visited_segments(config.images)
    visited, others = segments[:count], segments[count:]
    shots: list[Shot] = []
    for segment, images in zip(visited, _long_tail(visited, config.images), strict=True):
        shots += _drive(segment, images, rng, len(shots))
    positions = np.array([(shot.x_m, shot.y_m) for shot in shots])
    outside = round(config.queries * config.outside_share)
    inside = config.queries - outside
    for i in range(inside):
        shots.append(_query(visited[i % count], positions, rng, i, outside=False))
    for i in range(outside):
        shots.append(_query(others[i % len(others)], positions, rng, inside + i, outside=True))
    return shots


def _long_tail(segments: list[Segment], images: int) -> list[int]:
    """Images of each segment by Zipf's law, but one pass at least while images last; the sum is `images`."""
    weights = (1.0 + np.arange(len(segments))) ** -_LONG_TAIL_EXPONENT
    one_pass = np.array([int(_CROPS_PER_STOP * segment.stops) for segment in segments])
    least = np.minimum(one_pass, images // len(segments))
    spare = images - int(least.sum())
    extra = np.floor(spare * weights / weights.sum()).astype(int)
    extra[0] += spare - int(extra.sum())
    return [int(count) for count in least + extra]


def _drive(segment: Segment, images: int, rng: np.random.Generator, number: int) -> list[Shot]:
    """Drive the database car along the segment, pass after pass, until it has taken `images` photos."""
    shots: list[Shot] = []
    while True:
        day = int(rng.integers(1 << 30))
        turn = float(rng.choice([0.0, 8.0, 352.0]))
        forward = bool(rng.integers(2))
        month = f"{rng.integers(2009, 2016)}{rng.integers(1, 13):02d}"
        lane_m = (1 if (segment.axis == 1) == forward else -1) * float(rng.uniform(1.2, 2.2))
        first_m = segment.start_m + float(rng.uniform(0.0, 4.0))
        for stop in range(segment.stops):
            along_m = first_m + stop * _STOP_SPACING_M + float(rng.normal(0.0, 0.3))
            x, y = (round(value, 2) for value in segment.point(along_m, lane_m))
            pano = _pano_id(day, stop, number)
            # A panorama is cropped to both rows of houses, at every second stop also to the street itself.
            for crop in (0.0, 180.0, 90.0 if stop % 4 == 0 else 270.0)[: 3 - stop % 2]:
                if len(shots) == images:
                    return shots
                heading = (turn + crop + 90.0 * segment.axis) % 360.0
                shots.append(Shot(segment.name, x, y, heading, pano, month, day, number + len(shots)))


def _query(
    segment: Segment, positions: Floats64, rng: np.random.Generator, number: int, outside: bool
) -> Shot:
    """A pedestrian's photo near a database image, or beyond `OUTSIDE_M` from all of them."""
    middle = (segment.start_m + segment.stop_m) / 2
    reach = 4.0 if outside else (segment.stop_m - segment.start_m) / 2 - 1.0
    for _ in range(1000):
        x, y = segment.point(middle + float(rng.uniform(-reach, reach)), float(rng.uniform(-2.5, 2.5)))
        distances = np.hypot(*(positions - (x, y)).T)
        if outside and distances.min() > OUTSIDE_M + 1.0:
            break
        if not outside and distances.min() < 6.5:
            # Pedestrians stand close to a point that the car passed.
            x, y = positions[distances.argmin()] + rng.normal(0.0, 1.3, 2)
            break
    else:
        raise RuntimeError(f"no room for a query on {segment}")
    facing = float(rng.choice([0.0, 180.0])) + 90.0 * segment.axis
    heading = round(facing + float(rng.normal(0.0, 8.0))) % 360
    month = f"{rng.integers(2019, 2023)}{rng.integers(1, 13):02d}"
    day = int(rng.integers(1 << 30))
    fov, eye, tilt = float(rng.uniform(84.0, 92.0)), float(rng.uniform(1.5, 1.8)), float(rng.normal(0.0, 1.2))
    x, y, pano = round(float(x), 2), round(float(y), 2), _pano_id(day, number)
    return Shot(segment.name, x, y, heading, pano, month, day, number, True, fov, eye, tilt)


def _pano_id(*parts: int) -> str:
    """22 characters that depend on `parts` only, in the format of panorama ids."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
