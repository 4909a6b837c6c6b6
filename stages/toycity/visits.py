"""Who stands where: the passes of the database car, and the people who take the queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.toycity.config import CityConfig
from stages.toycity.names import pano_id, sfxl_name
from stages.toycity.streets import ORIGIN, City, Segment, visited_segments

OUTSIDE_M = 25.0
_TAIL_EXPONENT = 1.6
_CROPS = 2.5
_SPACING_M = 5.0
_QUERY_OFFSET_M = 1.3
_QUERY_TURN_DEG = 8.0


@dataclass(frozen=True)
class Shot:
    """One photo to draw: where, which way, through what lens, on which day.

    `x_m`, `y_m` are local, to the centimetre that the file name keeps.
    """

    path: str
    street: str
    x_m: float
    y_m: float
    heading_deg: float
    fov_deg: float
    eye_m: float
    tilt_deg: float
    day: int
    number: int
    query: bool

    @property
    def utm(self) -> tuple[float, float]:
        """UTM east and north, metres."""
        return round(self.x_m + ORIGIN[0], 2), round(self.y_m + ORIGIN[1], 2)


def plan_visits(city: City, config: CityConfig) -> list[Shot]:
    """All shots of the city, the database first."""
    rng = np.random.default_rng((config.seed, 20))
    order = rng.permutation(len(city.segments))
    segments = [city.segments[i] for i in order]
    count = visited_segments(config.images)
    visited, rest = segments[:count], segments[count:]
    database: list[Shot] = []
    for segment, images in zip(visited, _long_tail(visited, config.images), strict=True):
        database += _drive(segment, images, rng, len(database))
    positions = np.array([(shot.x_m, shot.y_m) for shot in database])
    outside = round(config.queries * config.outside_share)
    queries = [_stand(visited[i % count], positions, rng, i, False) for i in range(config.queries - outside)]
    queries += [_stand(rest[i % len(rest)], positions, rng, len(queries) + i, True) for i in range(outside)]
    return database + queries


def _long_tail(segments: list[Segment], images: int) -> list[int]:
    """Images per segment: Zipf, at least one pass each while they last, exactly `images` in all."""
    weights = (1.0 + np.arange(len(segments))) ** -_TAIL_EXPONENT
    least = np.array([int(_CROPS * _stops(segment)) for segment in segments])
    least = np.minimum(least, images // len(segments))
    spare = images - int(least.sum())
    extra = np.floor(spare * weights / weights.sum()).astype(int)
    extra[0] += spare - int(extra.sum())
    return [int(n) for n in least + extra]


def _stops(segment: Segment) -> int:
    return int((segment.stop_m - segment.start_m) // _SPACING_M) + 1


def _drive(segment: Segment, images: int, rng: np.random.Generator, number: int) -> list[Shot]:
    """Shots of the database car: pass after pass until there are `images`."""
    shots: list[Shot] = []
    while True:
        day = int(rng.integers(1 << 30))
        turn = float(rng.choice([0.0, 8.0, 352.0]))
        forth = bool(rng.integers(2))
        month = f"{rng.integers(2009, 2016)}{rng.integers(1, 13):02d}"
        lane = (1 if (segment.axis == 1) == forth else -1) * float(rng.uniform(1.2, 2.2))
        first = segment.start_m + float(rng.uniform(0.0, 4.0))
        for stop in range(_stops(segment)):
            along = first + stop * _SPACING_M + float(rng.normal(0.0, 0.3))
            x, y = segment.point(along, lane)
            pano = pano_id(day, stop, number)
            for crop in _crops(stop):
                if len(shots) == images:
                    return shots
                heading = (turn + crop + 90.0 * segment.axis) % 360.0
                shots.append(_shot("database", segment, x, y, heading, pano, month, day, number + len(shots)))


def _crops(stop: int) -> tuple[float, ...]:
    """Headings kept of a panorama: both rows of houses, at every other stop the street itself."""
    return (0.0, 180.0, 90.0 if stop % 4 == 0 else 270.0) if stop % 2 == 0 else (0.0, 180.0)


def _stand(
    segment: Segment, positions: npt.NDArray[np.float64], rng: np.random.Generator, number: int, outside: bool
) -> Shot:
    """A query photo on `segment`, or the same far from every database image."""
    middle = (segment.start_m + segment.stop_m) / 2
    reach = 4.0 if outside else (segment.stop_m - segment.start_m) / 2 - 1.0
    for _ in range(1000):
        x, y = segment.point(middle + float(rng.uniform(-reach, reach)), float(rng.uniform(-2.5, 2.5)))
        away = np.hypot(*(positions - (x, y)).T)
        if outside and away.min() > OUTSIDE_M + 1.0:
            break
        if not outside and away.min() < 6.5:
            # People stand a few metres from where the car once drove.
            x, y = positions[away.argmin()] + rng.normal(0.0, _QUERY_OFFSET_M, 2)
            break
    else:
        raise RuntimeError(f"no room for a query on {segment}")
    facing = float(rng.choice([0.0, 180.0])) + 90.0 * segment.axis
    heading = round(facing + float(rng.normal(0.0, _QUERY_TURN_DEG))) % 360
    month = f"{rng.integers(2019, 2023)}{rng.integers(1, 13):02d}"
    day = int(rng.integers(1 << 30))
    return _shot("queries", segment, x, y, heading, pano_id(day, number), month, day, number, rng)


def _shot(
    folder: str, segment: Segment, x: float, y: float, heading: float, pano: str, month: str, day: int,
    number: int, rng: np.random.Generator | None = None,
) -> Shot:  # fmt: skip
    x, y = round(float(x), 2), round(float(y), 2)
    name = sfxl_name(x + ORIGIN[0], y + ORIGIN[1], pano=pano, heading_deg=heading, timestamp=month)
    fov, eye, tilt = 82.0, 2.3, 0.0
    if rng is not None:
        fov, eye, tilt = (
            float(rng.uniform(84.0, 92.0)), float(rng.uniform(1.5, 1.8)), float(rng.normal(0.0, 1.2)),
        )  # fmt: skip
    path = f"{folder}/{name}"
    return Shot(path, segment.name, x, y, heading, fov, eye, tilt, day, number, rng is not None)
